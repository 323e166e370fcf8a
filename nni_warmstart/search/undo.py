"""Undo of a batch that ends in an exception, so that a checkpoint that is saved then can be resumed exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.utilities.model_helpers import is_overridden


def saves_on_exceptions(callback: Callback) -> bool:
    """Check whether a callback saves a checkpoint when a search ends in an exception."""
    if isinstance(callback, ModelCheckpoint) and type(callback).on_exception is ModelCheckpoint.on_exception:
        return callback.save_on_exception
    return isinstance(callback, Checkpoint) and is_overridden('on_exception', callback, Callback)


class Undo(Callback):
    """Takes back a batch in which an exception was raised, where a callback saves a checkpoint then.

    A training step changes alphas, weights and running statistics one after the other, and what is half done can neither be
    continued nor repeated. Therefore all of it is copied before each batch, if there is such a callback.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], Any]] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._undo = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if any(map(saves_on_exceptions, trainer.callbacks)):
            self._undo = [*map(_restorer, _parts(trainer, pl_module)), pl_module.record.losses_so_far()]

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._undo and any(pl_module.randomness.unfinished()):
            for undo in self._undo:
                undo()
        self._undo = []


def _parts(trainer: Any, pl_module: Any) -> list[Any]:
    """Return what a batch changes, apart from random numbers: objects with a ``state_dict``."""
    loop = trainer.fit_loop.epoch_loop
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    progress = [loop.batch_progress, loop.manual_optimization.optim_step_progress]
    return [pl_module, *trainer.optimizers, *schedulers, trainer.precision_plugin, *progress]


def _restorer(part: Any) -> Callable[[], Any]:
    state = copy.deepcopy(part.state_dict())
    return lambda: part.load_state_dict(state)
