"""Checkpoint of a run that may be killed: one file, replaced atomically, and loaded as data only."""

from __future__ import annotations

import errno
import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from ..errors import ConfigError
from ..utils.files import open_regular, write_atomic

_DAMAGED = (
    pickle.UnpicklingError, struct.error, EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError,
    AttributeError, AssertionError, MemoryError, OverflowError, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions of torch and zipfile for a damaged checkpoint."""

_PARTS = {'state_dict', 'epoch', 'global_step', 'loops', 'optimizer_states', 'lr_schedulers', 'pytorch-lightning_version'}
"""Keys that Lightning needs to resume."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoint writer that writes a file next to the target and renames it.

    Lightning's own writer moves a file from the system's temporary folder. If that is another file system, the move is a
    copy, and a killed process leaves half of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(path, buffer.getvalue())


def every_epoch(path: Path) -> ModelCheckpoint:
    """Return a callback that replaces the file at ``path`` at the end of each epoch, after its validation."""
    for unfinished in path.parent.glob(f'.{path.name}.*.part'):  # left by a run that was killed while writing
        unfinished.unlink(missing_ok=True)
    return ModelCheckpoint(
        dirpath=str(path.parent), filename=path.stem, save_on_train_epoch_end=True, enable_version_counter=False
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of Lightning as data only.

    Raises
    ------
    ConfigError
        If the file cannot be read, and why, or is damaged.
    """
    try:
        pickled_bytes(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch warns about the format of damaged files
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        missing = _PARTS - checkpoint.keys()
        if missing:
            raise KeyError(*missing)
        if not isinstance(checkpoint.setdefault('callbacks', {}), dict):
            raise TypeError(type(checkpoint['callbacks']).__name__)
        return checkpoint
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # torch seeks to impossible places
            raise ConfigError(f'checkpoint {path} cannot be read: {error.strerror}.') from error
        if isinstance(error, MemoryError) or 'allocate memory' in str(error):
            raise ConfigError(f'checkpoint {path} does not fit into the memory of this machine, or is damaged.') from error
        raise _damaged(path) from error


def pickled_bytes(path: Path) -> int:
    """Return the size of what is unpickled when a checkpoint is read, in bytes.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError, zipfile.BadZipFile
        If its parts are larger than itself (compressed or overlapping, which torch never writes), or it is damaged.
    """
    with open_regular(path) as (file, size), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > size:
        raise ValueError('its parts are larger than the file')
    return sum(member.file_size for member in members if member.filename.endswith('.pkl'))


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f'checkpoint {path} is damaged or of another kind; delete it to start anew.')


def check_checkpoint(path: Path, checkpoint: dict[str, Any], model: nn.Module, prefix: str, max_epochs: int) -> None:
    """Raise an error for a checkpoint from which a run cannot be resumed.

    Parameters
    ----------
    path, checkpoint
        Path of the file, and its content.
    model
        Model that is trained.
    prefix
        Prefix of the names of its tensors in the checkpoint.
    max_epochs
        Number of epochs of the run.

    Raises
    ------
    ConfigError
        If the checkpoint is damaged, of another run, or already past the last epoch.
    """
    try:
        shapes = _shapes({name: tensor for name, tensor in checkpoint['state_dict'].items() if name.startswith(prefix)})
        epoch = int(checkpoint['epoch'])
    except _DAMAGED as error:
        raise _damaged(path) from error
    if shapes != _shapes({prefix + name: tensor for name, tensor in model.state_dict().items()}):
        raise ConfigError(f'checkpoint {path} belongs to another run: its tensors differ; choose another --out.')
    if epoch + 1 > max_epochs:
        raise ConfigError(
            f'checkpoint {path} has {epoch + 1} epochs and evaluator.max_epochs = {max_epochs}; raise it'
            ' (what --set changed earlier has to be given again).'
        )


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}
