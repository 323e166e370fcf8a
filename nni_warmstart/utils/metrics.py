"""Metrics: accuracy of a model, and speed of one search compared with another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import to_device
from .modules import modes_kept

HELD = 3
"""Number of epochs whose mean is a final accuracy, and over which an accuracy has to be held."""

_SLACK = 1e-6
"""Accuracies are of 32 bits, in which 0.9 is a little less; rounding also leaves a mean of equal numbers below them."""


def accuracy_on(
    model: nn.Module,
    batches: Iterable[Any],
    device: torch.device | str,
    heads: Mapping[str, tuple[int, int]] | None = None,
) -> float:
    """Return the accuracy of ``model`` on ``batches`` in evaluation mode; ``heads`` as in :func:`nni_warmstart.transfer`."""
    right = total = 0
    with modes_kept(model), torch.no_grad():
        model.eval()
        for x, y in batches:
            logits = model(to_device(x, device)).cpu()
            if heads is not None:
                logits = among_own(logits, y, heads)
            right += int((logits.argmax(1) == y).sum())
            total += len(y)
    return right / max(total, 1)


def among_own(logits: Tensor, y: Tensor, heads: Mapping[str, tuple[int, int]]) -> Tensor:
    """Set the logits of all classes of other datasets than that of ``y`` to minus infinity, shape ``(n, rows)``."""
    owner = torch.full((logits.shape[1],), -1, device=logits.device)
    for number, (start, stop) in enumerate(heads.values()):
        owner[start:stop] = number
    return logits.masked_fill(owner[y.to(owner.device)][:, None] != owner, float('-inf'))


def final_accuracy(curve: Sequence[float]) -> float:
    """Return the final accuracy of a search: the mean of the last :data:`HELD` epochs (of all, if there are fewer)."""
    last = curve[-HELD:]
    return sum(last) / len(last)


def epochs_to(curve: Sequence[float], target: float) -> int | None:
    """Return the first epoch (counted from 1) that reaches ``target`` and holds it; None if none does.

    An epoch holds it if the mean of itself and the next two (as many as there are) is at least ``target`` as well. A run
    always holds its own :func:`final_accuracy`.

    >>> epochs_to([0.5, 0.9, 0.6, 0.9, 0.9], 0.9)
    4
    """
    for epoch, value in enumerate(curve):
        if value >= target - _SLACK and final_accuracy(curve[epoch : epoch + HELD]) >= target - _SLACK:
            return epoch + 1
    return None
