"""Channel spaces: channels that occur in the same places, and the correspondence between a target's spaces and a source's.

Two channels of a network belong to one space when they occur in the same axes of the same tensors, so that any of them could
stand for any other. A coupling between two spaces then says which source channels a target channel is made of, and one
coupling per space, applied wherever its channels occur, keeps a network consistent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .axes import IN, OUT, Axes, Channels, count_norms, count_pieces

Place = tuple[str, int, int]
"""Source tensor, axis, and segment of the axis (of a mutable width) or group (of a grouped convolution)."""

Couple = Callable[['ChannelSpace', 'ChannelSpace'], Tensor]
"""Function that returns the coupling, shape ``(n_source, n_target)``, of a source's space and a target's."""


@dataclass(frozen=True)
class ChannelSpace:
    """Interchangeable channels.

    Attributes
    ----------
    index
        Number of the space in its network.
    channels
        Numbers of the channels.
    places
        Places where the channels occur, by the names of the source's tensors.
    """

    index: int
    channels: np.ndarray
    places: frozenset[Place]

    def __len__(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class ChannelSpaces:
    """All channel spaces of one network, and for every channel and strand the number of its space and its rank there."""

    spaces: list[ChannelSpace]
    of: np.ndarray
    rank: np.ndarray


def pair_spaces(target: Channels, source: Channels, tensors: dict[str, str]) -> tuple[ChannelSpaces, ChannelSpaces]:
    """Find the spaces of a target and of a source by the places in which corresponding tensors hold their channels.

    Parameters
    ----------
    target, source
        Channels of the two networks.
    tensors
        Target tensor -> source tensor.

    Returns
    -------
    tuple
        Spaces of the target, spaces of the source.
    """
    targets: dict[str, list[str]] = defaultdict(list)
    for target_name, source_name in tensors.items():
        targets[source_name].append(target_name)
    places: tuple[dict[Place, list[np.ndarray]], ...] = (defaultdict(list), defaultdict(list))
    for source_name, names in targets.items():
        source_axes = source.tensors[source_name]
        for axis, role in enumerate(source_axes.roles):
            if not role:
                continue
            count = count_pieces(source_axes, axis)
            names_alike = [name for name in names if axis < len(target.tensors[name].roles)]
            names_alike = [name for name in names_alike if count_pieces(target.tensors[name], axis) == count]
            parts = [(0, source_axes), *((1, target.tensors[name]) for name in names_alike)]
            if names_alike and all(axes.roles[axis] == role for _, axes in parts):
                grouped = len({axes.groups for _, axes in parts}) == 1
                split = grouped and len({len(axes.bounds[axis]) for _, axes in parts}) == 1
                normed = len({count_norms(axes, axis) for _, axes in parts}) == 1
                for network, axes in parts:
                    for part, channels in _parts(axes, axis, split, grouped, normed):
                        places[network][source_name, axis, part].append(channels)
    return _spaces(places[1], target), _spaces(places[0], source)


def _parts(axes: Axes, axis: int, split: bool, grouped: bool, normed: bool) -> list[tuple[int, np.ndarray]]:
    """Cut an axis into parts that are not interchangeable.

    It is cut at the bounds of a mutable width or by group of a convolution, by the pieces that operators made of it, and by
    the groups in which it is normalised.
    """
    channels = axes.channels[axis]
    assert channels is not None
    part = _segments(axes, axis, channels, split, grouped)
    if count_pieces(axes, axis) > 1:
        part = part * count_pieces(axes, axis) + axes.pieces[axis]
    if normed and count_norms(axes, axis) > 1:
        part = part * count_norms(axes, axis) + axes.norms[axis]
    return [(int(number), channels[part == number]) for number in np.unique(part)]


def _segments(axes: Axes, axis: int, channels: np.ndarray, split: bool, grouped: bool) -> np.ndarray:
    """Return the segment of a mutable width, or the group of a convolution, of each index of an axis."""
    if channels.ndim == 2:
        return np.zeros(channels.shape, int) + (np.arange(len(channels))[:, None] if grouped else 0)
    if not split:
        return np.zeros(len(channels), int)
    if axes.groups > 1 and axes.roles.count(OUT) and IN in axes.roles:
        return np.arange(len(channels)) // (len(channels) // axes.groups)
    return np.searchsorted(axes.bounds[axis], np.arange(len(channels)), 'right')


def _spaces(places: dict[Place, list[np.ndarray]], network: Channels) -> ChannelSpaces:
    count = 1 + max((int(c.max()) for axes in network.tensors.values() for c in axes.channels if c is not None), default=-1)
    signature = np.zeros(count, dtype=np.uint64)
    random = np.random.default_rng(0)
    present: dict[Place, np.ndarray] = {}
    for place in sorted(places):
        channels = np.unique(np.concatenate(places[place]))
        signature[channels] ^= random.integers(1, 2**63, dtype=np.uint64)
        present[place] = channels
    _, first, label = np.unique(signature, return_index=True, return_inverse=True)
    order = np.empty(len(first), int)
    order[np.argsort(first)] = np.arange(len(first))  # numbered in the order of execution
    of = order[label]
    held: dict[int, set[Place]] = defaultdict(set)
    for place, channels in present.items():
        for index in np.unique(of[channels]):
            held[int(index)].add(place)
    members = np.split(np.argsort(of, kind='stable'), np.cumsum(np.bincount(of, minlength=len(first)))[:-1])
    rank = np.empty(count, int)
    spaces = []
    for index, channels in enumerate(members):
        rank[channels] = np.arange(len(channels))
        spaces.append(ChannelSpace(index, channels, frozenset(held[index])))
    of_strand = _channels_of_strands(network, count)
    return ChannelSpaces(spaces, of[of_strand], rank[of_strand])


def _channels_of_strands(network: Channels, count: int) -> np.ndarray:
    """Return the channel of every strand of a network; the first ``count`` strands are channels themselves."""
    pairs = [
        (strand.ravel(), channels.ravel())
        for axes in network.tensors.values()
        for strand, channels in zip(axes.strands, axes.channels, strict=False)
        if strand is not None and channels is not None
    ]
    of = np.arange(max([count, *(int(strand.max()) + 1 for strand, _ in pairs)]))
    for strand, channels in pairs:
        of[strand] = channels
    return np.minimum(of, count - 1)  # numbers between may be unused


class Couplings:
    """Couplings of whole axes, put together from those of their spaces.

    Parameters
    ----------
    target, source
        The two networks.
    tensors
        Target tensor -> source tensor.
    couple
        Returns the coupling of two spaces; called once per pair, in the order of execution.
    labels
        Label of each channel of the target and of the source, -1 for none: where all channels of an axis have one, it is
        coupled by labels instead.
    """

    def __init__(
        self,
        target: Channels,
        source: Channels,
        tensors: dict[str, str],
        couple: Couple,
        labels: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.target, self.source, self.labels = target, source, labels
        self.target_spaces, self.source_spaces = pair_spaces(target, source, tensors)
        self.couple = couple
        self.found: dict[tuple[int, int], Tensor] = {}
        self._axes: dict[tuple[bytes, bytes], Tensor | None] = {}
        self._distinct: dict[torch.Size, list[Tensor]] = defaultdict(list)
        self._same = {space.places: space.index for space in self.source_spaces.spaces if space.places}

    def partner(self, space: int, candidates: np.ndarray) -> int:
        """Return the space among ``candidates`` that a target's space corresponds to: equal places, else most in common."""
        places = self.target_spaces.spaces[space].places
        same = self._same.get(places)
        if same is not None and same in candidates:
            return same

        def overlap(index: int) -> float:
            other = self.source_spaces.spaces[index].places
            return len(places & other) / max(len(places | other), 1)

        return max((int(index) for index in candidates), key=overlap)

    def pairs(self) -> list[tuple[ChannelSpace, ChannelSpace]]:
        """Return every target space together with the source space of equal places, where there is one."""
        found = [(space, self._same.get(space.places)) for space in self.target_spaces.spaces if space.places]
        return [(space, self.source_spaces.spaces[other]) for space, other in found if other is not None]

    def of(self, space: int, other: int) -> Tensor:
        """Return the coupling of a target space and a source space, shape ``(n_source, n_target)``."""
        if (space, other) not in self.found:
            coupling = self.couple(self.source_spaces.spaces[other], self.target_spaces.spaces[space])
            self.found[space, other] = self._shared(coupling)
        return self.found[space, other]

    def axis(self, target_axis: np.ndarray, source_axis: np.ndarray) -> Tensor | None:
        """Return the coupling of two axes, shape ``(len(source_axis), len(target_axis))``; None for the identity.

        Axes are given by the numbers of their channels or strands (:meth:`Axes.held`).

        A space that occurs several times in an axis (concatenated, flattened) is coupled occurrence by occurrence.
        """
        key = (target_axis.tobytes(), source_axis.tobytes())
        if key not in self._axes:
            coupling = self._axis(target_axis, source_axis)
            self._axes[key] = None if coupling is None else self._shared(coupling)
        return self._axes[key]

    def _shared(self, coupling: Tensor) -> Tensor:
        """Return an equal coupling that was found before, if there is one: those of many candidates take much memory."""
        found = self._distinct[coupling.shape]
        for other in found:
            if torch.equal(coupling, other):
                return other
        found.append(coupling)
        return coupling

    def _axis(self, target_axis: np.ndarray, source_axis: np.ndarray) -> Tensor | None:
        coupling = self._by_label(target_axis, source_axis)
        if coupling is None:
            coupling = self._by_space(target_axis, source_axis)
        identity = torch.eye(len(target_axis), dtype=coupling.dtype)
        if coupling.shape[0] == coupling.shape[1] and torch.equal(coupling, identity):
            return None
        return coupling

    def _by_label(self, target_axis: np.ndarray, source_axis: np.ndarray) -> Tensor | None:
        if (
            self.labels is None
            or target_axis.max(initial=-1) >= len(self.labels[0])
            or (self.labels[0][target_axis] < 0).any()
        ):
            return None
        return torch.from_numpy(self.labels[1][source_axis][:, None] == self.labels[0][target_axis]).double()

    def _by_space(self, target_axis: np.ndarray, source_axis: np.ndarray) -> Tensor:
        coupling = torch.zeros(len(source_axis), len(target_axis), dtype=torch.float64)
        target_spaces, source_spaces = self.target_spaces.of[target_axis], self.source_spaces.of[source_axis]
        candidates = np.unique(source_spaces)
        for space in np.unique(target_spaces):
            other = self.partner(int(space), candidates)
            block = self.of(int(space), other)
            place(
                coupling,
                block,
                occurrences(source_axis, source_spaces == other, self.source_spaces.rank),
                occurrences(target_axis, target_spaces == space, self.target_spaces.rank),
            )
        return coupling


@dataclass(frozen=True)
class Occurrences:
    """Places of the channels of a space in an axis.

    Attributes
    ----------
    positions, ranks
        Positions in the axis, and the ranks of the channels at these positions.
    strand
        Number of other strands of the channel in the axis that come before this one, in the order in which they are made.
    repeat
        Number of earlier positions that hold the same strand.
    """

    positions: Tensor
    ranks: Tensor
    strand: Tensor
    repeat: Tensor

    @cached_property
    def strands(self) -> int:
        return int(self.strand.max()) + 1

    @cached_property
    def repeats(self) -> int:
        return int(self.repeat.max()) + 1

    @cached_property
    def turn(self) -> Tensor:
        """Numbers that tell the occurrences of one channel apart."""
        return self.strand * self.repeats + self.repeat

    @cached_property
    def image_size(self) -> int:
        """Size in pixels of the square images that were flattened channel by channel, 0 if the axis holds no such images."""
        size, held = math.isqrt(self.repeats), self.ranks * self.strands + self.strand
        first = held[:: self.repeats]
        adjacent = len(held) == self.repeats * len(first) and torch.equal(held, first.repeat_interleave(self.repeats))
        return size if size**2 == self.repeats and adjacent else 0

    @cached_property
    def is_whole(self) -> bool:
        """Whether the axis is the space, channel by channel."""
        return torch.equal(self.positions, self.ranks) and torch.equal(self.ranks, torch.arange(len(self.ranks)))

    def turns_for(self, target: Occurrences) -> Tensor:
        """Return the turn of this source that corresponds to each position of a target.

        First occurrences correspond to first occurrences and so on, those in flattened images by row and column.
        """
        if self.image_size and target.image_size:
            size = target.image_size
            row, column = (each * self.image_size // size for each in (target.repeat // size, target.repeat % size))
            repeat = row * self.image_size + column
        else:
            repeat = target.repeat * self.repeats // target.repeats
        return target.strand * self.strands // target.strands * self.repeats + repeat


def occurrences(channels: np.ndarray, inside: np.ndarray, rank: np.ndarray) -> Occurrences:
    """Find a space in an axis.

    Parameters
    ----------
    channels
        Channels or strands of the axis.
    inside
        Mask of the channels that belong to the space.
    rank
        Rank of every channel and strand of the network in its space.
    """
    positions = np.flatnonzero(inside)
    held, inverse = np.unique(channels[positions], return_inverse=True)
    strand = _running(rank[held])[inverse]
    return Occurrences(*map(torch.from_numpy, (positions, rank[channels[positions]], strand, _running(inverse))))


def _running(values: np.ndarray) -> np.ndarray:
    """Return for each value how many equal ones come before it."""
    order = np.argsort(values, kind='stable')
    counts = np.unique(values, return_counts=True)[1]
    running = np.empty(len(values), int)
    running[order] = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    return running


def place(coupling: Tensor, block: Tensor, source: Occurrences, target: Occurrences) -> None:
    """Write the coupling of two spaces into the coupling of two axes, occurrence by occurrence."""
    if source.is_whole and target.is_whole and block.shape == coupling.shape:
        coupling.copy_(block)
        return
    same = source.turn[:, None] == source.turns_for(target)
    coupling[source.positions[:, None], target.positions] = torch.where(same, block[source.ranks][:, target.ranks], 0.0)
