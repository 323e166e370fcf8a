"""How fast one search is against another: the yardstick of the demo and of every benchmark."""

from __future__ import annotations

from collections.abc import Sequence


def final_accuracy(curve: Sequence[float]) -> float:
    """Mean of the last three epochs (of all, if there are fewer): what a search ends with."""
    last = curve[-3:]
    return sum(last) / len(last)


def epochs_to(curve: Sequence[float], target: float) -> int | None:
    """First epoch (counted from 1) that reaches ``target`` and holds it; None if none does.

    An epoch holds it if the mean of itself and the next two (as many as there are) is at least ``target`` as well. A run
    always holds its own :func:`final_accuracy`.

    >>> epochs_to([0.5, 0.9, 0.6, 0.9, 0.9], 0.9)
    4
    """
    slack = 1e-9  # the mean of three equal numbers may round below them
    for epoch, value in enumerate(curve):
        if value >= target - slack and final_accuracy(curve[epoch : epoch + 3]) >= target - slack:
            return epoch + 1
    return None
