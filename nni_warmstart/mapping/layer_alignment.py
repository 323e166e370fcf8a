"""Alignment of a network without choices with a model space: its layers, in their order, with the places of the space.

Names tell nothing here. A place of the space is a choice among candidates, a block that may be repeated, or a single layer.
Its candidates are compared with every run of as many layers of the network; the alignment of least cost keeps the order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from ..tracing.axes import IN, OUT
from ..tracing.structure import Structure, ancestors
from .correspondence import Correspondence

STRIDE, RESIDUAL, KERNEL = 2.0, 1.0, 0.3
"""Costs of another stride, of a residual connection on one side only, and of an octave of the kernel's size; an octave of a
layer's width costs 1."""

LEFT_OUT, LEFT_OPEN = 4.0, 0.5
"""Costs of a layer without a partner, and of a block that may be the identity."""


@dataclass(frozen=True)
class Layer:
    """Layer of a network: a convolution or linear layer, and the batch norm after it ('' for none)."""

    path: str
    kind: str
    width: int
    kernel: int
    stride: int
    made: bytes
    read: bytes
    norm: str = ''


@dataclass
class Place:
    """Place of a model space: layers by candidate.

    Attributes
    ----------
    candidates
        Name of a candidate -> its layers; '' for a place without a choice.
    label
        Label of the choice; '' for none.
    block, repeat, index
        Path of the block in a repeated stage, path of that stage, and the block's number in it; '' and 0 elsewhere.
    """

    candidates: dict[str, list[Layer]] = field(default_factory=dict)
    label: str = ''
    block: str = ''
    repeat: str = ''
    index: int = 0


@dataclass(frozen=True)
class Alignment:
    """Alignment of a network with a model space.

    Attributes
    ----------
    rounds
        Target tensor -> source tensor, the path that is the network first, then every other candidate; within one round each
        source tensor has one partner.
    path
        Label of a choice -> candidate that is nearest to the network's layers.
    depths
        Path of a repeated stage -> number of its blocks that the network has.
    added
        Blocks without a partner, which may start as the identity.
    """

    rounds: list[dict[str, str]]
    path: dict[str, str]
    depths: dict[str, int]
    added: list[str]

    @property
    def correspondence(self) -> Correspondence:
        """The same for all that needs no order of the candidates."""
        tensors = {name: origin for pairs in self.rounds for name, origin in pairs.items()}
        return Correspondence(tensors=tensors, added=list(self.added))


def align(target: Structure, source: Structure, extents: Mapping[str, int] | None = None) -> Alignment:
    """Align a network without choices with a model space.

    Parameters
    ----------
    target, source
        Structures of the space and of the network.
    extents
        Path of a convolution of the network -> size of the smallest centred kernel that contains its taps, where known.
    """
    layers = [replace(layer, kernel=(extents or {}).get(layer.path, layer.kernel)) for layer in layers_of(source)]
    places = places_of(target)
    residual = _residual_runs(layers)

    @cache
    def best(i: int, k: int) -> tuple[float, str, int]:
        """Return the least cost of the layers from i on and the places from k on, the first step, and the next layer."""
        if k == len(places):
            return LEFT_OUT * (len(layers) - i), 'end', i
        steps = [(_absence(places[k]) + best(i, k + 1)[0], 'skip', i)]
        if i < len(layers):
            steps.append((LEFT_OUT + best(i + 1, k)[0], 'drop', i + 1))
        steps += [(LEFT_OPEN + best(j, k)[0], 'drop', j) for j in residual.get(i, ())]
        for count in {len(each) for each in places[k].candidates.values()}:
            cost = _nearest(places[k], layers[i : i + count])[0]
            if cost < math.inf:
                steps.append((cost + best(i + count, k + 1)[0], 'pair', i + count))
        return min(steps, key=lambda step: step[0])

    # Read the best alignment from the table of costs, which is filled from the end to stay within the recursion limit.
    for k in range(len(places), -1, -1):
        for i in range(len(layers), -1, -1):
            best(i, k)
    rounds: list[dict[str, str]] = [{}]
    path: dict[str, str] = {}
    depths: dict[str, int] = {}
    added: list[str] = []
    i = k = 0
    while k < len(places):
        _, step, j = best(i, k)
        place = places[k]
        if step == 'pair':
            run = layers[i:j]
            _, chosen = _nearest(place, run)
            others = [name for name, each in place.candidates.items() if name != chosen and _fits(each, run)]
            for number, name in enumerate([chosen, *others]):
                if number == len(rounds):
                    rounds.append({})
                rounds[number].update(_tensor_pairs(target, source, place.candidates[name], run))
            if place.label:
                path[place.label] = chosen
            if place.repeat:
                depths[place.repeat] = place.index + 1
        elif step == 'skip' and place.block:
            added.append(place.block)
        i, k = j, k + (step != 'drop')
    fixed = {name: origin for name, origin in rounds[0].items() if not _in_a_choice(target, name)}
    return Alignment([rounds[0], *({**fixed, **each} for each in rounds[1:])], path, depths, added)


def layers_of(structure: Structure) -> Iterator[Layer]:
    """Yield the layers of a network in the order of execution, without those of squeeze-and-excite gates."""
    tensors, found = structure.channels.tensors, []
    for name, axes in tensors.items():
        path, _, local = name.rpartition('.')
        made = axes.channels[axes.roles.index(OUT)] if OUT in axes.roles else None
        if made is None:
            continue
        if len(axes.shape) > 1 and local == 'weight':
            read = axes.channels[axes.roles.index(IN)] if IN in axes.roles else None
            spatial = len(axes.shape) > 2
            kind = ('depthwise' if axes.groups == axes.shape[0] else f'{axes.groups} groups') if axes.groups > 1 else 'full'
            ops = structure.channels.ops.get(path, [])
            found.append(Layer(
                path, kind if spatial else 'linear', axes.shape[0], axes.shape[-1] if spatial else 1,
                ops[0].stride if ops else 1, made.tobytes(), made.tobytes() if read is None else read.tobytes(),
            ))  # fmt: skip
        elif local == 'running_mean' and found and found[-1].made == made.tobytes() and not found[-1].norm:
            found[-1] = replace(found[-1], norm=path)
    gates = {
        path
        for first, second in itertools.pairwise(found)
        if not first.norm and not second.norm and first.read == second.made and first.made == second.read
        for path in (first.path, second.path)
    }
    yield from (layer for layer in found if layer.path not in gates)


def places_of(structure: Structure) -> list[Place]:
    """Return the places of a model space in the order of execution."""
    found: list[Place] = []
    known: dict[str, Place] = {}
    for layer in layers_of(structure):
        parents = ancestors(layer.path)
        sites = [path for path in parents if path in structure.sites]
        repeats = [path for path in parents if structure.kinds.get(path) == 'Repeat']
        block = '' if not repeats else next(path for path in parents if _number_in(path, repeats[-1]) is not None)
        key = block or (sites[-1] if sites else layer.path)
        if key not in known:
            index = (_number_in(block, repeats[-1]) or 0) if block else 0
            known[key] = Place(block=block, repeat=repeats[-1] if repeats else '', index=index)
            found.append(known[key])
        place, name = known[key], ''
        if sites:
            place.label, names = structure.sites[sites[-1]]
            inside = layer.path[len(sites[-1]) + 1 :].partition('.')[0]
            name = next(candidate for candidate, child in names.items() if child == inside)
        place.candidates.setdefault(name, []).append(layer)
    return found


def _number_in(path: str, repeat: str) -> int | None:
    """Return the number of a block directly in a repeated stage (or in its list of blocks); None for other paths."""
    if not path.startswith(f'{repeat}.') or path == repeat:
        return None
    rest = path[len(repeat) + 1 :].removeprefix('blocks.')
    return int(rest) if rest.isdigit() else None


def _in_a_choice(structure: Structure, name: str) -> bool:
    return any(path in structure.sites for path in ancestors(name.rpartition('.')[0]))


def _absence(place: Place) -> float:
    """Return the cost of a place without a partner: little for a block that may be left out, the last one first."""
    if place.repeat and place.index:
        return LEFT_OPEN - 0.01 * min(place.index, 10)
    return LEFT_OUT * min(len(each) for each in place.candidates.values())


def _fits(candidate: list[Layer], run: list[Layer]) -> bool:
    return len(candidate) == len(run) and all(a.kind == b.kind for a, b in zip(candidate, run, strict=True))


def _cost(candidate: list[Layer], run: list[Layer]) -> float:
    if not run or not _fits(candidate, run):
        return math.inf
    cost = RESIDUAL * (_is_residual(candidate) != _is_residual(run))
    for own, other in zip(candidate, run, strict=True):
        cost += STRIDE * (own.stride != other.stride) + KERNEL * abs(math.log2(own.kernel / other.kernel))
        cost += abs(math.log2(own.width / other.width)) if own.kind != 'linear' else 0.0
    return cost


def _nearest(place: Place, run: list[Layer]) -> tuple[float, str]:
    return min((_cost(candidate, run), name) for name, candidate in place.candidates.items())


def _is_residual(run: list[Layer]) -> bool:
    return len(run) > 1 and run[0].read == run[-1].made and any(layer.kind != 'depthwise' for layer in run)


def _residual_runs(layers: list[Layer]) -> dict[int, list[int]]:
    """Return the ends of the shortest residual block that begins at each layer, by its number."""
    found: dict[int, list[int]] = {}
    for i in range(len(layers)):
        ends = [j for j in range(i + 2, min(i + 6, len(layers)) + 1) if _is_residual(layers[i:j])]
        if ends:
            found[i] = ends[:1]
    return found


def _tensor_pairs(target: Structure, source: Structure, candidate: list[Layer], run: list[Layer]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for own, other in zip(candidate, run, strict=True):
        for path, partner in ((own.path, other.path), (own.norm, other.norm)):
            if path and partner:
                locals_ = set(source.locals.get(partner, ()))
                pairs |= {f'{path}.{each}': f'{partner}.{each}' for each in target.locals[path] if each in locals_}
    return pairs
