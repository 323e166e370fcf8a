"""Fast forward of a search: by which arithmetic it trains, which its checkpoints note."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pytorch_lightning import Callback

from ..fast_forward.forward import FastForward

_logger = logging.getLogger(__name__)

STATE = 'nni_warmstart.fast'


class Fast(Callback):
    """Runs cells and choices by plans while a search trains and validates; see :mod:`nni_warmstart.fast_forward`.

    A resumed search goes on with the arithmetic that it began with.

    Parameters
    ----------
    on
        Whether a new search runs by plans.
    asked
        Whether the user has asked for it, so that a search without any plan is worth a warning.
    """

    @property
    def state_key(self) -> str:
        return STATE

    def __init__(self, on: bool, asked: bool = False) -> None:
        self.on, self._asked = on, asked
        self._forward: FastForward | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._forward = None

    def state_dict(self) -> dict[str, Any]:
        return {'fast': self.on}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        noted = checkpoint.get('callbacks', {}).get(STATE, {'fast': False})  # earlier versions had NNI's forward only
        if noted['fast'] != self.on:
            _logger.info('The search goes on as it began, with fast=%s.', noted['fast'])
        self.on = noted['fast']

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not self.on:
            return
        forward = FastForward(pl_module.model)
        for line in forward.summary():
            _logger.info('%s.', line)
        if forward.fits:
            self._forward = forward
        elif self._asked:
            _logger.warning("fast=True, but no plan fits, and the search runs NNI's forward: %s.", forward.why_not)

    def applied(self) -> AbstractContextManager[None]:
        """Return the context in which the supernet runs by its plans.

        Second derivatives of the loss never go through plans: the guard of the eigenvalue is outside of this context.
        """
        return nullcontext() if self._forward is None else self._forward.applied()
