"""Stop of a training that has diverged."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback

from ..errors import DivergenceError
from ..utils.divergence import divergence


class StopOnDivergence(Callback):
    """Ends a training after an epoch that left absurd weights or a loss that is not finite, before it is saved.

    Raises
    ------
    DivergenceError
        If there are such; see :func:`~nni_warmstart.utils.divergence.divergence`.
    """

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        found = divergence(pl_module.named_parameters(), trainer.callback_metrics)
        if trainer.strategy.reduce_boolean_decision(found is not None, all=False):  # losses differ between devices
            epoch = trainer.current_epoch + 1
            kept = f'the checkpoint of epoch {epoch - 1} is kept' if epoch > 1 else 'there is no checkpoint yet'
            raise DivergenceError(
                f'training diverged in epoch {epoch}: {found or "a loss of another device"}; {kept}. Start anew with a '
                'lower evaluator.learning_rate.'
            )
