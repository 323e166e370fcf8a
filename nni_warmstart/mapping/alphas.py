"""Mapping of alphas from one choice to another: logits follow their ops, and numbers share the logits of their like."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def by_candidate(alpha: Tensor, candidates: list[str], target: list[str], partners: dict[str, str]) -> Tensor:
    """Map logits by candidate: each takes its partner's, one without a partner takes the mean of those that have one.

    Parameters
    ----------
    alpha, candidates
        Logits of the source's choice, shape ``(n_source,)``, and their candidates.
    target
        Candidates of the target's choice.
    partners
        Target candidate -> source candidate.
    """
    logits = [alpha[candidates.index(partners[name])] if partners.get(name) in candidates else None for name in target]
    known = [logit for logit in logits if logit is not None]
    mean = torch.stack(known).mean() if known else alpha.mean()
    return torch.stack([mean if logit is None else logit for logit in logits])


def by_value(alpha: Tensor, candidates: list[str], target: list[str]) -> Tensor:
    """Map logits of numbers (widths, kernel sizes, depths), of which a larger one contains the smaller ones.

    A number takes the place of the largest number of the source that is not above it, else of the smallest; numbers with the
    same place share its probability. A choice of kernels or depths that only gains numbers thus keeps its function: a larger
    kernel starts with zeros around it, a deeper stage with identities behind it.

    Parameters
    ----------
    alpha, candidates
        Logits of the source's choice, shape ``(n_source,)``, and its numbers as text.
    target
        Numbers of the target's choice as text.
    """
    values, order = [float(value) for value in candidates], _ascending(candidates)
    stands: list[int] = []
    for value in map(float, target):
        below = [index for index in order if values[index] <= value]
        stands.append(below[-1] if below else order[0])
    return torch.stack([alpha[index] - math.log(stands.count(index)) for index in stands])


def by_rank(alpha: Tensor, candidates: list[str], target: list[str]) -> Tensor:
    """Map logits to an equal number of other widths by rank, so that wider ones keep their function.

    Parameters as in :func:`by_value`.
    """
    logits = torch.empty_like(alpha)
    logits[_ascending(target)] = alpha[_ascending(candidates)]
    return logits


def _ascending(numbers: list[str]) -> list[int]:
    return sorted(range(len(numbers)), key=lambda index: float(numbers[index]))


def is_number(candidates: list[str]) -> bool:
    """Check whether all candidates are numbers."""
    try:
        return all(math.isfinite(float(value)) for value in candidates)
    except ValueError:
        return False
