"""Memory that data take, compared with what this machine has before anything is made."""

from __future__ import annotations

from pathlib import Path

import psutil

from ..errors import DataError

_CGROUPS = (
    ('/sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
    ('/sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
)
"""Folder of a container, its files with the limit and the use of memory, and the entry of ``memory.stat`` with the part that
holds files and is given back when memory is needed; in the two versions of Linux."""


def check_fits(what: str, size: int, remedy: str = 'take fewer or smaller images') -> None:
    """Raise an error for data that need more memory than is available.

    Linux grants any memory that is asked for and kills the process that uses it, so that no exception would say why.

    Parameters
    ----------
    what
        What is to be read or made, as the beginning of the message.
    size
        Memory that it needs, in bytes.
    remedy
        What to do about it, as the end of the message.

    Raises
    ------
    DataError
        If there is less; the message names both numbers.
    """
    available = available_bytes()
    if size > available:
        raise DataError(
            f'{what} does not fit into memory: it needs {shown(size)}, and {shown(available)} are available; {remedy}.'
        )


def available_bytes() -> int:
    """Return the memory in bytes that this process can take without swapping, as the machine and its container allow."""
    available = psutil.virtual_memory().available
    for folder, limit, use, cached in _CGROUPS:
        try:
            most, used = (int(Path(folder, name).read_text()) for name in (limit, use))
        except (OSError, ValueError):  # no container, or 'max', no limit
            continue
        available = min(available, most - used + _entry(Path(folder, 'memory.stat'), cached))
    return max(available, 0)


def _entry(file: Path, name: str) -> int:
    """Return a number of a file with a name and a number a line; 0 without it."""
    try:
        return int(dict(line.split() for line in file.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0


def shown(size: int) -> str:
    """Return a size in bytes as text: '12 MB', '3.4 GB'."""
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.0f} MB'
