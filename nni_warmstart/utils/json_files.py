"""JSON files of unknown origin, read within the limit on one file."""

from __future__ import annotations

import os
from typing import Any

from ..errors import WarmStartError, reason
from . import strict_json
from .files import open_regular
from .limits import Budget


def read_json(path: str | os.PathLike[str], error: type[WarmStartError]) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path
        Path of the file.
    error
        Class of the error about its content.

    Raises
    ------
    FileNotFoundError
        If there is none.
    OSError
        If it cannot be read, or is a pipe, a socket, a device or a folder.
    WarmStartError
        If it is damaged, or takes more memory than the limit of a file allows, as the class ``error``.
    """
    budget = Budget(str(path), error)
    with open_regular(path) as (file, size):
        budget.check(size)
        data = file.read(size)
    try:
        return strict_json.parse(data, budget)
    except WarmStartError:
        raise
    except ValueError as damage:
        raise error(f'{path} is damaged: {reason(damage)[:200]}; repair or delete the file.') from damage
