"""Files written atomically, and conversion of values to JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import parts


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file to read it, and give it with its size in bytes.

    Whatever else may lie in a folder is not opened: a pipe, a socket or a device may never end, or never begin.

    Raises
    ------
    OSError
        If it is no regular file, or cannot be read.
    """
    _check_regular(os.stat(path), path)
    with open(path, 'rb', opener=lambda name, flags: os.open(name, flags | getattr(os, 'O_NONBLOCK', 0))) as file:
        status = os.fstat(file.fileno())
        _check_regular(status, path)  # another one may have taken its place since
        yield file, status.st_size


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, 'it is a pipe, a socket or a device, and no file', str(path))


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to a temporary name beside ``path`` and rename it, so that no reader sees half a file.

    Temporary files in the folder whose writers were killed are removed.

    Raises
    ------
    OSError
        If the file cannot be written (a full disk, say); the message names ``path``, which is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    parts.sweep(path.parent)
    handle, temporary = parts.create(path)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def unwritable(folder: str | os.PathLike[str]) -> str | None:
    """Create ``folder`` if needed; return the reason why it cannot be created or written, or None if it can."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        return f'{folder} cannot be made: {error.strerror}.'
    allowed = os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    return None if allowed else f'{folder} cannot be written; choose another.'


def plain(value: Any) -> Any:
    """Convert ``value`` to what JSON can hold: numbers that are not finite (in diverged runs) become None, keys text.

    Raises
    ------
    ConfigError
        If ``value`` holds anything but numbers, text, lists and mappings.
    """
    if getattr(value, 'ndim', None) == 0:  # a scalar of numpy or torch, neither of which has to be imported
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, int | str):
        return value
    kind = type(value).__name__
    raise ConfigError(f'{str(value)[:60]!r} of type {kind} cannot be kept in a file; give numbers, text, lists or mappings.')


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(plain(value), indent=2, allow_nan=False) + '\n').encode())
