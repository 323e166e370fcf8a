"""Averaged weights: a search is evaluated by the mean of its last steps, without the noise of the last one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..nni_adapter import batchnorm
from ..nni_adapter.choices import arch_parameters
from ..nni_adapter.oneshot import has_nnis


def why_not_averaged(trainer: Any, training_module: Any, model: nn.Module) -> str:
    """Return the reason why averages of the weights of a search cannot be used; '' if they can.

    Parameters
    ----------
    trainer, training_module, model
        Lightning's trainer, module of the evaluator, and supernet.
    """
    if not math.isfinite(trainer.num_training_batches):
        return 'the training data have no length, so an epoch is of unknown length'
    by_batch = getattr(training_module, 'normalises_by_batch', False)
    if has_nnis(training_module, 'validation_step') or by_batch or not batchnorm.batch_norms(model):
        return ''
    return 'the evaluator has a validation_step of its own, so their batch-norm statistics cannot be estimated'


class WeightAverage:
    r"""Exponential moving average of the weights of a supernet, without the alphas.

    It starts from the initial weights, and after every step :math:`\bar w \leftarrow \bar w + (w - \bar w) / n` (Polyak &
    Juditsky, *SIAM J. Control and Optimization* 30, 1992; Izmailov et al., *Averaging Weights Leads to Wider Optima and
    Better Generalization*, UAI 2018). Batch-norm statistics of averaged weights must be re-estimated. Averages have at least
    single precision: small steps would be lost in half precision.

    Parameters
    ----------
    module
        Supernet, or a module that contains it and more weights.
    steps
        Time constant n, in steps.
    """

    def __init__(self, module: nn.Module, steps: float) -> None:
        alphas = {id(alpha) for alpha in arch_parameters(module)}
        self.weights = [parameter for parameter in module.parameters() if id(parameter) not in alphas]
        self.values = [weight.detach().to(_wide(weight), copy=True) for weight in self.weights]
        self.share = 1 / max(1.0, steps)

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after one more step."""
        for value, weight in zip(self.values, self.weights, strict=True):
            value.lerp_(weight.to(value.dtype), self.share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the weights by their averages within the context."""
        kept = self.trained()
        self.apply()
        try:
            yield
        finally:
            self._write(kept)

    def trained(self) -> list[Tensor]:
        """Return a copy of the weights themselves."""
        return [weight.detach().clone() for weight in self.weights]

    def exchanged(self, trained: Sequence[Tensor]) -> bool:
        """Check whether somebody has put others in the place of the weights that :meth:`trained` returned."""
        return not all(map(_equal, self.weights, trained))

    def apply(self) -> None:
        """Replace the weights by their averages for good."""
        self._write(self.values)

    def load(self, values: Sequence[Tensor]) -> None:
        """Continue from averages of a checkpoint."""
        self.values = [value.to(weight.device, _wide(weight)) for value, weight in zip(values, self.weights, strict=True)]

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.copy_(value)


def _equal(weight: Tensor, other: Tensor) -> bool:
    return torch.equal(weight, other) or torch.equal(weight.nan_to_num(), other.nan_to_num())  # of a search that diverged


def _wide(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)
