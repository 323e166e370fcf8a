"""Numbers that a supernet searches in the arguments of its layers: widths and kernels, as functions of its choices."""

from __future__ import annotations

from typing import Any, NamedTuple

from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from torch import nn

_MOST = 4096  # combinations of choices


class Searched(NamedTuple):
    """Number that depends on choices.

    Attributes
    ----------
    labels
        Labels of the choices, as in :func:`~nni_warmstart.nni_adapter.choices.choices`.
    numbers
        Candidates of these choices, in the order of the labels -> the number.
    """

    labels: tuple[str, ...]
    numbers: dict[tuple[str, ...], int]


WIDTH, READ, KERNEL = ('out_channels', 'out_features'), ('in_channels', 'in_features'), ('kernel_size',)
"""Arguments for the number of output channels, of input channels, and for the size of the kernel (pixels)."""


def searched_numbers(model: nn.Module, arguments: tuple[str, ...]) -> dict[str, Searched]:
    """Return the number that each layer searches for one of some arguments, by the path of the layer.

    Input channels are left out where a layer has as many groups as channels, as these do not cut its weights.
    """
    found: dict[str, Searched] = {}
    known: dict[int, Searched | None] = {}  # layers of a stage share their expressions
    for path, module in model.named_modules():
        searched: dict[str, Any] = module.mutable_arguments if isinstance(module, MixedOperation) else {}
        for name in searched.keys() & set(arguments):
            if name in READ and 'groups' in searched:
                continue
            expression = searched[name]
            if id(expression) not in known:
                known[id(expression)] = _tabulated(expression)
            table = known[id(expression)]
            if table is not None:
                found[path] = table
    return found


def _tabulated(expression: Any) -> Searched | None:
    labels = tuple(expression.simplify())
    numbers: dict[tuple[str, ...], int] = {}
    sample: dict[str, Any] = {}
    for value in expression.grid(memo=sample):
        numbers[tuple(str(sample[label]) for label in labels)] = int(value[-1] if isinstance(value, tuple) else value)
        if len(numbers) > _MOST:
            return None
    return Searched(labels, numbers)
