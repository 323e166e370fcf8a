"""Checkpoints of a run that may be killed: one file, replaced atomically, and read as data."""

from __future__ import annotations

import io
import json
import logging
import pickle
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from .devices import is_first
from .errors import ConfigError
from .storage import unwritable, write_atomic, write_json

if TYPE_CHECKING:
    from .strategy import WarmStartDARTS

_logger = logging.getLogger(__name__)

_DAMAGED = (
    pickle.UnpicklingError, struct.error, EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError,
    AttributeError, AssertionError, MemoryError, OverflowError,
)  # fmt: skip
"""What reading a damaged checkpoint as data raises."""

_PARTS = {'state_dict', 'epoch', 'global_step', 'loops', 'optimizer_states', 'lr_schedulers', 'pytorch-lightning_version'}
"""What Lightning resumes from."""


RESULTS = (
    'result.json', 'architecture.json', 'supernet.safetensors', 'network.safetensors', 'network.pt2', 'network.onnx',
)  # fmt: skip
"""What searches and retrainings leave at their end."""


def output_folder(out: str | Path) -> Path:
    """The folder for a run's results.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    trouble = unwritable(Path(out))
    if trouble:
        raise ConfigError(f'output folder {trouble}')
    return Path(out)


def check(out: Path, settings: dict[str, Any]) -> None:
    """The settings of a run that goes on must be those it began with, but for epochs and seconds.

    Raises
    ------
    ConfigError
        Naming what differs.
    """
    path = out / 'settings.json'
    if not path.is_file():
        return
    now = flat(_plain(settings))
    try:
        before = flat(json.loads(path.read_text()))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f'{path} is damaged; delete it to go on with these settings.') from error
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and key not in ('evaluator.max_epochs', 'evaluator.max_seconds'):
            raise ConfigError(
                f'the run in {out} has {key} = {before.get(key)!r} and should go on with {now.get(key)!r}; put it '
                'back, or choose another --out.'
            )


def begin(out: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Write down the settings of a run that is about to train; a new one forgets the checkpoint and results of an older, so
    that none of these is taken for its own."""
    if not is_first():
        return
    if not resume:
        for stale in (_path(out), *(out / name for name in RESULTS)):
            stale.unlink(missing_ok=True)
    write_json(out / 'settings.json', _plain(settings))


def _plain(settings: dict[str, Any]) -> Any:
    return json.loads(json.dumps({key: value for key, value in settings.items() if key != 'base'}, default=str))


def flat(settings: Any, prefix: str = '') -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f'{prefix}{key}'
        found.update(flat(value, f'{name}.') if isinstance(value, dict) else {name: value})
    return found


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the file and renames; Lightning's own goes by way of the system's folder for temporary files, which is
    often another file system, where a move is a copy that a kill leaves half done."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(path, buffer.getvalue())


def exists(out: Path) -> bool:
    """Whether there is one to go on from."""
    return _path(out).is_file()


def _path(out: Path) -> Path:
    return out / 'checkpoints' / 'last.ckpt'


def every_epoch(out: Path) -> ModelCheckpoint:
    """One file, ``checkpoints/last.ckpt``, replaced at the end of each epoch, after its validation."""
    path = _path(out)
    for unfinished in path.parent.glob(f'.{path.name}.*.part'):  # of a run that was killed while it wrote
        unfinished.unlink(missing_ok=True)
    return ModelCheckpoint(
        dirpath=str(path.parent), filename=path.stem, save_on_train_epoch_end=True, enable_version_counter=False
    )


def resume(strategy: WarmStartDARTS, out: Path, max_epochs: int) -> None:
    """Let an initialised strategy go on from the checkpoint in ``out``, if there is one; errors as of :func:`last`."""
    path = last(out, strategy.supernet, 'training_module._model.', max_epochs)
    if path is not None:
        strategy.load_state_dict({'ckpt_path': str(path)})


def last(out: Path, model: nn.Module, prefix: str, max_epochs: int) -> Path | None:
    """The checkpoint in ``out``, if there is one.

    Parameters
    ----------
    out
        Folder of the run.
    model
        What is trained.
    prefix
        Of its tensors' names in the checkpoint.
    max_epochs
        Of the run.

    Raises
    ------
    ConfigError
        If it is damaged, of another run, or already past the last epoch.
    """
    path = _path(out)
    if not exists(out):
        _logger.warning('Nothing to resume: %s does not exist; starting anew.', path)
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch's guesses at what a damaged file was
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        missing = _PARTS - checkpoint.keys()
        if missing:
            raise KeyError(*missing)
        shapes = _shapes({name: tensor for name, tensor in checkpoint['state_dict'].items() if name.startswith(prefix)})
        epoch = int(checkpoint['epoch'])
    except _DAMAGED as error:
        raise ConfigError(f'checkpoint {path} is damaged or of another kind; delete it to start anew.') from error
    if shapes != _shapes({prefix + name: tensor for name, tensor in model.state_dict().items()}):
        raise ConfigError(f'checkpoint {path} belongs to another run: its tensors differ; choose another --out.')
    if epoch + 1 > max_epochs:
        raise ConfigError(f'checkpoint {path} has {epoch + 1} epochs and evaluator.max_epochs = {max_epochs}; raise it.')
    return path


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
