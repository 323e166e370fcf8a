"""What a source of data is: the keys of its section in a YAML file, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .task import Task


@dataclass(frozen=True)
class Setting:
    """A key in the section of a source.

    Attributes
    ----------
    kind
        Type of its value.
    default
        Its value where it is not given.
    refusal
        What is said of a value that is missing or of another type; ``{key}`` (its dotted name) and ``{value}`` are filled
        in. Empty for the usual words.
    is_path
        Whether it is a path, which starts at the folder of the file.
    """

    kind: type
    default: Any = None
    refusal: str = ''
    is_path: bool = False


PATH = Setting(str, refusal='{key} = {value!r}, but it must be a path.', is_path=True)
"""A path that must be given."""


@dataclass(frozen=True)
class Source:
    """A kind of data that a section ``data:`` may name.

    Attributes
    ----------
    settings
        Keys of its own section; None where there is only text, as in ``name: digits``.
    read
        From checked settings (or the text) and a size of images in pixels to the task.
    title
        From settings (or the text) to what the data are called before they are read.
    recognises
        Whether a word of the command line, a path or not, means data of this kind.
    """

    settings: Mapping[str, Setting] | None
    read: Callable[[Any, int], Task]
    title: Callable[[Any], str]
    recognises: Callable[[str], bool] = lambda word: False
