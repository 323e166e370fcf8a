"""Memory that data take, compared with what this machine has before anything is made."""

from __future__ import annotations

from pathlib import Path

import psutil

from ..errors import DataError

_CGROUPS = (
    ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory.current'),
    ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/memory/memory.usage_in_bytes'),
)
"""Files with the limit and the use of memory of a container, in the two versions of Linux."""


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
    for limit, use in _CGROUPS:
        try:
            available = min(available, int(Path(limit).read_text()) - int(Path(use).read_text()))
        except (OSError, ValueError):  # no container, or 'max', no limit
            continue
    return max(available, 0)


def shown(size: int) -> str:
    """Return a size in bytes as text: '12 MB', '3.4 GB'."""
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.0f} MB'
