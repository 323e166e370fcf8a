"""Recognition of entries: the one that a search has left itself, and sources that have changed since."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import SupernetFileError, ZooError
from ..supernets.pretrained import registry
from ..supernets.supernet import Supernet
from .zoo import RULES, SupernetZoo, numbered_stem, open_zoo, resolve_source


def own_entry(zoo: SupernetZoo, run: str, stem: str) -> str | None:
    """Return the name of the entry that a search has left under a numbered name; None if it is not there.

    A copy of the entry under another name records where it comes from, and is not the search's own.

    Parameters
    ----------
    zoo
        Zoo of the search.
    run
        Unique name of the search.
    stem
        Name without its number.
    """
    numbered = re.compile(re.escape(numbered_stem(stem)) + r'-\d+')
    for name in filter(numbered.fullmatch, zoo.names()):
        try:
            entry = zoo[name]
        except (SupernetFileError, ZooError):  # damaged, or removed by another process
            continue
        if entry.run == run and entry.entry in (name, None):  # None: of an older version
            return name
    return None


def changed_sources(source: Any, zoo: SupernetZoo | str | os.PathLike[str] | None, known: Mapping[str, str]) -> list[str]:
    """Return the sources of a warm start that hold other weights than when they were taken.

    Sources that are no longer there are left out, as are networks that are named (``torchvision:NAME``): a search that goes
    on does not read them again.

    Parameters
    ----------
    source, zoo
        Arguments of :class:`~nni_warmstart.WarmStartDARTS`.
    known
        Name of a source -> :attr:`~nni_warmstart.Supernet.key` when it was taken; empty if that is not known.
    """
    items: Sequence[Any] = source if isinstance(source, list | tuple) else [source]
    named = [
        item for item in items if isinstance(item, str | os.PathLike) and item not in RULES and not registry.is_named(item)
    ]
    changed = []
    for item in named if known else ():
        if _key(lambda item=item: resolve_source(item, zoo)) not in (None, *known.values()):
            changed.append(str(item))
    if any(isinstance(item, str) and item in RULES for item in items):
        for name, key in known.items():
            if _key(lambda name=name: open_zoo(zoo)[name]) not in (None, key):
                changed.append(name)
    return changed


def _key(read: Callable[[], Supernet]) -> str | None:
    """Return the key of a source; None if it is not there, cannot be reached or is damaged."""
    try:
        return read().key
    except (SupernetFileError, ZooError):
        return None
