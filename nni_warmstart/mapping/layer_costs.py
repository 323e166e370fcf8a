"""Costs of an alignment of a network's layers with the places of a model space."""

from __future__ import annotations

import math

from .complete_layers import NORM
from .network_layers import Layer, is_residual
from .places import Candidate, Place

STRIDE, RESIDUAL, KERNEL, NARROWER, WIDER, BESIDE = 2.0, 1.0, 0.3, 0.4, 0.2, 0.2
"""Costs of another stride, of a residual connection on one side only, of an octave of the kernel's size, of many octaves of
a width that are missing or to spare, and of a gate, a norm or another activation of the shortcut on one side only. One
octave of a width costs half of many: in a narrow space all layers have to stay cheaper than leaving them out."""

LEFT_OUT, LEFT_OPEN = 4.0, 0.5
"""Costs of a layer without a partner, and of a block that may be the identity."""


def cost_without(place: Place) -> float:
    """Return the cost of a place without a partner: little for a block that may be left out, the last one first."""
    if place.idle is not None or (place.repeat and place.index):
        return LEFT_OPEN - 0.01 * min(place.index, 10)
    if not all(each.layers for each in place.candidates):
        return math.inf  # a candidate that hands on its input is chosen instead
    return LEFT_OUT * min(len(each.layers) for each in place.candidates)


def fits(candidate: list[Layer], run: list[Layer]) -> bool:
    """Check whether the layers of a candidate are of the same kinds as those of a run."""
    return len(candidate) == len(run) and all(_alike(own, other) for own, other in zip(candidate, run, strict=True))


def _alike(own: Layer, other: Layer) -> bool:
    """Check whether a layer can do what the other does; a linear layer is a 1 x 1 convolution of pooled features."""
    kinds = {own.kind, other.kind}
    pooled = kinds == {'linear', 'full'} and own.kernels == other.kernels == (1,) and not own.norm and not other.norm
    return len(kinds) == 1 or pooled


def cost_of(candidate: Candidate, run: list[Layer]) -> float:
    """Return the cost of a candidate for a run of the network's layers; infinite where it cannot do what they do."""
    if not fits(candidate.layers, run):
        return math.inf
    if not run:
        return LEFT_OPEN
    cost = candidate.cost + RESIDUAL * (candidate.residual != is_residual(run))
    cost += BESIDE * (candidate.residual and candidate.shortcut not in (None, run[-1].shortcut))
    for own, other in zip(candidate.layers, run, strict=True):
        cost += STRIDE * (own.stride != other.stride) + BESIDE * (bool(own.gate) != bool(other.gate))
        cost += BESIDE * (bool(own.norm) != bool(other.norm and not other.norm.endswith(NORM)))
        cost += KERNEL * abs(math.log2(_nearest(own.kernels, other.kernels[-1]) / other.kernels[-1]))
        if 'full' in (own.kind, other.kind) or own.kind != 'linear':
            octaves = math.log2(_nearest(own.widths, other.width) / other.width)
            cost += (WIDER if octaves > 0 else NARROWER) * abs(octaves) / (1 + abs(octaves))
    return cost


def _nearest(numbers: tuple[int, ...], wanted: int) -> int:
    """Return the smallest number that is as large as wanted; the largest of all if there is none."""
    return next((number for number in numbers if number >= wanted), numbers[-1])
