"""Image files in folders of classes: every real file once, in the order of its path, wherever links lead."""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError

_logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """Image file in a folder, sorted as a tuple."""

    label: int
    folder: str
    name: str
    real: str
    is_link: bool

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)


def image_files(path: Path, endings: set[str], *, skip: bool = False) -> tuple[list[tuple[str, int]], list[str]]:
    """List the image files in one folder per class, and in folders within.

    Links to folders are followed after the folders themselves, and only to where nothing was read before: a link to a folder
    above, say, would make every image a member of every class. Hidden files and folders are left out.

    Parameters
    ----------
    path
        Folder of the folders of classes.
    endings
        Endings of image files, in lower case, with the dot.
    skip
        Whether classes may be without images.

    Returns
    -------
    tuple
        Path and class of every image, sorted by class, folder and name; names of the classes, those of their folders.

    Raises
    ------
    DataError
        If there are no classes, one has no images and is not skipped, or a folder cannot be read.
    """
    above = os.path.realpath(path)
    seen = {above, *map(str, Path(above).parents)}  # real paths
    entries = entries_of(str(path))
    classes = [each for each in entries if is_folder(each)]
    loose = [each.name for each in entries if os.path.splitext(each.name)[1].lower() in endings and not is_folder(each)]
    again = [each.path for each in classes if os.path.realpath(each.path) in seen]
    names = [each.name for each in classes if each.path not in again]
    folders, links = deque[tuple[str, int]](), deque[tuple[str, int]]()
    for label, name in enumerate(names):
        folder = str(path / name)
        (links if os.path.islink(folder) else folders).append((folder, label))
    found: list[_Found] = []
    ignored: list[str] = []
    while folders or links:
        folder, label = (folders or links).popleft()
        real = os.path.realpath(folder)
        if real in seen:
            again.append(folder)
            continue
        seen.add(real)
        for entry in entries_of(folder):
            if is_folder(entry):
                (links if entry.is_symlink() else folders).append((entry.path, label))
            elif os.path.splitext(entry.name)[1].lower() in endings:
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                found.append(_Found(label, folder, entry.name, target, entry.is_symlink()))
            else:
                ignored.append(entry.path)
    once = {each.real: each for each in sorted(found, key=lambda each: (each.is_link, each), reverse=True)}
    again += [each.path for each in found if once[each.real] is not each]
    _warn(path, ignored, again, loose)
    files = sorted(once.values())
    known = {each.label for each in files}
    without = [name for label, name in enumerate(names) if label not in known]
    if without and files and skip:
        _logger.warning('%s: classes without images are left out: %s.', path, ', '.join(without[:10]))
    elif without or not names:
        which = f'none for {", ".join(without[:10])}' if names else 'it has no folders'
        raise DataError(
            f'data folder {path} has no images in class folders: {which}; known endings are {" ".join(sorted(endings))}.'
        )
    return [(each.path, each.label) for each in files], names


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if not each.name.startswith('.')), key=lambda each: each.name)
    except OSError as error:
        raise DataError(f'data folder {folder} cannot be read: {error.strerror}.') from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Check whether an entry is a folder or a link to one; a link that leads to itself is none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _warn(path: Path, ignored: list[str], again: list[str], loose: list[str]) -> None:
    if loose:
        _logger.warning('%s: %d images in no folder of a class are left out, such as %s.', path, len(loose), min(loose))
    if ignored:
        _logger.warning('%s: %d files are no images by their ending, such as %s.', path, len(ignored), min(ignored))
    if again:
        _logger.warning(
            '%s: %d links lead to folders or images that are read already, such as %s; every image is read once.',
            path, len(again), min(again),
        )  # fmt: skip
