"""Relations between units: which are one channel, which pieces axes are cut into, and which channels are tied to others.

A *channel* is a set of units that operators forced to coincide. Where one layer makes several units of a channel (a gate
and what it gates, a residual sum of shuffled channels), these are distinct *strands* of it, and operators tie one strand to
another. A mapping of such channels preserves what the network computes only if it keeps the ties.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .axes import Axes

MATCHED, SPREAD = 0, 1
"""Kinds of ties: one strand to one, and one strand to many, such as a gate of several channels."""

Pair = tuple[np.ndarray, np.ndarray]


@dataclass
class Relations:
    """Relations that operators have shown, in the order of execution; units are numbers, -1 for none.

    Attributes
    ----------
    ties
        Pairs of units of activations that an operator forces to coincide.
    reads
        Pairs of units of parameters and the units of activations that they read or scale.
    cuts
        Pieces that an operator cut an activation into, as units of each; the pieces may overlap.
    norms
        Groups of units whose mean is taken, or that are normalised together.
    """

    ties: list[Pair] = field(default_factory=list)
    reads: list[Pair] = field(default_factory=list)
    cuts: list[list[np.ndarray]] = field(default_factory=list)
    norms: list[list[np.ndarray]] = field(default_factory=list)
    order: list[tuple[bool, int]] = field(default_factory=list)  # whether a read, and its place in the list

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        self.order.append((False, len(self.ties)))
        self.ties.append((left, right))

    def read(self, parameter: np.ndarray, ids: np.ndarray) -> None:
        self.order.append((True, len(self.reads)))
        self.reads.append((parameter, ids))

    def partitions(self, strand: np.ndarray) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Return cuts and norms; where norms overlap they are cuts, too, since one cannot keep several sorts of groups."""
        groups = [np.unique(strand[group]) for each in self.norms for group in each]
        overlap = len(groups) > 1 and np.unique(np.concatenate(groups), return_counts=True)[1].max() > 1
        return self.cuts + self.norms if overlap else self.cuts, self.norms

    def joined(self) -> Pair:
        """Return all pairs of units that coincide."""
        pairs = [*self.ties, *self.reads, (np.zeros(0, int), np.zeros(0, int))]
        left, right = (np.concatenate(each) for each in zip(*pairs, strict=True))
        known = (left >= 0) & (right >= 0) & (left != right)
        return left[known], right[known]


def components(count: int, pairs: Pair) -> np.ndarray:
    """Return the number of the component of each of ``count`` units that ``pairs`` connect."""
    graph = coo_matrix((np.ones(len(pairs[0]), bool), pairs), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def signatures(strand: np.ndarray, cuts: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Return a number for each strand that tells in which pieces of which cuts it is; 0 for none.

    The numbers increase with the first, then with the last piece in the order of execution, so that they are in the same
    order in a network of another width, whichever places the pieces have there.

    Parameters
    ----------
    strand
        Strand of each unit.
    cuts
        Units of each piece, by cut.
    """
    count = int(strand.max(initial=-1)) + 2  # and one in no piece
    first, last, total = np.zeros((3, count), dtype=np.uint64)
    random = np.random.default_rng(0)
    for number, piece in enumerate((piece for pieces in cuts for piece in pieces), 1):
        inside = np.unique(strand[piece]) + 1
        first[inside] = np.where(first[inside], first[inside], number)
        last[inside] = number
        total[inside] ^= random.integers(1, 2**63, dtype=np.uint64)
    return np.unique(np.stack([first, last, total]), axis=1, return_inverse=True)[1].ravel()[1:]


def labelled(signature: np.ndarray, axis: np.ndarray, least: int = 2) -> np.ndarray | None:
    """Return the piece of each index of an axis, numbered in the order of signatures; None for an axis in none.

    An axis in one piece needs a signature, and ``least`` of 1.
    """
    values, label = np.unique(signature[axis.ravel()], return_inverse=True)
    return None if len(values) < least or not values.any() else label.reshape(axis.shape)


@dataclass(frozen=True)
class Strands:
    """Strands of channels of which some layer makes several units.

    Attributes
    ----------
    of
        Strand of every unit; that of a channel of one strand has the channel's number.
    split
        Whether each channel has several strands.
    ties
        Strand, strand tied to it, and kind of the tie, shape ``(3, n)``.
    """

    of: np.ndarray
    split: np.ndarray
    ties: np.ndarray


def strands(channel: np.ndarray, home: np.ndarray, relations: Relations) -> Strands:
    """Find the strands of all channels, and their ties.

    Units are merged into one strand where an operator ties each of some units to one other, and no layer makes two units
    of the result.

    Parameters
    ----------
    channel
        Channel of every unit.
    home
        Number of the axis or activation that every unit was made for.
    relations
        Relations of the units.
    """
    count = int(channel.max(initial=-1)) + 1
    reads = np.zeros(len(channel), bool)
    for parameter, _ in relations.reads:
        reads[parameter] = True
    made = np.flatnonzero(~reads)
    _, first, repeats = np.unique(np.stack([channel[made], home[made]]), axis=1, return_index=True, return_counts=True)
    split = np.zeros(count, bool)
    split[channel[made[first[repeats > 1]]]] = True
    if not split.any():
        return Strands(channel, split, np.zeros((3, 0), int))
    merging = _Merging(channel, home, split)
    pointed = np.full(len(channel), -1)
    for is_read, index in relations.order:
        left, right = (relations.reads if is_read else relations.ties)[index]
        if is_read:
            left, right, parameter = pointed[left], right, left
            new = left < 0
            pointed[parameter[new]] = right[new]
        merging.tie(left, right)
    own = np.where(pointed >= 0, pointed, np.arange(len(channel)))
    return merging.result(own)


def compact(tensors: dict[str, Axes], found: Strands) -> tuple[dict[str, Axes], np.ndarray]:
    """Number the strands that tensors hold right after the channels that they hold; return the tensors, and the ties."""
    held = [strand for axes in tensors.values() for strand in axes.strands if strand is not None]
    if not held:
        return tensors, np.zeros((3, 0), int)
    first = 1 + max(int(c.max()) for axes in tensors.values() for c in axes.channels if c is not None)
    split = np.unique(np.concatenate([strand.ravel() for strand in held]))
    split = split[split >= len(found.split)]
    number = np.full(max(int(split.max()), int(found.ties[:2].max(initial=0))) + 1, -1)
    number[: len(found.split)] = np.arange(len(found.split))
    number[split] = first + np.arange(len(split))
    renumbered = {
        name: replace(axes, strands=tuple(None if strand is None else number[strand] for strand in axes.strands))
        for name, axes in tensors.items()
    }
    left, right, kind = found.ties
    ties = np.stack([number[left], number[right], kind])
    return renumbered, ties[:, (ties[:2] >= 0).all(0)]


class _Merging:
    """Merges units of split channels into strands, one operator after the other."""

    def __init__(self, channel: np.ndarray, home: np.ndarray, split: np.ndarray) -> None:
        self.channel, self.split = channel, split
        self.parent: dict[int, int] = {}
        self.homes: dict[int, set[int]] = {}
        self.ties: list[tuple[int, int, int]] = []
        self.home = home

    def find(self, unit: int) -> int:
        path = []
        while (parent := self.parent.setdefault(unit, unit)) != unit:
            path.append(unit)
            unit = parent
        self.homes.setdefault(unit, {int(self.home[unit])})
        self.parent.update(dict.fromkeys(path, unit))
        return unit

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Tie units of one operator, pair by pair, or merge them where they can be one."""
        known = (left >= 0) & (right >= 0) & (left != right)
        left, right = left[known], right[known]
        known = self.split[self.channel[left]]
        pairs = {(self.find(a), self.find(b)) for a, b in zip(left[known].tolist(), right[known].tolist(), strict=True)}
        pairs = {(a, b) for a, b in pairs if a != b}
        of_left, of_right = (_grouped(pairs, side) for side in (0, 1))
        single = len(of_left) == len(of_right) == len(pairs)
        groups = of_right if len(of_left) == len(pairs) else of_left if len(of_right) == len(pairs) else None
        if groups is None or not self._merged(groups):
            kind = MATCHED if single else SPREAD
            self.ties.extend((a, b, kind) for a, b in pairs)

    def _merged(self, groups: dict[int, set[int]]) -> bool:
        """Merge each centre with the strands around it, unless some layer makes two units of one of the results."""
        merged = [{centre, *others} for centre, others in groups.items()]
        if len(set().union(*merged)) < sum(map(len, merged)):
            return False
        homes = [[self.homes[strand] for strand in group] for group in merged]
        if any(len(set().union(*each)) < sum(map(len, each)) for each in homes):
            return False
        for group, each in zip(merged, homes, strict=True):
            root = min(group)
            self.homes[root] = set().union(*each)
            self.parent.update(dict.fromkeys(group, root))
        return True

    def result(self, own: np.ndarray) -> Strands:
        of, number = self.channel.copy(), len(self.split)
        units = np.flatnonzero(self.split[self.channel])
        roots = [self.find(unit) for unit in own[units].tolist()]
        numbered = {root: number + rank for rank, root in enumerate(dict.fromkeys(roots))}
        of[units] = [numbered[root] for root in roots]
        ties = {(numbered.get(self.find(a), -1), numbered.get(self.find(b), -1), kind) for a, b, kind in self.ties}
        kept = sorted(tie for tie in ties if min(tie[:2]) >= 0 and tie[0] != tie[1])
        return Strands(of, self.split, np.array(kept, int).reshape(-1, 3).T)


def _grouped(pairs: set[tuple[int, int]], side: int) -> dict[int, set[int]]:
    groups: dict[int, set[int]] = defaultdict(set)
    for pair in pairs:
        groups[pair[side]].add(pair[1 - side])
    return groups
