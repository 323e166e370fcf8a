"""The limit on what one file of unknown origin may take: one number that users can raise, and what is left of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigError, WarmStartError

VARIABLE = 'NNI_WARMSTART_MAX_MB'
"""Environment variable with the limit in megabytes; ``nni-warmstart --max-mb`` sets it."""

DEFAULT = 500
"""Limit in megabytes where the variable is not set."""


def most_bytes() -> int:
    """Return the memory in bytes that reading one file may take.

    Raises
    ------
    ConfigError
        If the variable is not a positive whole number.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) > 0):
        raise ConfigError(f'{VARIABLE} = {text[:20]!r}, but it must be a whole number of megabytes, 1 or more.')
    return int(text) * 10**6


@contextmanager
def limited(megabytes: int | None) -> Iterator[None]:
    """Set the limit for a while; None leaves it as it is."""
    before = os.environ.get(VARIABLE)
    try:
        if megabytes is not None:
            os.environ[VARIABLE] = str(megabytes)
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def most_seconds() -> float:
    """Return the time in seconds in which one file has to arrive over a network; it grows with the limit."""
    return 10 + most_bytes() / 10**7


class Budget:
    """Memory that reading one file may still take; it is spent before anything is made.

    Parameters
    ----------
    owner
        Name of the file, for errors.
    error
        Class of the error.
    """

    def __init__(self, owner: str, error: type[WarmStartError]) -> None:
        self.owner, self.error = owner, error
        self.left = most_bytes()

    def check(self, size: int) -> None:
        """Raise an error unless ``size`` bytes are left.

        Raises
        ------
        WarmStartError
            If less is left, as the class ``error``; the message names the limit.
        """
        if size > self.left:
            raise self.error(
                f'{self.owner} is too large, or too intricate, for the limit of {most_bytes() // 10**6} MB on one file; if '
                f'you trust it, raise the limit: {VARIABLE}=MB in the environment, or nni-warmstart --max-mb MB.'
            )

    def spend(self, size: int) -> None:
        """Take ``size`` bytes off. Raises as :meth:`check`."""
        self.check(size)
        self.left -= size
