"""Source of data: the keys of its section in a YAML file, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .task import Task

ON_ERROR = ('stop', 'skip')
"""What to do about files that cannot be read."""


@dataclass(frozen=True)
class Setting:
    """A key in the section of a source.

    Attributes
    ----------
    kind
        Type of the value.
    default
        Value where none is given.
    refusal
        Error message for a value that is missing or of another type; ``{key}`` (its dotted name) and ``{value}`` are filled
        in. Empty for the usual message.
    is_path
        Whether the value is a path; relative paths start at the folder of the file.
    """

    kind: type
    default: Any = None
    refusal: str = ''
    is_path: bool = False


PATH = Setting(str, refusal='{key} = {value!r}, but it must be a path.', is_path=True)
"""Setting for a path that must be given."""


@dataclass(frozen=True)
class Source:
    """Kind of data that a section ``data:`` may name.

    Attributes
    ----------
    settings
        Keys of the source's section; None for a source that takes plain text, as in ``name: digits``.
    read
        Function from checked settings (or the text) and an image size in pixels to the task.
    title
        Function from settings (or the text) to the name of the data, for use before they are read.
    recognises
        Function that tells whether a word of the command line, a path or not, means data of this kind.
    options
        General settings of data that ``read`` takes as keyword arguments: 'cache_mb', 'on_error'.
    """

    settings: Mapping[str, Setting] | None
    read: Callable[..., Task]
    title: Callable[[Any], str]
    recognises: Callable[[str], bool] = lambda word: False
    options: tuple[str, ...] = ()
