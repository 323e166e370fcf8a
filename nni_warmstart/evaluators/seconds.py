"""Seconds that a training takes, those before a resumption included."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback


class Seconds(Callback):
    """Counts the seconds of a run; checkpoints carry them on.

    Parameters
    ----------
    began
        Reading of ``time.perf_counter`` at which this process began the run.
    """

    def __init__(self, began: float) -> None:
        self._began, self._before = began, 0.0

    @property
    def seconds(self) -> float:
        """Seconds so far, of all processes."""
        return self._before + time.perf_counter() - self._began

    def state_dict(self) -> dict[str, Any]:
        return {'seconds': self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict['seconds']
