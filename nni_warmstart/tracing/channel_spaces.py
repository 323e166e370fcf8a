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

from .axes import IN, OUT, Axes, Channels

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
    """All channel spaces of one network, and for every channel the number of its space (``of``) and its rank there."""

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
            parts = [(0, source_axes), *((1, target.tensors[name]) for name in names)]
            if all(axis < len(axes.roles) and axes.roles[axis] == role for _, axes in parts):
                grouped = len({axes.groups for _, axes in parts}) == 1
                split = grouped and len({len(axes.bounds[axis]) for _, axes in parts}) == 1
                for network, axes in parts:
                    for part, channels in _parts(axes, axis, split, grouped):
                        places[network][source_name, axis, part].append(channels)
    return _spaces(places[1], target), _spaces(places[0], source)


def _parts(axes: Axes, axis: int, split: bool, grouped: bool) -> list[tuple[int, np.ndarray]]:
    """Cut an axis into segments that are not interchangeable: at the bounds of a mutable width, or by group."""
    channels = axes.channels[axis]
    assert channels is not None
    if channels.ndim == 2:
        return list(enumerate(channels)) if grouped else [(0, channels.ravel())]
    if not split:
        return [(0, channels)]
    if axes.groups > 1 and axes.roles.count(OUT) and IN in axes.roles:
        return list(enumerate(channels.reshape(axes.groups, -1)))
    cuts = np.split(channels, axes.bounds[axis])
    return list(enumerate(cuts))


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
    return ChannelSpaces(spaces, of, rank)


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
    """

    def __init__(self, target: Channels, source: Channels, tensors: dict[str, str], couple: Couple) -> None:
        self.target, self.source = target, source
        self.target_spaces, self.source_spaces = pair_spaces(target, source, tensors)
        self.couple = couple
        self.found: dict[tuple[int, int], Tensor] = {}
        self._axes: dict[tuple[bytes, bytes], Tensor | None] = {}
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
            self.found[space, other] = self.couple(self.source_spaces.spaces[other], self.target_spaces.spaces[space])
        return self.found[space, other]

    def axis(self, target_axis: np.ndarray, source_axis: np.ndarray) -> Tensor | None:
        """Return the coupling of two axes, shape ``(len(source_axis), len(target_axis))``; None for the identity.

        Axes are given by the numbers of their channels.

        A space that occurs several times in an axis (concatenated, flattened) is coupled occurrence by occurrence.
        """
        key = (target_axis.tobytes(), source_axis.tobytes())
        if key not in self._axes:
            self._axes[key] = self._axis(target_axis, source_axis)
        return self._axes[key]

    def _axis(self, target_axis: np.ndarray, source_axis: np.ndarray) -> Tensor | None:
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
        identity = torch.eye(len(target_axis), dtype=coupling.dtype)
        if coupling.shape[0] == coupling.shape[1] and torch.equal(coupling, identity):
            return None
        return coupling


@dataclass(frozen=True)
class Occurrences:
    """Places of the channels of a space in an axis.

    Attributes
    ----------
    positions, ranks
        Positions in the axis, and the ranks of the channels at these positions.
    turn
        Number of earlier positions that hold the same channel.
    """

    positions: Tensor
    ranks: Tensor
    turn: Tensor

    @cached_property
    def turns(self) -> int:
        return int(self.turn.max()) + 1

    @cached_property
    def image_size(self) -> int:
        """Size in pixels of the square images that were flattened channel by channel, 0 if the axis holds no such images."""
        size = math.isqrt(self.turns)
        adjacent = len(self.ranks) == self.turns * len(self.ranks[:: self.turns]) and bool(
            (self.ranks == self.ranks[:: self.turns].repeat_interleave(self.turns)).all()
        )
        return size if size**2 == self.turns and adjacent else 0

    @cached_property
    def is_whole(self) -> bool:
        """Whether the axis is the space, channel by channel."""
        return torch.equal(self.positions, self.ranks) and torch.equal(self.ranks, torch.arange(len(self.ranks)))


def occurrences(channels: np.ndarray, inside: np.ndarray, rank: np.ndarray) -> Occurrences:
    """Find a space in an axis.

    Parameters
    ----------
    channels
        Channels of the axis.
    inside
        Mask of the channels that belong to the space.
    rank
        Rank of every channel of the network in its space.
    """
    positions = np.flatnonzero(inside)
    held = channels[positions]
    order = np.argsort(held, kind='stable')
    counts = np.unique(held, return_counts=True)[1]
    turn = np.empty(len(held), int)
    turn[order] = np.arange(len(held)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Occurrences(*map(torch.from_numpy, (positions, rank[held], turn)))


def place(coupling: Tensor, block: Tensor, source: Occurrences, target: Occurrences) -> None:
    """Write the coupling of two spaces into the coupling of two axes.

    First occurrences are coupled with first occurrences and so on, those in flattened images by row and column.
    """
    if source.is_whole and target.is_whole and block.shape == coupling.shape:
        coupling.copy_(block)
        return
    if source.image_size and target.image_size:
        size = target.image_size
        row, column = (each * source.image_size // size for each in (target.turn // size, target.turn % size))
        turn = row * source.image_size + column
    else:
        turn = target.turn * source.turns // target.turns
    same = source.turn[:, None] == turn
    coupling[source.positions[:, None], target.positions] = torch.where(same, block[source.ranks][:, target.ranks], 0.0)
