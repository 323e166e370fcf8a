"""One option of each group, so that their scores sum up highest and their costs to about an aim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STEPS = 4000
"""Steps into which the largest cost is divided; sums are exact to half a step for each group."""


def choose(groups: Sequence[Sequence[tuple[float, float]]], low: float, high: float, aim: float) -> list[int]:
    """Choose one option of each group (the multiple-choice knapsack problem, by dynamic programming over costs).

    Parameters
    ----------
    groups
        Score and cost, which is not negative, of every option of every group.
    low, high
        Range of the sum of the costs.
    aim
        Cost from ``low`` to ``high``, to which the nearest sum is taken if none is in the range; sums above it only if there
        are no others.

    Returns
    -------
    list of int
        Index of the option of each group.
    """
    cheapest = [min(range(len(group)), key=lambda i, group=group: (group[i][1], -group[i][0])) for group in groups]
    if high <= 0 or sum(group[i][1] for group, i in zip(groups, cheapest, strict=True)) > high:
        return cheapest
    unit = high / _STEPS
    best = np.full(_STEPS + 1, -np.inf)
    best[0] = 0.0
    taken: list[np.ndarray] = []
    steps = [[round(cost / unit) for _, cost in group] for group in groups]
    for group, costs in zip(groups, steps, strict=True):
        scores, option = np.full(_STEPS + 1, -np.inf), np.zeros(_STEPS + 1, dtype=int)
        for i, ((score, _), cost) in enumerate(zip(group, costs, strict=True)):
            if cost <= _STEPS:
                shifted = np.concatenate([np.full(cost, -np.inf), best[: _STEPS + 1 - cost] + score])
                better = shifted > scores
                scores[better], option[better] = shifted[better], i
        best = scores
        taken.append(option)
    reached = np.flatnonzero(best > -np.inf)
    if not len(reached):  # by rounding
        return cheapest
    inside = reached[(reached >= low / unit) & (reached <= high / unit)]
    at = int(inside[best[inside].argmax()]) if len(inside) else int(reached[abs(reached - aim / unit).argmin()])
    found = []
    for option, costs in zip(reversed(taken), reversed(steps), strict=True):
        found.append(int(option[at]))
        at -= costs[found[-1]]
    return found[::-1]
