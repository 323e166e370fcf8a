"""Check of a mapping: whether the couplings follow all that operators do with the channels between the layers.

Every index of a target's axis is made of one index of the source's. A strand of the target (see
:mod:`nni_warmstart.tracing.relations`) is then made of one strand of the source, wherever it occurs, and strands that the
target ties to each other are made of strands that the source ties in the same way; pieces are made of the same pieces, and
no channel of the source is lost. Where that does not hold, as where channels are added to themselves in another order,
copies of channels would meet others than in the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np
from torch import Tensor

from ..tracing.axes import IN, OUT, Axes
from ..tracing.channel_spaces import Couplings
from ..tracing.relations import SPREAD

REARRANGED = 'its channels are rearranged between layers in a way that cannot be followed to another width'


class Following(NamedTuple):
    """Result of the check.

    Attributes
    ----------
    lost
        Target tensors with channels that the couplings do not follow -> the reason.
    uneven
        Target tensors with channels over which means are taken, and of which some have more copies than others.
    """

    lost: dict[str, str]
    uneven: tuple[str, ...]


def follow(couplings: Couplings, pairs: dict[str, str]) -> Following:
    """Check whether couplings follow what operators do with the channels.

    Parameters
    ----------
    couplings
        Couplings of the channels of a target and a source.
    pairs
        Target tensor -> source tensor.
    """
    target, source = couplings.target, couplings.source
    made: list[np.ndarray] = [np.zeros((2, 0), int)]  # strands, and the strands that they are made of
    wrong: set[int] = set()
    uneven = []
    for name, other in pairs.items():
        axes = target.tensors[name], source.tensors[other]
        for axis, index in _indices(couplings, *axes):
            known = index >= 0
            own, theirs = (cast(np.ndarray, each.held(axis)).ravel() for each in axes)
            if any(_label(kind, axis) is not None for each in axes for kind in (each.strands, each.pieces)):
                made.append(np.stack([own[known], theirs[index[known]]]))
            for labels in (tuple(_label(each.pieces, axis) for each in axes), _groups(axes, axis)):
                if labels[0] is not None and labels[1] is not None:
                    wrong.update(own[known][labels[0].ravel()[known] != labels[1].ravel()[index[known]]].tolist())
            if known.all() and len(own) >= len(theirs) > len(np.unique(index)):
                wrong.update(own.tolist())  # some of the source's channels would be lost
            counts = _copies(axes, axis, index)
            if counts is None:
                wrong.update(own.tolist())  # means would be taken over other channels than in the source
            elif len(np.unique(counts)) > 1:
                uneven.append(name)
    both = np.unique(np.concatenate(made, 1), axis=1)
    values, count = np.unique(both[0], return_counts=True)
    wrong |= set(values[count > 1].tolist())
    origin = dict(both.T.tolist())
    known = {(a, b) for a, b, _ in source.ties.T.tolist()}
    for a, b, kind in target.ties.T.tolist():
        if a in origin and b in origin and (origin[a], origin[b]) not in known | _equal(kind, origin[a]):
            wrong |= {a, b}
    lost = {name: REARRANGED for name in pairs if wrong and _holds(target.tensors[name], wrong)}
    return Following(lost, tuple(name for name in uneven if name not in lost))


def _equal(kind: int, strand: int) -> set[tuple[int, int]]:
    """Return the pair of a strand with itself, where the source may have merged what the target ties."""
    return {(strand, strand)} if kind == SPREAD else set()


def _indices(couplings: Couplings, target: Axes, source: Axes) -> Iterator[tuple[int, np.ndarray]]:
    """Yield axes that the check is about, and for each index the source's that it is made of, -1 for several or none."""
    for axis, role in enumerate(target.roles):
        own, theirs = target.held(axis), source.held(axis)
        labels = [_label(kind, axis) for each in (target, source) for kind in (each.strands, each.norms, each.pieces)]
        if not role or own is None or theirs is None or all(label is None for label in labels):
            continue
        if own.ndim == 1 or len(own) != len(theirs):
            yield axis, _made_of(couplings.axis(own.ravel(), theirs.ravel()), own.size)
            continue
        rows = [_made_of(couplings.axis(*row), len(row[0])) for row in zip(own, theirs, strict=True)]
        width = theirs.shape[1]
        yield axis, np.concatenate([np.where(row >= 0, row + group * width, -1) for group, row in enumerate(rows)])


def _groups(axes: tuple[Axes, Axes], axis: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the group of each output of two convolutions in as many groups; None for other axes."""
    if not (axes[0].groups == axes[1].groups > 1 and IN in axes[0].roles and axes[0].roles[axis] == OUT):
        return None, None
    first, second = (np.arange(each.shape[axis]) * each.groups // each.shape[axis] for each in axes)
    return first, second


def _copies(axes: tuple[Axes, Axes], axis: int, index: np.ndarray) -> np.ndarray | None:
    """Return the number of copies of each channel over which means are taken; None if groups are made of several groups."""
    target, source = (_label(each.norms, axis) for each in axes)
    if target is None:
        return np.zeros(0, int)
    known = index >= 0
    groups = target.ravel()[known], index[known]
    theirs = np.zeros(len(index), int) if source is None else source.ravel()
    both = np.unique(np.stack([groups[0], theirs[groups[1]]]), axis=1)
    if len(np.unique(both[0])) < both.shape[1]:
        return None
    return np.unique(np.stack(groups), axis=1, return_counts=True)[1]


def _label(labels: tuple[np.ndarray | None, ...], axis: int) -> np.ndarray | None:
    return labels[axis] if labels else None


def _made_of(coupling: Tensor | None, count: int) -> np.ndarray:
    """Return the source index of each target index, -1 where it is made of several or of none."""
    if coupling is None:
        return np.arange(count)
    one = (coupling != 0).sum(0) == 1
    return np.where(one.numpy(), coupling.argmax(0).numpy(), -1)


def _holds(axes: Axes, wrong: set[int]) -> bool:
    """Check whether some of these strands occur in a tensor."""
    held = [axes.held(axis) for axis in range(len(axes.channels))]
    return any(each is not None and not wrong.isdisjoint(each.ravel().tolist()) for each in held)
