"""Temporary files beside those that are being written: their names say who writes them, so that those of the dead can go."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import socket
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_PART = re.compile(r'\..*\.(?P<host>[0-9a-f]{8})-(?P<process>[0-9]+)-[0-9a-f]{8}\.part')


def name_of(name: str) -> str:
    """Return a fresh name for the part of a file: hidden, with the machine and the process that write it."""
    return f'.{name[:50]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part'


def create(path: Path) -> tuple[int, str]:
    """Create and lock the part of a file, with the permissions of any new file; return its descriptor and path."""
    temporary = str(path.with_name(name_of(path.name)))
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0), 0o666)
    _lock(handle)
    return handle, temporary


def sweep(folder: Path) -> None:
    """Remove the parts in a folder whose writers, processes of this machine, were killed."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.endswith('.part')]
    except OSError:  # a folder that may be written, but not listed
        return
    for name in names:
        if _is_left_behind(folder / name):
            (folder / name).unlink(missing_ok=True)


def _is_left_behind(path: Path) -> bool:
    """Check whether no process can be writing a part: neither one of its number nor one that has locked it."""
    found = _PART.fullmatch(path.name)
    if found is None or found['host'] != _host() or _is_alive(int(found['process'])):
        return False
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, 'O_NONBLOCK', 0))
    except OSError:  # gone, or of another user
        return False
    try:
        return _lock(handle)  # containers of one name may share the folder, and not see each other's processes
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    if os.name != 'posix':  # elsewhere the question itself would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed; return whether that was possible."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another one has, or the file system has no locks
        return False
    return True


@functools.cache
def _host() -> str:
    """Return eight characters that stand for this machine."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
