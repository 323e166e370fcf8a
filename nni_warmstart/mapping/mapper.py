"""The weight mapper: tensors of one network mapped to the channels, kernels, ops and depth of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..tracing.axes import IN, OUT, Axes, count_pieces
from ..tracing.channel_spaces import ChannelSpace, Couple, Couplings
from ..tracing.structure import Structure, ancestors
from .correspondence import Correspondence, match_modules
from .coupling import replicated
from .following import follow
from .projection import averaging, project, project_groups, project_regrouped, resize_kernel, sharing

Share = Callable[[str, Tensor], Tensor]

MappedKind = Literal['copied', 'widened', 'merged', 'kernel-resized', 'op-mapped', 'block-mapped']
"""Ways to map a tensor."""


@dataclass(frozen=True)
class Mapping:
    """Weights of a source in a target's shapes, as :func:`map_tensors` returns them.

    Attributes
    ----------
    tensors
        Mapped tensors by the name of the target tensor; those of :attr:`unmapped` are missing.
    pairs
        Target tensor -> source tensor.
    couplings
        Couplings of the channel spaces.
    kinds
        Target tensor -> way in which it was mapped.
    repeated
        Target tensors in which channels are repeated: their symmetry is to be broken.
    unmapped
        Target tensor -> reason why it is not mapped although it has a partner.
    correspondence
        Correspondence of tensors, blocks and choices.
    unfollowed
        Unmapped tensors whose channels operators cut or rearrange in a way that cannot be followed to the target's widths.
    uneven
        Target tensors with channels over which means are taken, and of which some have more copies than others.
    lacking
        Layers of the source that read channels which do not reach their places in the target.
    """

    tensors: dict[str, Tensor]
    pairs: dict[str, str]
    couplings: Couplings
    kinds: dict[str, MappedKind]
    repeated: frozenset[str]
    unmapped: dict[str, str]
    correspondence: Correspondence
    unfollowed: tuple[str, ...] = ()
    uneven: tuple[str, ...] = ()
    lacking: frozenset[str] = frozenset()


def map_tensors(
    state: dict[str, Tensor],
    source: Structure,
    target: Structure,
    *,
    couple: Couple | None = None,
    share: Share | None = None,
    skip: frozenset[str] = frozenset(),
    correspondence: Correspondence | None = None,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> Mapping:
    """Map the tensors of a source to the shapes of a target.

    Parameters
    ----------
    state
        Tensors of the source by name.
    source, target
        Structures of the two networks.
    couple
        Returns the coupling of two channel spaces; None for :func:`evenly`.
    share
        Returns R, by which the input channels of a layer are shared out, from the name of the source's weight and the
        coupling of its input axis, both of shape ``(n_source, n_target)``; None for
        :func:`~nni_warmstart.mapping.projection.sharing`.
    skip
        Target tensors that are left out (the classifier).
    correspondence
        Correspondence of the two networks; None to find it.
    labels
        Labels of the target's and the source's channels, by which these are coupled
        (:class:`~nni_warmstart.tracing.channel_spaces.Couplings`); None for none.
    """
    found = match_modules(target, source) if correspondence is None else correspondence
    pairs = pair_tensors(found, state, skip)
    couplings = Couplings(target.channels, source.channels, pairs, couple or evenly(source), labels)
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, MappedKind] = {}
    repeated: set[str] = set()
    axes_of = {name: (target.channels.tensors[name], source.channels.tensors[origin]) for name, origin in pairs.items()}
    unmapped = {name: why for name, axes in axes_of.items() if (why := misfit(*axes)) is not None}
    cut = {name: why for name, axes in axes_of.items() if (why := cut_otherwise(*axes)) is not None}
    lost, uneven = follow(couplings, {name: origin for name, origin in pairs.items() if name not in unmapped | cut})
    unmapped = {**cut, **lost, **unmapped}
    for name, origin in pairs.items():
        if name in unmapped:
            continue
        target_axes, source_axes = axes_of[name]
        matrices = _matrices(couplings, target_axes, source_axes)
        if matrices.repeats:
            repeated.add(name)
        mapped = _projected(state[origin], matrices, target_axes, source_axes, partial(share or _share, origin))
        if tuple(mapped.shape) != target_axes.shape:
            unmapped[name] = f'its shape {target_axes.shape} cannot be made of {source_axes.shape}'
            continue
        tensors[name] = mapped
        kinds[name] = _kind(found, name, state[origin].shape, mapped.shape)
    return Mapping(
        tensors,
        pairs,
        couplings,
        kinds,
        frozenset(repeated),
        unmapped,
        found,
        tuple(name for name in pairs if name in cut | lost),
        uneven,
    )


def pair_tensors(correspondence: Correspondence, state: dict[str, Tensor], skip: frozenset[str]) -> dict[str, str]:
    """Return target tensor -> source tensor, for tensors that the source has and that are not left out."""
    return {name: origin for name, origin in correspondence.tensors.items() if name not in skip and origin in state}


def evenly(source: Structure) -> Couple:
    """Make couplings without data: identity, replication, and sums or means for the channels of images."""

    def couple(source_space: ChannelSpace, target_space: ChannelSpace) -> Tensor:
        if len(source_space) != len(target_space) and np.isin(source_space.channels, source.channels.inputs).any():
            return torch.ones(len(source_space), len(target_space), dtype=torch.float64)
        return replicated(len(source_space), len(target_space))

    return couple


def misfit(target: Axes, source: Axes) -> str | None:
    """Return the reason why a tensor cannot be mapped by any couplings; None if it can."""
    if target.roles != source.roles:
        return f"its dimensions mean {target.roles}, the source's {source.roles}"
    if len(target.dilation) != len(source.dilation):
        return f"its kernel has {len(target.dilation)} dimensions, the source's {len(source.dilation)}"
    for axes in zip(target.channels, source.channels, strict=True):
        grouped = {each.ndim == 2 for each in axes if each is not None}
        if len(grouped) == 2:
            return f"it has {target.groups} groups, the source's {source.groups}"
    return None


def cut_otherwise(target: Axes, source: Axes) -> str | None:
    """Return the reason why operators cut the channels of a tensor otherwise than the source's; None if they do not."""
    for axis, role in enumerate(target.roles):
        counts = [count_pieces(each, axis) for each in (target, source)]
        if role and counts[0] != counts[1]:
            return f"operators cut its channels into {counts[0]} pieces, the source's into {counts[1]}"
    return None


def _share(name: str, coupling: Tensor) -> Tensor:
    return sharing(coupling)


class _Matrices(NamedTuple):
    """Couplings of the output axis (made) and of the input axis (read) of one tensor, None for the identity."""

    made: tuple[int, Tensor | None]
    read: tuple[int, Tensor | None]
    grouped: list[Tensor | None]  # one for each group of a grouped convolution
    regrouped: tuple[Tensor | None] | None  # one for all groups together, where their numbers differ

    @property
    def repeats(self) -> bool:
        """Whether a channel of the source has several copies."""
        both = self.made[1], self.read[1]
        return any(matrix is not None and bool(((matrix != 0).sum(1) > 1).any()) for matrix in both)


def _matrices(couplings: Couplings, target: Axes, source: Axes) -> _Matrices:
    whole: dict[str, tuple[int, Tensor | None]] = {}
    grouped: list[Tensor | None] = []
    regrouped: tuple[Tensor | None] | None = None
    for axis, role in enumerate(target.roles):
        target_axis, source_axis = target.held(axis), source.held(axis)
        if target_axis is None or source_axis is None:
            continue
        if target_axis.ndim == 2 and len(target_axis) != len(source_axis):
            regrouped = (couplings.axis(target_axis.ravel(), source_axis.ravel()),)
        elif target_axis.ndim == 2:
            blocks = [couplings.axis(*each) for each in zip(target_axis, source_axis, strict=True)]
            grouped = [None if block is None else sharing(block) for block in blocks]
        else:
            whole[role] = (axis, couplings.axis(target_axis, source_axis))
    return _Matrices(whole.get(OUT, (0, None)), whole.get(IN, (1, None)), grouped, regrouped)


def _projected(tensor: Tensor, matrices: _Matrices, target: Axes, source: Axes, share: Callable[[Tensor], Tensor]) -> Tensor:
    (made_axis, made), (read_axis, read) = matrices.made, matrices.read
    made, read = (None if made is None else averaging(made)), (None if read is None else share(read))
    if matrices.regrouped and target.groups == target.shape[0] and source.groups == source.shape[0]:
        out = project(tensor, made, None)  # depthwise: each channel is made of those of one kernel only
    elif matrices.regrouped:
        size = target.shape[0], target.groups * target.shape[1], target.groups
        out = project_regrouped(tensor, made, matrices.regrouped[0], source.groups, size)
    elif matrices.grouped:
        out = project_groups(tensor, made, matrices.grouped, target.groups)
    else:
        out = project(tensor, made, read, (made_axis, read_axis))
    if target.dilation:
        length = len(target.dilation)
        out = resize_kernel(out, target.shape[-length:], target.dilation, source.dilation)
    return out


def _kind(found: Correspondence, name: str, before: torch.Size, after: torch.Size) -> MappedKind:
    if before != after:
        if len(before) > 2 and before[2:] != after[2:]:
            return 'kernel-resized'
        return 'widened' if any(a > b for a, b in zip(after, before, strict=True)) else 'merged'
    paths = ancestors(name.rpartition('.')[0])
    if any(path in found.renamed for path in paths):
        return 'op-mapped'
    return 'block-mapped' if any(path != found.blocks.get(path, path) for path in paths) else 'copied'
