"""Metrics: accuracy of a model, and speed of one search compared with another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import to_device


def accuracy_on(
    model: nn.Module,
    batches: Iterable[Any],
    device: torch.device | str,
    heads: Mapping[str, tuple[int, int]] | None = None,
) -> float:
    """Return the accuracy of ``model`` on ``batches`` in evaluation mode; ``heads`` as in :func:`nni_warmstart.transfer`."""
    was_training = model.training
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in batches:
            logits = model(to_device(x, device)).cpu()
            if heads is not None:
                logits = among_own(logits, y, heads)
            right += int((logits.argmax(1) == y).sum())
            total += len(y)
    model.train(was_training)
    return right / max(total, 1)


def among_own(logits: Tensor, y: Tensor, heads: Mapping[str, tuple[int, int]]) -> Tensor:
    """Set the logits of all classes of other datasets than that of ``y`` to minus infinity, shape ``(n, rows)``."""
    owner = torch.full((logits.shape[1],), -1, device=logits.device)
    for number, (start, stop) in enumerate(heads.values()):
        owner[start:stop] = number
    return logits.masked_fill(owner[y.to(owner.device)][:, None] != owner, float('-inf'))


def final_accuracy(curve: Sequence[float]) -> float:
    """Return the final accuracy of a search: the mean of the last three epochs (of all, if there are fewer)."""
    last = curve[-3:]
    return sum(last) / len(last)


def epochs_to(curve: Sequence[float], target: float) -> int | None:
    """Return the first epoch (counted from 1) that reaches ``target`` and holds it; None if none does.

    An epoch holds it if the mean of itself and the next two (as many as there are) is at least ``target`` as well. A run
    always holds its own :func:`final_accuracy`.

    >>> epochs_to([0.5, 0.9, 0.6, 0.9, 0.9], 0.9)
    4
    """
    slack = 1e-9  # rounding may leave the mean of three equal numbers below them
    for epoch, value in enumerate(curve):
        if value >= target - slack and final_accuracy(curve[epoch : epoch + 3]) >= target - slack:
            return epoch + 1
    return None
