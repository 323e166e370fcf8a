"""Continuity of a search: a warning where it goes on with other data or settings than it began with."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

from pytorch_lightning import Callback
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from ..data.fingerprint import of_dataset
from .settings import SearchSettings

_logger = logging.getLogger(__name__)


class Continuity(Callback):
    """Records what a search is trained on and with, and warns where its checkpoint was written with something else.

    The command line compares more, and refuses (:mod:`nni_warmstart.runs.provenance`); a search in Python goes on as NNI's
    would.

    Parameters
    ----------
    settings
        Settings of the search.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.continuity'

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self._facts: dict[str, Any] = {}
        self._earlier: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._facts = {**asdict(self.settings), **_data_of(trainer)}
        earlier, self._earlier = self._earlier, None
        for name, now in self._facts.items() if earlier else ():
            before = (earlier or {}).get(name, now)
            if before != now:
                _logger.warning('The search goes on with %s = %s, and it began with %s.', name, now, before)

    def state_dict(self) -> dict[str, Any]:
        return {'facts': json.dumps(self._facts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = json.loads(state_dict['facts'])


def _data_of(trainer: Any) -> dict[str, str]:
    """Return the fingerprints of the datasets of a trainer, in the order of its loaders."""
    found: dict[str, str] = {}
    for part, combined in (('training', trainer.train_dataloader), ('validation', trainer.val_dataloaders)):
        loaders: list[DataLoader] = []
        tree_map_only(DataLoader, loaders.append, combined)
        found |= {f'{part} data {number}': of_dataset(each.dataset) for number, each in enumerate(loaders, 1)}
    return found
