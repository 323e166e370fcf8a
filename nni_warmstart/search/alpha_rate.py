"""Learning rate of the alphas after a warm start, so that even a short search can leave the source's architecture.

Adam moves an alpha by at most its learning rate per step. In DARTS's own search (Liu et al., ICLR 2019: 3e-4 for 50 epochs
of some 390 steps) alphas can move by 6 from their equal initial values; in the few hundred steps of a warm search they could
move by 0.1 only, while the source's alphas differ by 0.1 to 1. A pretrained network is another matter: its alphas prefer it
to candidates that nobody has trained, and a short search that leaves it loses what it had (benchmarks/NOTES.md).
"""

from __future__ import annotations

import logging
from typing import Any

from pytorch_lightning import Callback

from .run_length import planned_batches

_logger = logging.getLogger(__name__)

NNIS = 3e-4
"""Learning rate in NNI's strategies."""

TRAVEL = 6.0
"""Learning rate times number of steps of DARTS's own search."""

LARGEST = 0.03
"""Largest learning rate after a warm start."""


def alpha_rate(steps: float) -> float:
    """Return the rate at which alphas move by :data:`TRAVEL` in ``steps`` steps, from :data:`NNIS` to :data:`LARGEST`."""
    return min(max(TRAVEL / max(steps, 1), NNIS), LARGEST)


class AlphaRate(Callback):
    """Sets the learning rate of the alphas by the number of steps of the run; if time limits it, anew in every epoch.

    A search that started from a pretrained network keeps the rate that it has.
    """

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.inherited_rate.names:
            return
        rate = alpha_rate(planned_batches(trainer, pl_module.warmup_epochs))
        for group in pl_module.architecture_optimizers().param_groups:
            if group['lr'] != rate:
                group['lr'] = rate
                _logger.info('The alphas learn at a rate of %.2g.', rate)
