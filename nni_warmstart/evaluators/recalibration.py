"""Batch-norm statistics of a network with inherited weights, re-estimated before every validation."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback

from ..data.splits import Images
from ..nni_adapter import batchnorm

MOST_IMAGES = 2048
"""Largest number of training images on which statistics are estimated."""


class Recalibration(Callback):
    """Re-estimates the statistics of batch norm on training images before every validation, and keeps them.

    Inherited statistics are those of a supernet, which mixes all candidates. In training they only fade with the number of
    steps, so that a network with good weights classifies badly for some epochs.

    Parameters
    ----------
    images
        Training images; some are drawn at random, always the same.
    batch_size
        Images per batch, as in training.
    """

    def __init__(self, images: Images, batch_size: int) -> None:
        self.images = images
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        self.batches = order[:MOST_IMAGES].split(batch_size)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        batchnorm.reestimate(pl_module.model, (self.images[batch][0].to(pl_module.device) for batch in self.batches))
