"""Hooks of a search whose place among those of other callbacks matters."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback


class EvaluatorsLast(Callback):
    """Runs the last hooks of the evaluator before those of Lightning that save checkpoints.

    Lightning calls the hooks of a module after those of all callbacks, so that a checkpoint would not hold what they change.
    """

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        pl_module.end_batch(outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.end_validation()


class Withdrawal(Callback):
    """Removes the callbacks of a search from the trainer after an exception, when all checkpoints are saved."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        pl_module.withdraw_callbacks()  # there is no teardown after an exception
