"""Channel spaces: channels that occur in the same places, and which space of a source each one of a target corresponds to.

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
"""Gives the coupling, shape ``(n_source, n_target)``, of a source's space and a target's."""


@dataclass(frozen=True)
class ChannelSpace:
    """Interchangeable channels.

    Attributes
    ----------
    index
        Its number in its network.
    channels
        Numbers of its channels.
    places
        Where they occur, by the names of the source's tensors.
    """

    index: int
    channels: np.ndarray
    places: frozenset[Place]

    def __len__(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class ChannelSpaces:
    """All spaces of one network: by number, and per channel the number and the rank in it."""

    spaces: list[ChannelSpace]
    of: np.ndarray
    rank: np.ndarray


def pair_spaces(target: Channels, source: Channels, tensors: dict[str, str]) -> tuple[ChannelSpaces, ChannelSpaces]:
    """Spaces of a target and of a source, by the places in which corresponding tensors hold their channels.

    Parameters
    ----------
    tensors
        Target tensor -> source tensor.
    """
    targets: dict[str, list[str]] = defaultdict(list)
    for mine, theirs in tensors.items():
        targets[theirs].append(mine)
    places: tuple[dict[Place, list[np.ndarray]], ...] = (defaultdict(list), defaultdict(list))
    for theirs, names in targets.items():
        there = source.tensors[theirs]
        for axis, role in enumerate(there.roles):
            if not role:
                continue
            parts = [(0, there), *((1, target.tensors[name]) for name in names)]
            if all(axis < len(axes.roles) and axes.roles[axis] == role for _, axes in parts):
                grouped = len({axes.groups for _, axes in parts}) == 1
                split = grouped and len({len(axes.bounds[axis]) for _, axes in parts}) == 1
                for side, axes in parts:
                    for part, channels in _parts(axes, axis, split, grouped):
                        places[side][theirs, axis, part].append(channels)
    return _spaces(places[1], target), _spaces(places[0], source)


def _parts(axes: Axes, axis: int, split: bool, grouped: bool) -> list[tuple[int, np.ndarray]]:
    """Segments of an axis whose channels are not interchangeable: between the bounds of a mutable width, or by group."""
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
        Gives the coupling of two spaces; asked once per pair, in the order of execution.
    """

    def __init__(self, target: Channels, source: Channels, tensors: dict[str, str], couple: Couple) -> None:
        self.target, self.source = target, source
        self.spaces, self.source_spaces = pair_spaces(target, source, tensors)
        self.couple = couple
        self.found: dict[tuple[int, int], Tensor] = {}
        self._axes: dict[tuple[bytes, bytes], Tensor | None] = {}
        self._same = {space.places: space.index for space in self.source_spaces.spaces if space.places}

    def partner(self, space: int, candidates: np.ndarray) -> int:
        """The source's space, of those in an axis, that a target's corresponds to: equal places, or the largest overlap."""
        places = self.spaces.spaces[space].places
        same = self._same.get(places)
        if same is not None and same in candidates:
            return same

        def overlap(index: int) -> float:
            other = self.source_spaces.spaces[index].places
            return len(places & other) / max(len(places | other), 1)

        return max((int(index) for index in candidates), key=overlap)

    def pairs(self) -> list[tuple[ChannelSpace, ChannelSpace]]:
        """Every target's space with the source's space of equal places, where there is one."""
        found = [(space, self._same.get(space.places)) for space in self.spaces.spaces if space.places]
        return [(space, self.source_spaces.spaces[other]) for space, other in found if other is not None]

    def of(self, space: int, other: int) -> Tensor:
        """Coupling of a target's space and a source's, shape ``(n_source, n_target)``."""
        if (space, other) not in self.found:
            self.found[space, other] = self.couple(self.source_spaces.spaces[other], self.spaces.spaces[space])
        return self.found[space, other]

    def axis(self, mine: np.ndarray, theirs: np.ndarray) -> Tensor | None:
        """Coupling of two axes given by their channels, shape ``(len(theirs), len(mine))``; None for the identity.

        A space that occurs several times in an axis (concatenated, flattened) is coupled occurrence by occurrence.
        """
        key = (mine.tobytes(), theirs.tobytes())
        if key not in self._axes:
            self._axes[key] = self._axis(mine, theirs)
        return self._axes[key]

    def _axis(self, mine: np.ndarray, theirs: np.ndarray) -> Tensor | None:
        coupling = torch.zeros(len(theirs), len(mine), dtype=torch.float64)
        here, there = self.spaces.of[mine], self.source_spaces.of[theirs]
        candidates = np.unique(there)
        for space in np.unique(here):
            other = self.partner(int(space), candidates)
            block = self.of(int(space), other)
            place(
                coupling,
                block,
                occurrences(theirs, there == other, self.source_spaces.rank),
                occurrences(mine, here == space, self.spaces.rank),
            )
        if coupling.shape[0] == coupling.shape[1] and torch.equal(coupling, torch.eye(len(mine), dtype=coupling.dtype)):
            return None
        return coupling


@dataclass(frozen=True)
class Occurrences:
    """Where the channels of a space are in an axis.

    Attributes
    ----------
    positions, ranks
        Places in the axis, and the ranks of the channels there.
    turn
        How many places before each one hold the same channel.
    """

    positions: Tensor
    ranks: Tensor
    turn: Tensor

    @cached_property
    def turns(self) -> int:
        return int(self.turn.max()) + 1

    @cached_property
    def side(self) -> int:
        """Side of the square images that were flattened channel by channel, 0 if the axis is none of such."""
        side = math.isqrt(self.turns)
        adjacent = len(self.ranks) == self.turns * len(self.ranks[:: self.turns]) and bool(
            (self.ranks == self.ranks[:: self.turns].repeat_interleave(self.turns)).all()
        )
        return side if side**2 == self.turns and adjacent else 0

    @cached_property
    def is_whole(self) -> bool:
        """Whether the axis is the space, channel by channel."""
        return torch.equal(self.positions, self.ranks) and torch.equal(self.ranks, torch.arange(len(self.ranks)))


def occurrences(channels: np.ndarray, here: np.ndarray, rank: np.ndarray) -> Occurrences:
    """Find a space in an axis.

    Parameters
    ----------
    channels
        Channels of the axis.
    here
        Which of them are of the space.
    rank
        Rank of every channel of the network in its space.
    """
    positions = np.flatnonzero(here)
    held = channels[positions]
    order = np.argsort(held, kind='stable')
    counts = np.unique(held, return_counts=True)[1]
    turn = np.empty(len(held), int)
    turn[order] = np.arange(len(held)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Occurrences(*map(torch.from_numpy, (positions, rank[held], turn)))


def place(coupling: Tensor, block: Tensor, theirs: Occurrences, mine: Occurrences) -> None:
    """Write the coupling of two spaces into that of two axes: first occurrences with first ones, and so on, those in
    flattened images row by row and column by column."""
    if theirs.is_whole and mine.is_whole and block.shape == coupling.shape:
        coupling.copy_(block)
        return
    if theirs.side and mine.side:
        row, column = (each * theirs.side // mine.side for each in (mine.turn // mine.side, mine.turn % mine.side))
        turn = row * theirs.side + column
    else:
        turn = mine.turn * theirs.turns // mine.turns
    same = theirs.turn[:, None] == turn
    coupling[theirs.positions[:, None], mine.positions] = torch.where(same, block[theirs.ranks][:, mine.ranks], 0.0)
