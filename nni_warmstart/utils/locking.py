"""Lock of a folder, which one process holds while it writes there."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ConfigError, reason

_logger = logging.getLogger(__name__)

LOCK, HOLDER = '.run.lock', '.run.holder'
"""Names of the locked file, and of the file that says who holds it: filelock empties the first at every try."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process.

    The lock is one of the operating system (``flock``, on NFS a lock of the server), which ends with its process however
    that ends. Where a file system has no locks, a warning says so.

    Raises
    ------
    ConfigError
        If another process holds the folder; the message names the process and its machine.
    """
    lock, holder = FileLock(str(folder / LOCK)), folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f'{folder} is in use by {_holder(holder)}; wait until it has ended, or choose another --out.'
        ) from error
    except NotImplementedError as error:
        _logger.warning('%s cannot be locked (%s); let no two runs write there at once.', folder, reason(error))
    try:
        now = datetime.now().astimezone().isoformat(' ', 'seconds')
        holder.write_text(f'process {os.getpid()} on {socket.gethostname()}, which began at {now}\n')
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    try:
        return ' '.join(path.read_text()[:200].split()) or 'another process'
    except (OSError, UnicodeDecodeError):  # it is about to write the file, or has just removed it
        return 'another process'
