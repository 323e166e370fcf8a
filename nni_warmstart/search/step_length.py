"""Largest gradients of the weights after a warm start, so that no step moves them far from what they inherited.

SGD moves the weights in the end by the rate times the gradient, divided by 1 - momentum. With a large rate and small batches
the first steps of a warm search are so long that they destroy what was inherited, and it may end below a cold one. So
gradients are clipped to the norm at which a step, at the largest rate of the schedule, moves the weights by :data:`LONGEST`
per image of its batch; as the rate falls, so do the steps. At ordinary rates and batches hardly any gradient is that large
(benchmarks/NOTES.md).
"""

from __future__ import annotations

from typing import Any

from torch.optim import SGD

LONGEST = 1 / 16
"""Largest distance, as the Euclidean norm over all weights, by which one image may move them."""


def largest_gradient(optimizer: Any, images: int) -> float | None:
    """Return the norm to which the gradients of a step are clipped, a positive number.

    Parameters
    ----------
    optimizer
        Optimizer of the weights, with the rates that its scheduler has noted.
    images
        Number of images in the batch, on all devices.

    Returns
    -------
    float or None
        None for no limit: where the rate is zero or the momentum 1 or more, and for optimizers other than SGD, whose steps
        don't grow with the gradient.

    Examples
    --------
    >>> import torch
    >>> largest_gradient(torch.optim.SGD([torch.zeros(1)], lr=0.05), 64)
    80.0
    """
    if not isinstance(optimizer, SGD):
        return None
    groups = [group for group in optimizer.param_groups if group['momentum'] < 1]
    largest = max((_rate(group) / (1 - group['momentum']) for group in groups), default=0.0)
    return LONGEST * images / largest if largest > 0 else None


def _rate(group: dict[str, Any]) -> float:
    """Return the largest rate of a group: now, at the beginning, or at the top of a one-cycle schedule."""
    return max(float(group.get(name, 0.0)) for name in ('lr', 'initial_lr', 'max_lr'))
