"""One pass over the headers of image files, before anything is trained: all that is wrong with them at once."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import DataError, reason
from ..utils.files import open_regular
from ..utils.progress import timed, tracked
from .image_reading import UnreadableImageError, check_image

_logger = logging.getLogger(__name__)

SHOWN = 20
"""Largest number of files that a message names."""

SKIP = 'data.on_error: skip'
"""Setting that leaves unreadable images out, as messages name it."""

_TAIL = 1024  # bytes at the end of a file, by which copies are found and cut files are suspected


class Print(NamedTuple):
    """Fingerprint by which copies of a file are found, before their whole contents are compared."""

    size: int
    tail: bytes  # digest of the end


@dataclass
class Examined:
    """Result of the examination of some files.

    Attributes
    ----------
    faults
        Position of an unreadable file -> reason.
    prints
        Fingerprint of each file; None for those that cannot be opened.
    links
        Positions of files that are symbolic links.
    """

    faults: dict[int, str] = field(default_factory=dict)
    prints: list[Print | None] = field(default_factory=list)
    links: list[int] = field(default_factory=list)


def examine(paths: Sequence[str], title: str) -> Examined:
    """Read the header and the end of every file; one that looks cut is decoded to make sure.

    Parameters
    ----------
    paths
        Files of images.
    title
        Name of the data, for the progress bar and the log.
    """
    found = Examined()
    with timed(f'Headers of {len(paths)} files of {title}'):
        for position, path in enumerate(tracked(paths, f'headers of {title}', len(paths))):
            print_ = None
            try:
                with open_regular(path) as (file, size):
                    file.seek(max(0, size - _TAIL))
                    tail = file.read(_TAIL)
                    file.seek(0)
                    print_ = Print(size, hashlib.blake2b(tail, digest_size=16).digest())
                    check_image(file, size, path, tail)
            except UnreadableImageError as error:
                found.faults[position] = error.why
            except OSError as error:
                found.faults[position] = error.strerror or reason(error)
            found.prints.append(print_)
            if os.path.islink(path):
                found.links.append(position)
    return found


def copies(one: Sequence[str], other: Sequence[str], found: tuple[Examined, Examined]) -> list[tuple[int, int]]:
    """Return the positions of files in ``one`` that are in ``other`` as well, with those of their copies, by content."""
    both = {each for each in found[0].prints if each is not None} & set(found[1].prints)
    places: dict[bytes, int] = {}
    for position, print_ in enumerate(found[1].prints):
        if print_ in both:
            places.setdefault(_digest(other[position]), position)
    candidates = (position for position, print_ in enumerate(found[0].prints) if print_ in both)
    return [(position, places[digest]) for position in candidates if (digest := _digest(one[position])) in places]


def _digest(path: str) -> bytes:
    """Return a hash of the content of a file, which stands for it."""
    digest = hashlib.blake2b()
    with open(path, 'rb') as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.digest()


def named(paths: Sequence[str]) -> str:
    """Return the first names of a list of files, and how many others there are."""
    rest = len(paths) - SHOWN
    return ', '.join(paths[:SHOWN]) + (f', and {rest} others' if rest > 0 else '')


def report_faults(faults: Sequence[tuple[str, str]], *, skip: bool) -> None:
    """Raise one error, or write one warning, about all files that are unreadable.

    Parameters
    ----------
    faults
        Unreadable files with their reasons.
    skip
        Whether they are left out.

    Raises
    ------
    DataError
        If there are any, and they are not left out.
    """
    if not faults:
        return
    listed = [f'{file} ({why})' for file, why in faults]
    if len(faults) == 1 and not skip:
        raise DataError(f'image {faults[0][0]} cannot be read ({faults[0][1]}); repair or remove it, or set {SKIP}.')
    _logger.warning('%d unreadable images%s: %s.', len(faults), ' are left out' if skip else '', named(listed))
    if not skip:
        raise DataError(
            f'{len(faults)} images cannot be read, such as {listed[0]}; repair or remove them, or set {SKIP}. The warning '
            'above names more of them.'
        )
