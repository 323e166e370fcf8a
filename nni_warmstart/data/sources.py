"""All sources of data: a new one is a module with a reader and its settings, and a line here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from . import archives, image_folder, map_style, npz, torchvision_sets
from .embedded import TASKS
from .source import Source
from .task import Task

_logger = logging.getLogger(__name__)


def _embedded(name: str, image_size: int) -> Task:
    if name not in TASKS:
        *some, last = (f'{kind}:' for kind in SOURCES if kind != 'name')
        raise ConfigError(
            f'data.name = {name!r} is unknown; the embedded task is {" or ".join(map(repr, TASKS))}, others come from '
            f'{", ".join(some)} or {last}.'
        )
    return TASKS[name]()


SOURCES: dict[str, Source] = {
    'name': Source(settings=None, read=_embedded, title=str, recognises=TASKS.__contains__),
    'npz': npz.SOURCE,
    'folder': image_folder.SOURCE,
    'torchvision': torchvision_sets.SOURCE,
    'huggingface': archives.HUGGINGFACE,
    'webdataset': archives.WEBDATASET,
    'python': map_style.SOURCE,
}
"""Sources by their key in a section ``data:``."""


def title_of(data: Mapping[str, Any]) -> str | None:
    """Return the name of the data of a section ``data:`` without reading them; None where it names no source."""
    for kind, source in SOURCES.items():
        value = data.get(kind)
        if value and (source.settings is None or isinstance(value, dict)):
            return source.title(value)
    return None


def from_word(word: str, image_size: int) -> Task:
    """Read the data named by one word of the command line: an embedded task, a folder, or an npz file.

    Parameters
    ----------
    word
        Name or path.
    image_size
        Size in pixels at which image files are read.

    Raises
    ------
    DataError
        If there are no such data, or they cannot be read.
    """
    if word in TASKS and os.path.exists(word):
        _logger.warning('%s is the embedded task of this name; ./%s is the folder or file.', word, word)
    word = os.path.expanduser(word)
    source = next((each for each in SOURCES.values() if each.recognises(word)), npz.SOURCE)
    return source.read(word if source.settings is None else {'path': word}, image_size)
