"""Stop of a training that has reached the accuracy that it was for."""

from __future__ import annotations

import logging
from typing import Any

import torch
from pytorch_lightning import Callback

from ..utils.metrics import HELD, epochs_to

_logger = logging.getLogger(__name__)


class StopAt(Callback):
    """Ends a training once a validation accuracy is reached and held.

    It is reached and held as in :func:`~nni_warmstart.utils.metrics.epochs_to`: by the first epoch that reaches it, if the
    mean of this epoch and the next two does so as well. The training ends after the second of these two.

    Parameters
    ----------
    accuracy
        Validation accuracy to reach, from 0 to 1.
    monitor
        Name under which the evaluator logs it.

    Attributes
    ----------
    accuracies
        Validation accuracy of every epoch.
    """

    def __init__(self, accuracy: float, monitor: str = 'val_acc') -> None:
        self.accuracy, self.monitor = accuracy, monitor
        self.accuracies: list[float] = []

    @property
    def state_key(self) -> str:
        return f'nni_warmstart.stop_at.{self.monitor}'

    @property
    def reached(self) -> int | None:
        """First epoch (counted from 1) that reached the accuracy, which was then held; None if there is none yet."""
        epoch = epochs_to(self.accuracies, self.accuracy)
        return epoch if epoch is not None and len(self.accuracies) >= epoch + HELD - 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the accuracy, and the epoch that reached it, for the results."""
        return {'accuracy': self.accuracy, 'epoch': self.reached}

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        measured = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or measured is None:
            return
        measured = torch.as_tensor(measured).to(trainer.strategy.root_device)
        self.accuracies.append(float(trainer.strategy.reduce(measured, reduce_op='mean')))  # devices validate parts
        if self.reached is not None:
            _logger.info('Stopped after epoch %d: %g is reached and held.', len(self.accuracies), self.accuracy)
            trainer.should_stop = True

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop |= self.reached is not None  # of a run that is resumed after its end

    def state_dict(self) -> dict[str, Any]:
        return {'accuracies': list(self.accuracies)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.accuracies = [float(each) for each in state_dict['accuracies']]
