"""Evaluation of a search with averaged weights, and with batch-norm statistics re-estimated on training data."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from ..errors import REFUSALS, DataError, TransferError, reason
from ..nni_adapter import batchnorm
from ..nni_adapter.oneshot import has_nnis
from ..nni_adapter.paths import best_path
from ..utils.inputs import size_of
from ..utils.metrics import accuracy_on
from ..utils.modules import modes_kept, state_kept
from ..utils.random import quiet_randomness
from ..warm_start.heads.ridge import blend_ridge_head
from .averaging import WeightAverage, why_not_averaged
from .held_out import HeldOutImages
from .loaders import Loaders, pairs
from .model_inputs import reader_of
from .run_length import progress
from .settings import SearchSettings

_logger = logging.getLogger(__name__)

MOST_SAMPLES = 2048
"""Largest number of training samples on which batch-norm statistics and classifier are estimated."""


class Evaluation(Callback):
    """Validates averaged weights with re-estimated batch norm and a fitted classifier, and restores everything.

    With few steps per epoch the running statistics of batch norm lag behind the weights, so they are re-estimated on
    training data before each validation; averaged weights need statistics of their own in any case.

    Callbacks and the evaluator may exchange weights, too (Lightning's ``EMAWeightAveraging``): those that they put in place
    are validated, with statistics of their own, and replace our averages from then on. This callback comes first of all, so
    that what is opened after the exchange by others is closed before they exchange again.

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
        self._calibrates = True
        self._trained: Sequence[Tensor] = ()  # weights before callbacks may exchange them
        self._open = ExitStack()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.close()
        self.averaged = self._earlier = None
        self._calibrates = True

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.close()

    # -- averaged weights --------------------------------------------------------------------------------------------

    def begin(self, pl_module: Any) -> None:
        """Begin with the average of the weights, after the last hook before training."""
        if self.settings.average:
            trainer = pl_module.trainer
            why_not = why_not_averaged(trainer, pl_module.training_module, pl_module.model) or self._why_not_read()
            if why_not:
                _logger.warning('The weights are not averaged: %s.', why_not)
            else:
                self._start_averaging(pl_module)
        self._earlier = None  # averages of weights that are trained further

    def _why_not_read(self) -> str:
        try:
            self.loaders.read('train')
        except TransferError as error:
            return str(error)
        return ''

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

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._trained = [] if self.averaged is None else self.averaged.trained()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.close()

    def open(self, pl_module: Any) -> None:
        """Exchange weights, statistics and classifier for a validation, until its end; called after all other hooks."""
        if self.averaged is not None and self.averaged.exchanged(self._trained):
            _logger.warning('The weights are not averaged: a callback or the evaluator validates weights of its own.')
            self.averaged = None
        self._trained = ()
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
        with ExitStack() as exchanged:
            if self.averaged is not None:
                exchanged.enter_context(self.averaged.applied())
            exchanged.enter_context(paths(pl_module.model))
            exchanged.enter_context(state_kept(pl_module.model))
            if calibrate and not self._calibrate(pl_module, head if self.averaged is not None else 0.0):
                exchanged.close()
                exchanged.enter_context(paths(pl_module.model))
            yield

    def _head_share(self, trainer: Any, epochs: int) -> float:
        """Return the share of the fitted classifier after a number of epochs.

        It is a half in the beginning, when the trained classifier lags behind its features, and falls to nothing in the end,
        when the features overfit the training images. If each step trains one path, the trained classifier always lags.
        """
        over = 0.0 if self.settings.one_path else progress(trainer, epochs)
        return (1 - over) / 2 if self.settings.refit_head else 0.0

    def _calibrate(self, pl_module: Any, head: float) -> bool:
        """Re-estimate batch norm and fit the classifier; return False if that fails, in which case weights are not averaged.

        Where only the evaluator knows how to call the model, nothing is changed.
        """
        if not self._calibrates or not has_nnis(pl_module.training_module, 'validation_step'):
            return True
        model = pl_module.model
        try:
            with pl_module.fast.applied():
                inputs = (inputs for inputs, _ in self._samples(pl_module))
                norms = pl_module.statistics.others(model)
                if norms and not batchnorm.reestimate(model, inputs, norms) and self.averaged is not None:
                    raise DataError('they have no batch of two samples or more.')
                if head:
                    blend_ridge_head(model, self._samples(pl_module), pl_module.device, head)
        except REFUSALS as error:
            _logger.warning(
                'Batch norm cannot be estimated on the training data, so the weights are evaluated as they are, and not '
                'averaged: %s', reason(error),
            )  # fmt: skip
            self._calibrates, self.averaged = False, None
            return False
        return True

    def _samples(self, pl_module: Any) -> Iterator[tuple[Any, Any]]:
        seen, read = 0, reader_of(pl_module.training_module)
        for inputs, targets in pairs(self.loaders.read('train')):
            inputs = on_device(pl_module, inputs)
            yield inputs if read is None else read(inputs), targets
            seen += max(1, size_of(inputs))
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

    def test_accuracy(self, pl_module: Any, held_out: HeldOutImages) -> float | None:
        """Return the accuracy on the test images, which are used for nothing else; None without any.

        Raises
        ------
        Exception
            Whatever the data module, its dataset or the evaluator raise.
        """
        training_module = pl_module.training_module
        if not has_nnis(training_module, 'validation_step') or 'acc' not in getattr(training_module, 'metrics', {}):
            return None  # only the evaluator knows how to call the model, and what its outputs mean
        loader = held_out.loader()
        if loader is None:
            return None
        after: Any = getattr(held_out.data, 'on_after_batch_transfer')  # noqa: B009 - it may normalise images
        final = self.averaged is not None  # with statistics and a classifier of their own
        as_saved = best_path(pl_module.model) if final else self.evaluating(pl_module, calibrate=True)
        with quiet_randomness(), as_saved:
            batches = (after((on_device(pl_module, x), y), 0) for x, y in pairs(loader))
            return _accuracy(training_module, batches, pl_module.device)


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
