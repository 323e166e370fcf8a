"""Entries of a zoo one after the other, where one that cannot be read does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from ..errors import SupernetFileError, ZooError
from ..supernets.card import Summary
from ..utils.progress import tracked
from ..utils.text import visible
from .store import NoAnswer, Store

_logger = logging.getLogger(__name__)

T = TypeVar('T')


def readable(names: list[str], read: Callable[[str], T]) -> Iterator[T]:
    """Yield what ``read`` returns for every entry that can be read; a warning names each of the others, and why.

    Raises
    ------
    NoAnswer
        If two entries in succession do not arrive in time: the others will not either.
    """
    silent = 0
    for name in tracked(names, 'entries of the zoo'):
        try:
            entry = read(name)
        except (SupernetFileError, ZooError) as error:  # ZooError: another process has removed it
            silent = silent + 1 if isinstance(error, NoAnswer) else 0
            if silent == 2:
                raise
            _logger.warning('Skipping zoo entry %s: %s', visible(name, keep=''), visible(str(error)))
        else:
            silent = 0
            yield entry


def summaries(store: Store) -> Iterator[Summary]:
    """Yield a summary of every entry whose header can be read, which takes neither torch nor the rest of the file."""

    def read(name: str) -> Summary:
        origin = store.path(name)
        return replace(Summary.from_header(store.header(name), origin), name=name)

    return readable(store.names(), read)
