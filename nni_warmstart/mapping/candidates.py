"""Correspondence of the candidates of two choices, by optimal transport on what they compute."""

from __future__ import annotations

import math

import numpy as np
import ot

from ..tracing.axes import Op

ALONE = 1.0
"""Cost of leaving a candidate without a partner; a pair from different families costs more."""


def family(ops: list[Op]) -> str:
    """Return 'skip', 'zero', 'avg_pool', 'max_pool', 'separable' (has a depthwise convolution), 'conv' or 'linear'."""
    kinds = {op.kind for op in ops}
    if not kinds:
        return 'skip'
    for kind, name in (('avg_pool',) * 2, ('max_pool',) * 2, ('depthwise', 'separable'), ('conv',) * 2, ('linear',) * 2):
        if kind in kinds:
            return name
    return 'zero'


def affinity_cost(left: list[Op], right: list[Op], same_name: bool) -> float:
    """Return the difference of two candidates: 0 for equal ones, above 2 for different families.

    Within a family it counts octaves of the receptive field, dilation, stride and the number of layers. An ordinary and a
    separable convolution are a better pair than none, and a worse one than any pair within a family.
    """
    if {family(left), family(right)} == {'conv', 'separable'}:
        return ALONE + min(0.3 * abs(math.log2(_extent(left) / _extent(right))), 0.9)
    if family(left) != family(right):
        return 2 * ALONE + 1
    if not left or not right:
        return 0.0 if same_name else 0.05
    octaves = abs(math.log2(_extent(left) / _extent(right)))
    dilation = abs(max(op.dilation for op in left) - max(op.dilation for op in right))
    stride = abs(max(op.stride for op in left) - max(op.stride for op in right))
    return 0.3 * octaves + 0.15 * dilation + 0.1 * stride + 0.1 * abs(len(left) - len(right)) + (0.0 if same_name else 0.05)


def _extent(ops: list[Op]) -> int:
    return max((op.kernel - 1) * op.dilation + 1 for op in ops)


def match_candidates(target: dict[str, list[Op]], source: dict[str, list[Op]]) -> dict[str, str]:
    """Match the candidates of a target's choice one-to-one with those of a source's at least total cost.

    Both sides have an extra place for candidates without a partner, at the cost :data:`ALONE`, so that any sizes fit.

    Parameters
    ----------
    target, source
        Name of a candidate -> operators that run in it.

    Returns
    -------
    dict
        Target candidate -> source candidate; candidates without a partner are missing. The result does not depend on the
        order of either side.
    """
    target_names, source_names = sorted(target), sorted(source)
    rows, columns = len(target_names), len(source_names)
    if not rows or not columns:
        return {}
    cost = np.full((rows + 1, columns + 1), ALONE)
    cost[-1, -1] = 0.0
    for i, name in enumerate(target_names):
        for j, other in enumerate(source_names):
            cost[i, j] = affinity_cost(target[name], source[other], name == other)
    target_mass = np.array([1.0] * rows + [columns]) / (rows + columns)
    source_mass = np.array([1.0] * columns + [rows]) / (rows + columns)
    found = ot.emd(target_mass, source_mass, cost)[:rows, :columns]
    return {target_names[i]: source_names[j] for i, j in zip(*np.nonzero(found > 0.5 / (rows + columns)), strict=True)}
