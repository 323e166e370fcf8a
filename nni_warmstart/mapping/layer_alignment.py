"""Alignment of a network without choices with a model space: its layers, in their order, with the places of the space.

Names tell nothing here. A place of the space is a choice among candidates, a block that may be repeated, a cell, or a single
layer. Its candidates are compared with every run of as many layers of the network; the alignment of least cost keeps the
order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from ..tracing.structure import Structure
from .correspondence import Correspondence, why_opaque
from .layer_costs import LEFT_OPEN, LEFT_OUT, RESIDUAL, cost_of, cost_without, fits
from .network_layers import Layer, in_a_choice, layers_of, residual_runs
from .places import Candidate, Idle, Place
from .space_layers import places_of


class Chosen(NamedTuple):
    """Place with the candidate that is nearest to the network's layers there, and these layers."""

    place: Place
    candidate: Candidate
    run: list[Layer]


@dataclass(frozen=True)
class Alignment:
    """Alignment of a network with a model space.

    Attributes
    ----------
    rounds
        Target tensor -> source tensor, the path that is the network first, then every other candidate; within one round each
        source tensor has one partner.
    chosen
        Places with a partner in the network.
    path
        Label of a choice -> candidate that is nearest to the network's layers.
    depths
        Path of a repeated stage -> number of its blocks that the network has.
    added
        Blocks without a partner, which may start as the identity.
    dropped
        Layers of the network without a partner.
    idle
        Cells, blocks and choices without a partner, which return (nearly) their input.
    open
        Other layers of the target without a partner, of those that are not in a choice.
    sharing
        Labels of ``path`` whose candidates are parts of the same weights: widths and kernels of one layer.
    """

    rounds: list[dict[str, str]]
    chosen: list[Chosen]
    path: dict[str, str]
    depths: dict[str, int]
    added: list[str]
    dropped: list[str] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    open: list[Layer] = field(default_factory=list)
    sharing: frozenset[str] = frozenset()

    @property
    def correspondence(self) -> Correspondence:
        """The same for all that needs no order of the candidates."""
        tensors = {name: origin for pairs in reversed(self.rounds) for name, origin in pairs.items()}
        return Correspondence(tensors=tensors, added=list(self.added))

    @property
    def pairs(self) -> list[tuple[Layer, Layer]]:
        """Layers of the path that is the network, with their partners."""
        return [pair for each in self.chosen for pair in zip(each.candidate.layers, each.run, strict=True)]


def align(
    target: Structure,
    source: Structure,
    extents: Mapping[str, int] | None = None,
    shortcuts: Mapping[str, str] | None = None,
) -> Alignment:
    """Align a network without choices with a model space.

    Parameters
    ----------
    target, source
        Structures of the space and of the network.
    extents
        Path of a convolution of the network -> size of the smallest centred kernel that contains its taps, where known.
    shortcuts
        Path of a layer or norm of the network -> activation that made what is added to its output.
    """
    extents, shortcuts = extents or {}, shortcuts or {}
    layers = [
        replace(
            layer,
            kernels=(extents.get(layer.path, layer.kernels[-1]),),
            shortcut=shortcuts.get(layer.norm or layer.path, ''),
        )
        for layer in layers_of(source)
    ]
    places = places_of(target)
    steps = _least_cost(places, layers)
    # Choices that several places share are decided by most of them, and the others follow.
    held = Counter(label for place in places for label in {label for each in place.candidates for label in each.selects})
    shared = [label for label, count in held.items() if count > 1]
    if shared:
        votes = Counter(step.candidate.selected(shared) for step in steps if step.candidate is not None)
        for decided, _ in votes.most_common():
            for place in places:
                agreeing = [each for each in place.candidates if each.agrees(dict(decided))]
                place.candidates = agreeing or place.candidates
        steps = _least_cost(places, layers)
    return _alignment(steps, places_of(target), layers, target, source)


class _Step(NamedTuple):
    cost: float
    kind: str
    place: int
    begin: int
    end: int
    candidate: Candidate | None = None


def _least_cost(places: list[Place], layers: list[Layer]) -> list[_Step]:
    """Return the steps of the alignment of least cost, in their order."""
    residual = residual_runs(layers)
    inside = Counter(k for i, j in residual.items() for k in range(i + 1, j))  # blocks that end after a layer begins

    @cache
    def best(i: int, k: int) -> _Step:
        """Return the first step of the best alignment of the layers from i on and the places from k on, with its cost."""
        if k == len(places):
            return _Step(LEFT_OUT * (len(layers) - i), 'end', k, i, i)
        steps = [_Step(cost_without(places[k]) + best(i, k + 1).cost, 'skip', k, i, i)]
        if i < len(layers):
            steps.append(_Step(LEFT_OUT + best(i + 1, k).cost, 'drop', k, i, i + 1))
        if i in residual and layers[residual[i] - 1].side is None:
            steps.append(_Step(LEFT_OPEN + best(residual[i], k).cost, 'drop', k, i, residual[i]))
        for candidate in places[k].candidates:
            j = i + len(candidate.layers)
            cost = cost_of(candidate, layers[i:j]) if j <= len(layers) else math.inf
            if cost < math.inf:
                cost += RESIDUAL * inside[j] * (j > i)
                steps.append(_Step(cost + best(j, k + 1).cost, 'pair', k, i, j, candidate))
        return min(steps, key=lambda step: step.cost)

    # Read the best alignment from the table of costs, which is filled from the end to stay within the recursion limit.
    for k in range(len(places), -1, -1):
        for i in range(len(layers), -1, -1):
            best(i, k)
    found = [best(0, 0)]
    while found[-1].kind != 'end':
        step = found[-1]
        found.append(best(step.end, step.place + (step.kind != 'drop')))
    return found


def _alignment(
    steps: list[_Step], places: list[Place], layers: list[Layer], target: Structure, source: Structure
) -> Alignment:
    rounds: list[dict[str, str]] = [{}]
    known: set[str] = set()
    found = Alignment(rounds, [], {}, {}, [])
    for step in steps:
        place, run = places[min(step.place, len(places) - 1)], layers[step.begin : step.end]
        if step.candidate is not None:
            number = 0
            for each in (step.candidate, *(each for each in place.candidates if fits(each.layers, run))):
                pairs = _tensor_pairs(target, source, each.layers, run)
                if pairs.keys() - known:
                    if number == len(rounds):
                        rounds.append({})
                    rounds[number].update(pairs)
                    known.update(pairs)
                    number += 1
            found.chosen.append(Chosen(place, step.candidate, run))
            found.path.update(step.candidate.selects)
            if place.repeat:
                found.depths[place.repeat] = place.index + 1
        elif step.kind == 'skip' and place.idle is not None:
            found.idle.append(place.idle)
        elif step.kind == 'skip' and place.block:
            found.added.append(place.block)
            found.idle.append(Idle([layer for each in place.candidates for layer in each.layers], [], place.block))
        elif step.kind == 'skip' and len(place.candidates) > 1 and not any(each.residual for each in place.candidates):
            found.idle.append(Idle([layer for each in place.candidates for layer in each.layers], []))
        elif step.kind == 'skip' and len(place.candidates) == 1:
            found.open.extend(place.candidates[0].layers)
        elif step.kind == 'drop' or (step.kind == 'end' and step.begin < len(layers)):
            found.dropped.extend(layer.path for layer in (run or layers[step.begin :]))
    fixed = {name: origin for name, origin in rounds[0].items() if not in_a_choice(target, name)}
    rounds[1:] = [{**fixed, **each} for each in rounds[1:]]
    return found


def _tensor_pairs(target: Structure, source: Structure, candidate: list[Layer], run: list[Layer]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for own, other in zip(candidate, run, strict=True):
        partners = [(own.path, other.path), (own.norm, other.norm), *zip(own.gate, other.gate, strict=False)]
        if own.side is not None and other.side is not None:
            partners += [(own.side.path, other.side.path), (own.side.norm, other.side.norm)]
        for path, partner in partners:
            if path and partner:
                locals_ = set(source.locals.get(partner, ()))
                pairs |= {f'{path}.{each}': f'{partner}.{each}' for each in target.locals[path] if each in locals_}
    return {name: origin for name, origin in pairs.items() if not (why_opaque(target, name) or why_opaque(source, origin))}
