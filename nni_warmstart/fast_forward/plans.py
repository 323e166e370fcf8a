"""Plans of the mixed modules of a supernet: which module has which, or why it has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from ..nni_adapter.mixed import DifferentiableMixedCell, DifferentiableMixedLayer, NasBench201Cell, convolution_of
from .cell import CellPlan
from .choice import ChoicePlan
from .depthwise import convolved
from .nasbench201 import NasBench201Plan


class Plan(Protocol):
    """Forward of one module.

    Attributes
    ----------
    name
        Kind of the plan.
    misfit
        Reason why the module cannot be run by it; '' for none.
    """

    name: str
    misfit: str

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Compute what NNI's forward computes."""
        ...


class ConvolutionPlan:
    """Forward of a depthwise convolution outside of cells, such as those of mobile blocks; others run as they are."""

    name = 'depthwise convolution'

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer
        self.misfit = ''

    def __call__(self, x: Tensor) -> Tensor:
        found = convolution_of(self._layer, x)
        return type(self._layer).forward(self._layer, x) if found is None else convolved(x, found)


def convolutions(model: nn.Module) -> Iterator[tuple[str, ConvolutionPlan]]:
    """Iterate over the depthwise convolutions outside of cells, by name, with their plans."""
    cells = tuple(f'{name}.' for name, module in mixed_modules(model) if not isinstance(module, DifferentiableMixedLayer))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and not f'{name}.'.startswith(cells):
            yield name, ConvolutionPlan(module)


_PLANS: tuple[tuple[type[nn.Module], Any], ...] = (
    (DifferentiableMixedCell, CellPlan),
    (NasBench201Cell, NasBench201Plan),
    (DifferentiableMixedLayer, ChoicePlan),
)


def plan_of(module: nn.Module, *, restores: bool = True) -> Plan | None:
    """Return the plan of a cell or a choice; None for modules that mix nothing.

    Parameters
    ----------
    module
        Module of a supernet.
    restores
        Whether outputs have the order in memory that NNI's forward gives them, which code of users may depend on.
    """
    for kind, plan in _PLANS:
        if isinstance(module, kind):
            made = plan(module, restores)
            if not made.misfit and type(module).forward is not kind.forward:
                made.misfit = f'{type(module).__name__} has a forward of its own'
            return made
    return None


def mixed_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over the names and modules that :func:`plan_of` knows, without those inside of others."""
    stack = [('', model)]
    while stack:
        name, module = stack.pop()
        if isinstance(module, tuple(kind for kind, _ in _PLANS)):
            yield name, module
        else:
            stack += [(f'{name}.{child}'.lstrip('.'), part) for child, part in reversed(list(module.named_children()))]


def watched(module: nn.Module) -> str:
    """Return why a module must be run as it is: hooks, or forwards that somebody exchanged, inside of it; '' for nothing."""
    for each in module.modules():
        own = vars(each)
        if any(own[hooks] for hooks in _HOOKS if hooks in own):
            return f'{type(each).__name__} has hooks'
        if 'forward' in own:
            return f'the forward of {type(each).__name__} was exchanged'
    return ''


_HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
