"""Image files in one folder per class, and what is done about those that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .file_check import copies, examine, named, report_faults

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassFolder:
    """Image files of a folder with one folder per class.

    Attributes
    ----------
    path
        The folder.
    files
        Paths, sorted by class and name, whatever the order of the file system.
    labels
        Number of the class of each file.
    names
        Names of the classes.
    """

    path: Path
    files: list[str]
    labels: list[int]
    names: list[str]

    def without(self, positions: set[int]) -> ClassFolder:
        """Leave out some files, and then the classes that have no file left."""
        left = [i for i in range(len(self.files)) if i not in positions]
        used = sorted({self.labels[i] for i in left})
        number = {label: place for place, label in enumerate(used)}
        return ClassFolder(
            self.path, [self.files[i] for i in left], [number[self.labels[i]] for i in left], [self.names[k] for k in used]
        )


def examined(parts: Sequence[ClassFolder], *, skip: bool) -> list[ClassFolder]:
    """Examine the files of a training part and perhaps of a test part before they are used.

    Parameters
    ----------
    parts
        Training part, and perhaps the test part.
    skip
        Whether unreadable files, classes that are too small to be split, and copies of test images in the training part are
        left out.

    Raises
    ------
    DataError
        If files are unreadable and not left out, or all are.
    """
    found = [examine(part.files, str(part.path)) for part in parts]
    report_faults(
        [(part.files[i], why) for part, each in zip(parts, found, strict=True) for i, why in each.faults.items()],
        skip=skip,
    )
    for part, each in zip(parts, found, strict=True):
        if each.links:
            links = named([part.files[i] for i in each.links])
            _logger.info('%s: %d files are links, and are read where they lead: %s.', part.path, len(each.links), links)
    left_out = [set(each.faults) for each in found]
    if len(parts) == 2:
        left_out[0] |= _copies_of_test_images(parts, (found[0], found[1]), skip=skip)
    kept = [part.without(positions) for part, positions in zip(parts, left_out, strict=True)]
    _usable(kept[0])
    left_out = too_small(kept, parts[0].names, skip=skip)
    return [part.without(positions) for part, positions in zip(kept, left_out, strict=True)]


def too_small(parts: Sequence[ClassFolder], before: Sequence[str], *, skip: bool) -> list[set[int]]:
    """Warn about classes that are too small for two halves; return the positions of images to leave out, if wanted.

    These are training images of such classes, and test images of classes that the training part has no more.

    Parameters
    ----------
    parts
        Training part, and perhaps the test part.
    before
        Classes that the training part had at first.
    skip
        Whether they are left out.
    """
    train = parts[0]
    counts = np.bincount(train.labels, minlength=len(train.names))
    small = [name for name, count in zip(train.names, counts, strict=True) if count < 2]
    if len(train.names) - len(small) < 2:
        small = []
    if small:
        done = 'are left out' if skip else 'cannot be split; add some, remove the classes, or set data.on_error: skip'
        _logger.warning('%s: classes with a single image %s: %s.', train.path, done, named(small))
    gone = set(before) - (set(train.names) - set(small))
    return [
        {i for i, k in enumerate(part.labels) if part.names[k] in classes} if skip else set()
        for part, classes in zip(parts, (small, gone), strict=False)
    ]


def leave_out(part: ClassFolder, faults: dict[int, str], *, skip: bool) -> ClassFolder:
    """Leave out unreadable files, position -> reason, that only their decoding has shown.

    Raises
    ------
    DataError
        If they are not to be skipped, or all files are unreadable.
    """
    report_faults([(part.files[position], why) for position, why in faults.items()], skip=skip)
    return _usable(part.without(set(faults)))


def _usable(part: ClassFolder) -> ClassFolder:
    if not part.files:
        raise DataError(f'data folder {part.path} has no images that can be used; see the warnings above.')
    return part


def _copies_of_test_images(parts: Sequence[ClassFolder], found: Any, *, skip: bool) -> set[int]:
    """Warn about training images that are test images as well; return their positions if they are to be left out."""
    train, test = parts
    pairs = copies(train.files, test.files, found)
    if pairs:
        listed = named([f'{train.files[one]} = {test.files[other]}' for one, other in pairs])
        done = 'are left out of the training' if skip else 'make the test too good; remove them, or set data.on_error: skip'
        _logger.warning('%d training images are test images as well, and %s: %s.', len(pairs), done, listed)
    return {one for one, _ in pairs} if skip else set()
