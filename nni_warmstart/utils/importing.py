"""Code and packages that users name: functions as ``package.module:name``, and packages that may not be installed."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from ..errors import ConfigError, reason


def imported(name: str, where: str) -> Any:
    """Import what ``package.module:name`` names; the working folder is searched as well.

    Parameters
    ----------
    name
        Name of a module, a colon, and the name of something in it.
    where
        Setting that has this name, for errors.

    Raises
    ------
    ConfigError
        If it cannot be imported.
    """
    module, colon, member = name.partition(':')
    if not (colon and module and member):
        raise ConfigError(f'{where} = {name!r}, but it must be package.module:name.')
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # console scripts don't look there, `python -m` does
    try:
        return getattr(importlib.import_module(module), member)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f'{where} = {name!r} cannot be imported ({reason(error)}); check its module and name.') from error


def optional(module: str, extra: str) -> Any:
    """Import a module of a package that an extra of this one installs.

    Raises
    ------
    ConfigError
        If it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module.partition('.')[0]} is not installed ({reason(error)}); pip install 'nni-warmstart[{extra}]'."
        ) from error
