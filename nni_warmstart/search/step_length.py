"""Largest gradients of the weights after a warm start, so that no step moves them far from what they inherited.

SGD moves the weights in the end by the rate times the gradient, divided by 1 - momentum. With a large rate and small batches
the first steps of a warm search are so long that they destroy what was inherited, and it may end below a cold one. So
gradients are clipped to the norm at which a step, at the largest rate of the schedule, moves the weights by :data:`LONGEST`
per image of its batch; as the rate falls, so do the steps. At ordinary rates and batches hardly any gradient is that large
(benchmarks/NOTES.md).
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback
from torch.optim import SGD

from .phases import accumulating

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


class StepLength(Callback):
    """Limits the steps of a search from its warm start on; one that began without a limit goes on without.

    Attributes
    ----------
    is_limited
        Whether the steps of this search are limited.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.step_length'

    def __init__(self) -> None:
        self.is_limited = False

    def state_dict(self) -> dict[str, Any]:
        return {'is_limited': True} if self.is_limited else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.is_limited = state_dict['is_limited']

    def limit(self, pl_module: Any, images: int) -> float | None:
        """Return the largest norm of the gradients of a step on a number of images; None for no limit."""
        if not self.is_limited or accumulating(pl_module):
            return None
        trainer = pl_module.trainer
        weights = [each for each in trainer.optimizers if not getattr(each, 'is_arch_optimizer', False)]
        return largest_gradient(weights[0], images * trainer.world_size) if weights else None
