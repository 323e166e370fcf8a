"""Folder of a run: its files, and the conditions for a run to be resumed in it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..evaluators.checkpoints import check_checkpoint
from ..utils.distributed import is_first
from ..utils.files import unwritable, write_json
from .config import DataConfig, EvaluatorConfig
from .settings import flat

_logger = logging.getLogger(__name__)

RESULTS = (
    'result.json', 'architecture.json', 'supernet.safetensors', 'network.safetensors', 'network.pt2', 'network.onnx',
)  # fmt: skip
"""Files that searches and retrainings write at their end."""

MAY_CHANGE = ('evaluator.max_epochs', 'evaluator.max_seconds', 'evaluator.num_workers', 'evaluator.prefetch')
"""Settings that may change when a run is resumed."""

_EVALUATOR = {key: value for key, value in asdict(EvaluatorConfig()).items() if key not in MAY_CHANGE}


@dataclass(frozen=True)
class RunFolder:
    """Folder ``path`` of a run: ``settings.json``, ``checkpoints/last.ckpt`` and, at its end, results."""

    path: Path

    @property
    def settings(self) -> Path:
        """File with the settings with which the run was started."""
        return self.path / 'settings.json'

    @property
    def checkpoint(self) -> Path:
        """File with the state after the last finished epoch."""
        return self.path / 'checkpoints' / 'last.ckpt'

    def has_checkpoint(self) -> bool:
        """Check whether there is a checkpoint to resume from."""
        return self.checkpoint.is_file()

    def make(self) -> None:
        """Create the folder if it does not exist.

        Raises
        ------
        ConfigError
            If the folder cannot be written.
        """
        trouble = unwritable(self.path)
        if trouble:
            raise ConfigError(f'output folder {trouble}')

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raise an error if settings differ from those with which the run was started, except :data:`MAY_CHANGE`.

        Raises
        ------
        ConfigError
            If settings differ; the message names them.
        """
        if not self.settings.is_file():
            return
        now = flat(_completed(_plain(settings)))
        try:
            before = flat(_completed(json.loads(self.settings.read_text())))
        except (ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f'{self.settings} is damaged; delete it to go on with these settings.') from error
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key) and key not in MAY_CHANGE:
                raise ConfigError(
                    f'the run in {self.path} has {key} = {before.get(key)!r} and should go on with {now.get(key)!r}; put it '
                    'back, or choose another --out.'
                )

    def checkpoint_for(self, model: nn.Module, prefix: str, max_epochs: int) -> Path | None:
        """Return the checkpoint to resume from, None if there is none; see :func:`check_checkpoint` for the arguments."""
        if not self.has_checkpoint():
            _logger.warning('Nothing to resume: %s does not exist; starting anew.', self.checkpoint)
            return None
        check_checkpoint(self.checkpoint, model, prefix, max_epochs)
        return self.checkpoint

    def begin(self, settings: dict[str, Any], *, resume: bool) -> None:
        """Write the settings of a run that is about to train.

        A new run deletes the checkpoint and the results of an older one, so that they are not mistaken for its own.
        """
        if not is_first():
            return
        if not resume:
            for stale in (self.checkpoint, *(self.path / name for name in RESULTS)):
                stale.unlink(missing_ok=True)
        write_json(self.settings, _plain(settings))


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of settings that an older version did not have."""
    data, evaluator = settings.get('data'), settings.get('evaluator')
    found = dict(settings)
    if isinstance(data, dict):
        found['data'] = {**asdict(DataConfig()), **data}
    elif isinstance(data, list):
        found['data'] = [{**asdict(DataConfig()), **item} if isinstance(item, dict) else item for item in data]
    if isinstance(evaluator, dict):
        found['evaluator'] = {**_EVALUATOR, **evaluator}
    return found


def _plain(settings: dict[str, Any]) -> Any:
    return json.loads(json.dumps({key: value for key, value in settings.items() if key != 'base'}, default=str))
