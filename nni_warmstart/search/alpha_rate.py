"""The rate at which alphas learn after a warm start, so that a short search, too, can leave the source's architecture.

Adam moves an alpha by at most its rate a step. DARTS's own search (Liu et al., ICLR 2019: 3e-4 for 50 epochs of some 390
steps) lets alphas travel 6 from where they began, all equal; the few hundred steps of a warm search would let them travel
0.1 from where the source's lie, 0.1 to 1 apart.
"""

from __future__ import annotations

import logging
from typing import Any

from pytorch_lightning import Callback

from .run_length import planned_batches

_logger = logging.getLogger(__name__)

NNIS = 3e-4
"""Rate in NNI's strategies."""

TRAVEL = 6.0
"""Rate times steps of DARTS's own search."""

LARGEST = 0.03
"""Largest rate after a warm start."""


def alpha_rate(steps: float) -> float:
    """Rate by which alphas travel in ``steps`` steps as far as in DARTS's own search; :data:`NNIS` to :data:`LARGEST`."""
    return min(max(TRAVEL / max(steps, 1), NNIS), LARGEST)


class AlphaRate(Callback):
    """Sets the rate of the alphas by the number of steps of the run; of one that time limits, anew in every epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        rate = alpha_rate(planned_batches(trainer, pl_module.warmup_epochs))
        for group in pl_module.architecture_optimizers().param_groups:
            if group['lr'] != rate:
                group['lr'] = rate
                _logger.info('The alphas learn at a rate of %.2g.', rate)
