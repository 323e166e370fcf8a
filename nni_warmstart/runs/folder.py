"""The folder of a run: what it holds, and whether a run may go on in it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..evaluators.checkpoints import check_checkpoint
from ..utils.distributed import is_first
from ..utils.files import unwritable, write_json
from .settings import flat

_logger = logging.getLogger(__name__)

RESULTS = (
    'result.json', 'architecture.json', 'supernet.safetensors', 'network.safetensors', 'network.pt2', 'network.onnx',
)  # fmt: skip
"""What searches and retrainings leave at their end."""

MAY_CHANGE = ('evaluator.max_epochs', 'evaluator.max_seconds')
"""Settings that a run may go on with other values of."""


@dataclass(frozen=True)
class RunFolder:
    """The folder ``path`` of a run: ``settings.json``, ``checkpoints/last.ckpt`` and, at its end, results."""

    path: Path

    @property
    def settings(self) -> Path:
        """File with the settings that the run began with."""
        return self.path / 'settings.json'

    @property
    def checkpoint(self) -> Path:
        """File with the state after the last finished epoch."""
        return self.path / 'checkpoints' / 'last.ckpt'

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.checkpoint.is_file()

    def make(self) -> None:
        """Make the folder where there is none.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        trouble = unwritable(self.path)
        if trouble:
            raise ConfigError(f'output folder {trouble}')

    def check(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with other settings than the run began with, :data:`MAY_CHANGE` excepted.

        Raises
        ------
        ConfigError
            Naming what differs.
        """
        if not self.settings.is_file():
            return
        now = flat(_plain(settings))
        try:
            before = flat(json.loads(self.settings.read_text()))
        except (ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f'{self.settings} is damaged; delete it to go on with these settings.') from error
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key) and key not in MAY_CHANGE:
                raise ConfigError(
                    f'the run in {self.path} has {key} = {before.get(key)!r} and should go on with {now.get(key)!r}; put it '
                    'back, or choose another --out.'
                )

    def checkpoint_for(self, model: nn.Module, prefix: str, max_epochs: int) -> Path | None:
        """Return the checkpoint to go on from, if there is one; parameters and errors as of :func:`check_checkpoint`."""
        if not self.has_checkpoint():
            _logger.warning('Nothing to resume: %s does not exist; starting anew.', self.checkpoint)
            return None
        check_checkpoint(self.checkpoint, model, prefix, max_epochs)
        return self.checkpoint

    def begin(self, settings: dict[str, Any], *, resume: bool) -> None:
        """Write down the settings of a run that is about to train.

        A new one forgets the checkpoint and the results of an older, so that none of these is taken for its own.
        """
        if not is_first():
            return
        if not resume:
            for stale in (self.checkpoint, *(self.path / name for name in RESULTS)):
                stale.unlink(missing_ok=True)
        write_json(self.settings, _plain(settings))


def _plain(settings: dict[str, Any]) -> Any:
    return json.loads(json.dumps({key: value for key, value in settings.items() if key != 'base'}, default=str))
