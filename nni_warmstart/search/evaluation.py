"""Evaluation of a search with averaged weights, and with batch-norm statistics re-estimated on training data."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from ..nni_adapter import batchnorm
from ..nni_adapter.oneshot import has_nnis
from ..nni_adapter.paths import best_path
from ..utils.metrics import accuracy_on
from ..utils.modules import modes_kept
from ..utils.random import quiet_randomness, random_state, set_random_state
from ..warm_start.heads.ridge import blend_ridge_head
from .averaging import WeightAverage, why_not_averaged
from .loaders import Loaders
from .model_inputs import reader_of
from .random_state import generators_of
from .run_length import progress
from .settings import SearchSettings

_logger = logging.getLogger(__name__)

MOST_SAMPLES = 2048
"""Largest number of training samples on which batch-norm statistics and classifier are estimated."""


class Evaluation(Callback):
    """Validates averaged weights with re-estimated batch norm and a fitted classifier, and restores everything.

    With few steps per epoch the running statistics of batch norm lag behind the weights, so they are re-estimated on
    training data before each validation; averaged weights need statistics of their own in any case.

    Parameters
    ----------
    settings
        Settings of the search.
    loaders
        Loaders of training samples.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.averaged'

    def __init__(self, settings: SearchSettings, loaders: Loaders) -> None:
        self.settings, self.loaders = settings, loaders
        self.averaged: WeightAverage | None = None
        self._earlier: Sequence[Tensor] | None = None  # averages in the checkpoint to resume from
        self._open = ExitStack()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.close()
        self.averaged = self._earlier = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.close()
        pl_module.withdraw_callbacks()  # there is no teardown after an exception

    # -- averaged weights --------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not self.settings.average:
            return
        why_not = why_not_averaged(trainer, pl_module.training_module, pl_module.model)
        if why_not:
            _logger.warning('The weights are not averaged: %s.', why_not)
        else:
            self._start_averaging(pl_module)

    def _start_averaging(self, pl_module: Any) -> None:
        steps = self.settings.average * pl_module.trainer.num_training_batches
        self.averaged = WeightAverage(pl_module.training_module, steps)
        if self._earlier is not None:
            self.averaged.load(self._earlier)

    def update(self) -> None:
        """Take the weights after one more step."""
        if self.averaged is not None:
            self.averaged.update()

    def state_dict(self) -> dict[str, Any]:
        return {'averaged': None if self.averaged is None else self.averaged.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = state_dict.get('averaged')

    # -- validation --------------------------------------------------------------------------------------------------

    def open(self, pl_module: Any) -> None:
        """Exchange weights, statistics and classifier for a validation, until :meth:`close`."""
        share = self._head_share(pl_module.trainer, pl_module.current_epoch + 1)
        calibrate = not pl_module.trainer.sanity_checking
        self._open.enter_context(self.evaluating(pl_module, calibrate=calibrate, head=share))

    def close(self) -> None:
        """Put everything back."""
        self._open.close()

    @contextmanager
    def evaluating(
        self, pl_module: Any, paths: Callable[[nn.Module], Any] = best_path, *, calibrate: bool, head: float = 0.0
    ) -> Iterator[None]:
        """Evaluate averaged weights on some paths, and restore everything at the end.

        Parameters
        ----------
        pl_module
            One-shot module.
        paths
            Context in which the paths are selected.
        calibrate
            Whether to re-estimate batch norm and to fit the classifier.
        head
            Share of the fitted classifier.
        """
        average = nullcontext() if self.averaged is None else self.averaged.applied()
        with average, paths(pl_module.model), batchnorm.kept(pl_module.model):
            if calibrate:
                self._calibrate(pl_module, head if self.averaged is not None else 0.0)
            yield

    def _head_share(self, trainer: Any, epochs: int) -> float:
        """Return the share of the fitted classifier after a number of epochs.

        It is a half in the beginning, when the trained classifier lags behind its features, and falls to nothing in the end,
        when the features overfit the training images. If each step trains one path, the trained classifier always lags.
        """
        over = 0.0 if self.settings.one_path else progress(trainer, epochs)
        return (1 - over) / 2 if self.settings.refit_head else 0.0

    def _calibrate(self, pl_module: Any, head: float) -> None:
        if not has_nnis(pl_module.training_module, 'validation_step'):
            return  # only the evaluator knows how to call the model
        model = pl_module.model
        if batchnorm.batch_norms(model):
            batchnorm.reestimate(model, (inputs for inputs, _ in self._samples(pl_module)))
        if head:
            blend_ridge_head(model, self._samples(pl_module), pl_module.device, head)

    def _samples(self, pl_module: Any) -> Iterator[tuple[Any, Tensor]]:
        seen, read = 0, reader_of(pl_module.training_module)
        for inputs, targets in self.loaders.make('train'):
            inputs = on_device(pl_module, inputs)
            yield inputs if read is None else read(inputs), targets
            seen += len(targets)
            if seen >= MOST_SAMPLES:
                return

    # -- the end -----------------------------------------------------------------------------------------------------

    def keep_averaged(self, pl_module: Any) -> None:
        """Replace the weights by their averages for good."""
        if self.averaged is None and self._earlier is not None:  # resumed after the last epoch: nothing was trained
            self._start_averaging(pl_module)
        if self.averaged is not None:
            self.averaged.apply()

    def fit_averaged(self, pl_module: Any) -> None:
        """Give averaged weights batch-norm statistics and a classifier of their own for good."""
        if self.averaged is None:
            return
        with quiet_randomness(), best_path(pl_module.model):
            torch.manual_seed(0)  # a run resumed after its last epoch gives the same result
            self._calibrate(pl_module, self._head_share(pl_module.trainer, pl_module.current_epoch))

    def test_accuracy(self, pl_module: Any) -> float | None:
        """Return the accuracy on the test images of the data module, which are used for nothing else; None without any."""
        trainer = pl_module.trainer
        data = getattr(trainer, 'datamodule', None)
        if data is None or not is_overridden('test_dataloader', data, LightningDataModule):
            return None
        training_module = pl_module.training_module
        if not has_nnis(training_module, 'validation_step') or 'acc' not in getattr(training_module, 'metrics', {}):
            return None  # only the evaluator knows how to call the model, and what its outputs mean
        data.setup('test')
        loader = data.test_dataloader()
        if not isinstance(loader, DataLoader):
            return None
        generators = generators_of(trainer)
        state, share = random_state(generators), self._head_share(trainer, pl_module.current_epoch)
        with self.evaluating(pl_module, calibrate=True, head=share):
            batches = (data.on_after_batch_transfer((on_device(pl_module, x), y), 0) for x, y in loader)
            accuracy = _accuracy(training_module, batches, pl_module.device)
        set_random_state(state, generators)
        return accuracy


def _accuracy(training_module: Any, batches: Iterable[Any], device: torch.device) -> float:
    """Return the accuracy by the metric of the evaluator, of which that of several classes is computed exactly."""
    metric = training_module.metrics['acc']
    with modes_kept(training_module), torch.no_grad():
        if isinstance(metric, MulticlassAccuracy):
            return accuracy_on(training_module, batches, device)
        training_module.eval()
        metric = copy.deepcopy(metric).to(device)
        metric.reset()
        for x, y in batches:
            metric.update(training_module(x), y.to(device))
        return float(metric.compute())


def on_device(pl_module: Any, batch: Any) -> Any:
    """Convert a batch as the trainer does: to the device and the precision of the model."""
    batch = pl_module.trainer.precision_plugin.convert_input(batch)
    return pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
