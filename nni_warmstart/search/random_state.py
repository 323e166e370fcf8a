"""Random state of a search: validation does not change it, and a resumed search draws the numbers that came next."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from ..utils.random import random_state, set_random_state


def generators_of(trainer: Any) -> list[torch.Generator]:
    """Return the generators that users have passed to the data loaders of a trainer."""
    loaders: list[Any] = []
    for combined in (trainer.train_dataloader, trainer.val_dataloaders):
        tree_map_only(DataLoader, loaders.append, combined)
    found = [getattr(part, 'generator', None) for x in loaders for part in (x, x.sampler, x.batch_sampler)]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


class RandomState(Callback):
    """Restores the random generators after validation, and when a search is resumed.

    The state is captured by :meth:`capture`, after the last hook of a training batch: validation may start then, and its
    loader draws random numbers before the next hook.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.random'

    def __init__(self) -> None:
        self._trainer: Any = None
        self._captured: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._trainer, self._captured = trainer, None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), '_trainer': None}  # a copy of a module takes no trainer with it

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.restore():  # resumed
            # Lightning has no hook before it creates the iterator of this epoch, with other random numbers
            iter(trainer.fit_loop._data_fetcher)

    def capture(self) -> None:
        """Capture the state for :meth:`restore`."""
        self._captured = random_state(generators_of(self._trainer))

    def restore(self) -> bool:
        """Restore the captured state; return whether there was one."""
        if self._captured is None:
            return False
        set_random_state(self._captured, generators_of(self._trainer))
        self._captured = None
        return True

    def state_dict(self) -> dict[str, Any]:
        return {'random': random_state(generators_of(self._trainer))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._captured = state_dict['random']
