"""Plans of the mixed modules of a supernet: which module has which, or why it has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import nn

from ..nni_adapter.mixed import DifferentiableMixedCell, DifferentiableMixedLayer, NasBench201Cell
from .cell import CellPlan
from .choice import ChoicePlan
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
