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


def searched_widths(model: nn.Module) -> dict[str, Searched]:
    """Return the width (output channels) of each layer that searches it, by path."""
    return _searched(model, ('out_channels', 'out_features'))


def searched_kernels(model: nn.Module) -> dict[str, Searched]:
    """Return the size (pixels) of each kernel that is searched, by the path of the layer."""
    return _searched(model, ('kernel_size',))


def _searched(model: nn.Module, names: tuple[str, ...]) -> dict[str, Searched]:
    found: dict[str, Searched] = {}
    known: dict[int, Searched | None] = {}  # layers of a stage share their expressions
    for path, module in model.named_modules():
        arguments: dict[str, Any] = module.mutable_arguments if isinstance(module, MixedOperation) else {}
        for name in arguments.keys() & set(names):
            expression = arguments[name]
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
