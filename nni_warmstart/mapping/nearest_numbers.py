"""Candidates of choices among numbers that make layers of given widths and kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

TOO_SMALL = 4.0
"""Cost of an octave below the wanted number; one above, which can compute the same, costs 1."""


class Numbers(Protocol):
    """Number that depends on choices, by their candidates."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def numbers(self) -> Mapping[tuple[str, ...], int]: ...


def nearest_candidates(wanted: Iterable[tuple[Numbers, int]]) -> dict[str, str]:
    """Choose a candidate for each label, such that numbers come nearest to wanted ones, from above where possible.

    Labels on which a number depends alone are decided first. Then each is decided again, given all others, as long as
    something improves.

    Parameters
    ----------
    wanted
        Numbers, and what each of them should be.

    Returns
    -------
    dict
        Label -> candidate; ties go to the first candidate.
    """
    wanted = [(searched, number) for searched, number in wanted if searched.labels]
    candidates: dict[str, list[str]] = {}
    for searched, _ in wanted:
        for position, label in enumerate(searched.labels):
            candidates.setdefault(label, list(dict.fromkeys(names[position] for names in searched.numbers)))
    order = sorted(candidates, key=lambda label: min(len(s.labels) for s, _ in wanted if label in s.labels))
    chosen: dict[str, str] = {}

    def cost(label: str, name: str) -> float:
        trial, total = {**chosen, label: name}, 0.0
        for searched, number in wanted:
            if label in searched.labels and all(each in trial for each in searched.labels):
                total += _distance(searched.numbers[tuple(trial[each] for each in searched.labels)], number)
        return total

    for _ in range(1 + len(order)):
        before = dict(chosen)
        for label in order:
            chosen[label] = min(candidates[label], key=lambda name, label=label: cost(label, name))
        if chosen == before:
            break
    return chosen


def _distance(number: int, wanted: int) -> float:
    octaves = math.log2(number / wanted)
    return octaves if octaves >= 0 else -TOO_SMALL * octaves
