"""The knapsack against all combinations."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from nni_warmstart.utils.knapsack import choose

OPTION = st.tuples(st.integers(-20, 0).map(float), st.integers(0, 10).map(float))
GROUPS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.integers(1, 40))
def test_the_best_combination_is_found(groups, aim):
    low, high = 0.8 * aim, 1.2 * aim
    found = choose(groups, low, high, aim)
    ways = [(sum(s for s, _ in way), sum(c for _, c in way)) for way in itertools.product(*groups)]
    score, cost = (sum(group[i][k] for group, i in zip(groups, found, strict=True)) for k in (0, 1))
    inside = [s for s, c in ways if low <= c <= high]
    below = [c for _, c in ways if c <= high]
    if inside:
        assert low <= cost <= high and score == max(inside)
    elif below:
        assert cost == max(below)
    else:
        assert cost == min(c for _, c in ways)


def test_nothing_is_left_to_spend():
    assert choose([[(0.0, 5.0), (-1.0, 2.0)], [(0.0, 1.0)]], -3.0, -1.0, -2.0) == [1, 0]
