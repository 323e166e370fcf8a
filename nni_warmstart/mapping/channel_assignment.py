"""Assignment of channels by the layers that read them, where networks cut or shuffle their channels between layers.

After a channel shuffle the layers of a network read different parts of what one layer made: some channels are read by the
next block, others pass it and are read later. In a space of another width these parts are of other proportions, and in one
of another depth there are more or fewer of them, so that parts cannot be coupled with parts. But a channel can take the
place of every other that the same layer makes. So each channel of the target is made of one channel of the network, by an
optimal assignment: the readers of a target channel should be at the places of the readers of the network's channel. Where
all of them are, the network computes the same; where a reader would miss channels, these are the ones from which it reads
least.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..tracing.axes import IN, OUT, Axes, Channels, count_pieces
from ..tracing.relations import components
from .network_layers import Layer

_SHARED, _IN_VAIN = 1e-6, 1e-9  # gain of a reader on both sides that has the channel already, loss of one that needs it not


@dataclass(frozen=True)
class Assignment:
    """Assignment of channels.

    Attributes
    ----------
    target, source
        Label of each channel; channels of one label are one channel, and those of -1 are not assigned.
    lacking
        Layers of the network that read channels which do not reach their places.
    """

    target: np.ndarray
    source: np.ndarray
    lacking: frozenset[str]


def passed_on(channels: Channels, layers: Iterable[Layer]) -> np.ndarray:
    """Return the channel that each channel is, if some layers hand on what they read.

    Parameters
    ----------
    channels
        Channels of a network.
    layers
        Layers in the order of execution whose output channel ``i`` is their input channel ``i % n``, of ``n``.
    """
    origin = np.arange(_count(channels))
    for layer in layers:
        made, read = (np.frombuffer(each, dtype=int) for each in (layer.made, layer.read))
        if layer.kind == 'full':
            new = origin[made] == made
            origin[made[new]] = np.resize(origin[read], len(made))[new]
    return origin


def assign_channels(
    target: Channels,
    source: Channels,
    pairs: Mapping[str, str],
    state: Mapping[str, Tensor],
    passed: tuple[np.ndarray, np.ndarray],
) -> Assignment:
    """Assign the channels that either network cuts, and those that occur together with them.

    Channels whose operators demand more (see :mod:`nni_warmstart.mapping.following`) are left: those that are cut but read
    by the same layers, as where channels are summed, those that are normalised in groups, tied to others, read by grouped
    convolutions, or flattened, and those of images.

    Parameters
    ----------
    target, source
        Channels of the two networks.
    pairs
        Target tensor -> source tensor.
    state
        Tensors of the source.
    passed
        Channel that each channel of the target and of the source is, as :func:`passed_on` returns it.
    """
    labels, theirs = (np.full(len(each), -1) for each in passed)
    if not any(piece is not None for each in (target, source) for axes in each.tensors.values() for piece in axes.pieces):
        return Assignment(labels, theirs, frozenset())
    made, read = _places(target, pairs, passed[0])
    _, read_by = _places(source, {name: name for name in pairs.values()}, passed[1])
    makers: dict[str, set[int]] = {
        name: set(passed[1][channels].tolist()) for name in pairs.values()
        for role, channels in _roles(source.tensors[name]) if role == OUT
    }  # fmt: skip
    groups: dict[frozenset[str], list[int]] = defaultdict(list)
    for channel, names in made.items():
        if passed[0][channel] == channel:
            groups[frozenset(names)].append(channel)
    partners = {names: sorted(set.intersection(*(makers[pairs[name]] for name in names))) for names in groups}
    placed = np.zeros(len(labels), bool)
    placed[[channel for names, channels in groups.items() if partners[names] for channel in channels]] = True
    chosen = _cut(target, source, pairs, passed, placed[passed[0]])
    # Channels of the same makers may take each other's places; all of them occur together.
    lacking: set[str] = set()
    for names, channels in groups.items():
        if not chosen[channels].any():
            continue
        others = partners[names]
        layers = sorted(set().union(*(read_by[each] for each in others)))
        energy = _energy(others, layers, source, state, passed[1])
        reads = np.array([[layer in read[channel] for layer in layers] for channel in channels])
        index, missing = matched(energy, reads)
        labels[channels] = np.array(others)[index]
        theirs[others] = others
        lacking |= {layers[i].rpartition('.')[0] for i in np.flatnonzero(missing)}
    return Assignment(labels[passed[0]], theirs[passed[1]], frozenset(lacking))


def without_pieces(channels: Channels, assigned: np.ndarray) -> Channels:
    """Return channels in which the pieces of assigned axes are forgotten."""

    def forgotten(axes: Axes) -> Axes:
        kept = [channels is not None and (assigned[channels] < 0).any() for channels in axes.channels]
        pieces = tuple(piece if keep else None for piece, keep in zip(axes.pieces, kept, strict=False))
        return replace(axes, pieces=pieces)

    return replace(channels, tensors={name: forgotten(axes) for name, axes in channels.tensors.items()})


def _count(channels: Channels) -> int:
    held = [each for axes in channels.tensors.values() for each in axes.channels if each is not None]
    return 1 + max((int(each.max()) for each in held), default=-1)


def _roles(axes: Axes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the channels that a layer makes and reads; norms and depthwise convolutions make of each channel itself."""
    if IN in axes.roles:
        for role, channels in zip(axes.roles, axes.channels, strict=True):
            if channels is not None:
                yield role, channels.ravel()


def _places(
    network: Channels, pairs: Mapping[str, str], passed: np.ndarray
) -> tuple[dict[int, set[str]], dict[int, set[str]]]:
    """Return the weights that make each channel, and the partners of those that read it or what it is passed on as."""
    made: dict[int, set[str]] = defaultdict(set)
    read: dict[int, set[str]] = defaultdict(set)
    for name, origin in pairs.items():
        for role, channels in _roles(network.tensors[name]):
            for channel in channels.tolist() if role == OUT else ():
                made[channel].add(name)
            for channel in passed[channels].tolist() if role == IN else ():
                read[channel].add(origin)
    return made, read


def _cut(
    target: Channels,
    source: Channels,
    pairs: Mapping[str, str],
    passed: tuple[np.ndarray, np.ndarray],
    placed: np.ndarray,
) -> np.ndarray:
    """Return whether each channel of the target occurs together with cut ones, which are placed and demand no more."""
    cut = np.zeros(len(passed[0]), bool)
    left, left_there = _cut_otherwise(target, len(passed[0])), _cut_otherwise(source, len(passed[1]))
    links = [(np.arange(len(passed[0])), passed[0])]
    for name, origin in pairs.items():
        both = target.tensors[name], source.tensors[origin]
        for axis, held in enumerate(zip(*(each.channels for each in both), strict=False)):
            if held[0] is None or held[1] is None:
                continue
            own, theirs = (each.ravel() for each in held)
            links.append((own, np.full(len(own), own[0])))
            cut[own] |= any(count_pieces(each, axis) > 1 for each in both)
            labels = [kind[axis] for each in both for kind in (each.strands, each.norms) if len(kind) > axis]
            repeats = len(np.unique(own)) < len(own) or len(np.unique(theirs)) < len(theirs)
            image = np.isin(theirs, source.inputs).any()
            grouped = held[0].ndim == 2 or held[1].ndim == 2
            related = any(label is not None for label in labels)
            left[own] |= ~placed[own] | bool(repeats or image or grouped or related or left_there[theirs].any())
    own, others = (np.concatenate(each) for each in zip(*links, strict=True))
    part = components(len(cut), (own, others))
    return np.isin(part, part[cut]) & ~np.isin(part, part[left])


def _cut_otherwise(network: Channels, count: int) -> np.ndarray:
    """Return whether each channel occurs where channels are in several pieces, but in the same tensors."""
    held: list[set[str]] = [set() for _ in range(count)]
    for name, axes in network.tensors.items():
        for channels in axes.channels:
            for channel in () if channels is None else channels.ravel().tolist():
                held[channel].add(name)
    numbers: dict[frozenset[str], int] = {}
    kind = np.array([numbers.setdefault(frozenset(names), len(numbers)) for names in held], int)
    found = np.zeros(count, bool)
    for axes in network.tensors.values():
        for channels, piece in zip(axes.channels, axes.pieces, strict=False):
            if channels is not None and piece is not None:
                both = np.unique(np.stack([kind[channels].ravel(), piece.ravel()]), axis=1)[0]
                found[channels] |= len(np.unique(both)) < len(both)
    return found


def _energy(
    others: list[int], layers: list[str], source: Channels, state: Mapping[str, Tensor], passed: np.ndarray
) -> np.ndarray:
    """Return how much of what each layer reads comes from each channel, shape ``(channels, layers)``."""
    row = np.full(len(passed), -1)
    row[others] = np.arange(len(others))
    found, strength = np.zeros((len(others), len(layers))), np.ones(len(others))
    for column, name in enumerate(layers):
        axes = source.tensors[name]
        at = axes.roles.index(IN)
        channels = axes.channels[at]
        assert channels is not None
        rows = row[passed[channels]]
        energy = state[name].double().movedim(at, 0).flatten(1).square().sum(1).numpy()
        np.add.at(found[:, column], rows[rows >= 0], energy[rows >= 0])
    for name, axes in source.tensors.items():
        path = name.rpartition('.')[0]
        if name.endswith('.weight') and f'{path}.running_mean' in state and axes.channels[0] is not None:
            rows = row[axes.channels[0]]
            scale = (state[name].double().square() + state[f'{path}.bias'].double().square()).numpy()
            strength[rows[rows >= 0]] *= scale[rows >= 0]
    found = np.maximum(found * strength[:, None], 1e-12 * (found > 0))
    return found / np.maximum(found.sum(0), 1e-300)


def matched(energy: np.ndarray, reads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the source channel of each target channel, and how much each layer lacks.

    Parameters
    ----------
    energy
        Share of each source channel in what each layer reads, shape ``(n_source, layers)``.
    reads
        Whether each layer reads each target channel, shape ``(n_target, layers)``.
    """
    missing, index = energy.copy(), np.full(len(reads), -1)
    while (left := np.flatnonzero(index < 0)).size:  # every source channel has one copy before any has two
        own = reads[left].T.astype(float)
        gain = missing @ own + _SHARED * (energy > 0) @ own - _IN_VAIN * (energy == 0) @ own
        rows, columns = linear_sum_assignment(gain, maximize=True)
        index[left[columns]] = rows
        missing[rows] *= ~reads[left[columns]]
    return index, missing.sum(0)
