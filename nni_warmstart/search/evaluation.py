"""How a search evaluates its supernet: averaged weights, re-estimated batch norm, a fitted classifier, all put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from ..nni_adapter import batchnorm
from ..nni_adapter.oneshot import DartsLightningModule, SupervisedLearningModule
from ..nni_adapter.paths import best_path
from ..utils.metrics import accuracy_on
from ..utils.random import quiet_randomness, random_state, set_random_state
from ..warm_start.heads.ridge import blend_ridge_head
from .averaging import WeightAverage

if TYPE_CHECKING:
    _Base = DartsLightningModule
else:
    _Base = object


class Evaluation(_Base):
    """The part of a search module that says with which weights and statistics the supernet is validated, tested and kept."""

    calibration: Callable[[], Iterable[Any]] | None = None
    """Gives training batches for batch-norm statistics and classifier; None leaves these as training left them."""

    max_calibration_samples = 2048

    average = 0.0
    """Epochs over which the weights that are validated, tested and kept are averaged; 0 for the last ones. These are taken,
    too, where batch-norm statistics cannot be estimated for averaged ones, with a validation step of the user's own, and
    where an epoch has no known length."""

    refit_head = False
    """Whether the averaged weights have a classifier that is fitted to their features."""

    one_path = False
    """Whether every step trains a single path, as in Proxyless, so that the trained classifier stays behind its features."""

    _averaged: WeightAverage | None = None
    _earlier: list[Tensor] | None = None
    """Averaged weights, and those of a checkpoint from which the search goes on."""

    @contextmanager
    def _evaluating(self, paths: Callable[..., Any] = best_path, *, calibrate: bool, head: float = 0.0) -> Iterator[None]:
        """Evaluate averaged weights on some paths, if asked with re-estimated batch norm and a share of a classifier that is
        fitted to them; put everything back."""
        average = nullcontext() if self._averaged is None else self._averaged.applied()
        with average, paths(self.model), batchnorm.kept(self.model):
            if calibrate:
                self._calibrate(head if self._averaged is not None else 0.0)
            yield

    def _head_share(self, epochs: int) -> float:
        """Of the fitted classifier after so many epochs: a half in the beginning, when the trained one is behind its
        features, and nothing in the end, when these know the training pictures by heart.
        With one path the trained one is always behind."""
        most = self.trainer.max_epochs or -1
        progress = min(1.0, epochs / most) if most > 0 and not self.one_path else 0.0
        return (1 - progress) / 2 if self.refit_head else 0.0

    def _calibrate(self, head: float) -> None:
        if self.calibration is None or not self._knows_inputs():
            return
        if batchnorm.batch_norms(self.model):
            batchnorm.reestimate(self.model, (inputs for inputs, _ in self._calibration_batches()))
        if head:
            blend_ridge_head(self.model, self._calibration_batches(), self.device, head)

    def _calibration_batches(self) -> Iterator[tuple[Any, Tensor]]:
        assert self.calibration is not None
        seen = 0
        for batch in self.calibration():
            inputs, targets = batch
            yield self._on_device(inputs), targets
            seen += len(targets)
            if seen >= self.max_calibration_samples:
                return

    def _fit_averaged(self) -> None:
        """Batch-norm statistics and classifier of the averaged weights, for good."""
        with quiet_randomness(), best_path(self.model):
            torch.manual_seed(0)  # a run that goes on after its last epoch comes to the same
            self._calibrate(self._head_share(self.current_epoch))

    def _why_not_averaged(self) -> str:
        """Why averages of the weights cannot be used; '' where they can."""
        if not math.isfinite(self.trainer.num_training_batches):
            return 'the training data have no length, so an epoch is of unknown length'
        by_batch = getattr(self.training_module, 'normalises_by_batch', False)
        if self._knows_inputs() or by_batch or not batchnorm.batch_norms(self.model):
            return ''
        return 'the evaluator has a validation_step of its own, so their batch-norm statistics cannot be estimated'

    def _start_averaging(self) -> None:
        self._averaged = WeightAverage(self.training_module, self.average * self.trainer.num_training_batches)
        if self._earlier is not None:
            self._averaged.load(self._earlier)

    def _test_accuracy(self) -> float | None:
        """Accuracy on the data module's test pictures, which nothing else has seen; None where there are none."""
        data = getattr(self.trainer, 'datamodule', None)
        if data is None or not is_overridden('test_dataloader', data, LightningDataModule):
            return None
        if not self._knows_inputs() or 'acc' not in getattr(self.training_module, 'metrics', {}):
            return None  # only the evaluator knows how to feed the model, and what its outputs mean
        data.setup('test')
        loader = data.test_dataloader()
        if not isinstance(loader, DataLoader):
            return None
        state = random_state(self._generators())
        with self._evaluating(calibrate=True, head=self._head_share(self.current_epoch)):
            accuracy = accuracy_on(self.model, ((self._on_device(x), y) for x, y in loader), self.device)
        set_random_state(state, self._generators())
        return accuracy

    def _on_device(self, batch: Any) -> Any:
        """A batch as the trainer gives it to the model: in its place and precision."""
        batch = self.trainer.precision_plugin.convert_input(batch)
        return self.transfer_batch_to_device(batch, self.device, 0)

    def _knows_inputs(self) -> bool:
        """Whether the model takes inputs as the loader has them, as NNI's own step gives them to it."""
        return self._is_nnis('validation_step')

    def _is_nnis(self, method: str) -> bool:
        """Whether the evaluator has this method from NNI's supervised learning: no override of the user's."""
        mine = getattr(type(self.training_module), method, None)
        return mine is not None and mine is getattr(SupervisedLearningModule, method)

    def _generators(self) -> list[torch.Generator]:
        """Generators of the user's own in the data loaders."""
        loaders: list[Any] = []
        for combined in (self.trainer.train_dataloader, self.trainer.val_dataloaders):
            tree_map_only(DataLoader, loaders.append, combined)
        found = [getattr(part, 'generator', None) for x in loaders for part in (x, x.sampler, x.batch_sampler)]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
