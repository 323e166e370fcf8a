"""Tasks from folders with one folder of images per class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from PIL import Image
from torch import Tensor

from ..errors import DataError, reason
from ..utils.progress import tracked
from .class_folder import ClassFolder, examined, leave_out
from .decoding import ImageFiles, UnreadableImageError
from .lazy import CACHE_MB, AnyImages, LazyImages, allocated
from .source import PATH, Source
from .task import Task, checked_task

_logger = logging.getLogger(__name__)

PARTS = {'test', 'testing', 'train', 'training', 'val', 'valid', 'validation'}
"""Names of folders that are parts of a dataset, not its classes, unless there are others beside them."""


IMAGE_SIZE = 64
"""Default image size in pixels."""


class Paths:
    """Paths of files below one folder, in few bytes, which worker processes share."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        relative = [os.fsencode(os.path.relpath(path, root)) for path in paths]
        self.root = str(root)
        self._ends = np.cumsum([0, *map(len, relative)])
        self._joined = np.frombuffer(b''.join(relative), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def open(self, position: int) -> str:
        """Return the path of a file."""
        start, end = self._ends[position : position + 2]
        return os.path.join(self.root, os.fsdecode(self._joined[start:end].tobytes()))

    name = open


def from_folder(path: str | Path, *, side: int = IMAGE_SIZE, cache_mb: float = CACHE_MB, on_error: str = 'stop') -> Task:
    """Read a task from images in ``path/CLASS/*`` or in ``path/train/CLASS/*`` and ``path/test/CLASS/*``.

    Images are cropped to a centred square and resized to ``side`` by ``side`` pixels, in colour. First the headers of all
    files are read, so that all damaged files are found at once.

    Parameters
    ----------
    path
        Folder.
    side
        Image size in pixels.
    cache_mb
        Megabytes of images that are kept in memory. A larger set is read while it is used.
    on_error
        'stop', or 'skip' to leave out unreadable files, classes with fewer than two training images, and training images
        that are test images as well.

    Raises
    ------
    DataError
        If the folder has no images in class folders, or some cannot be read and are not skipped.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isdir(path):
        raise DataError(f'data folder {path} does not exist.')
    beside = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith('.'))
    has_split = (path / 'train').is_dir()
    if not has_split and beside and PARTS.issuperset(name.lower() for name in beside):
        raise DataError(f'{path} has {", ".join(beside)} and no train/; call the folder of the training images train.')
    if has_split:
        unread = [name for name in beside if name not in ('train', 'test')]
        if unread:
            _logger.warning('%s: beside train/ and test/ nothing is read: not %s.', path, ', '.join(unread))
    parts = [list_folder(path / 'train' if has_split else path)]
    if has_split and (path / 'test').is_dir():
        parts.append(list_folder(path / 'test'))
    parts = examined(parts, skip=on_error == 'skip')
    images: list[AnyImages] = []
    if sum(len(part.files) for part in parts) * 3 * side**2 <= cache_mb * 1e6:
        for place, part in enumerate(parts):
            x, parts[place] = _read(part, side, skip=on_error == 'skip')
            images.append(x)
    else:
        readers = [ImageFiles(Paths(part.path, part.files), side, draft=True) for part in parts]
        images += [LazyImages(reader, cache_mb * 1e6) for reader in readers]
    names = parts[0].names
    unknown = set(parts[-1].names) - set(names)
    if unknown:
        raise DataError(f'{path / "test"} has classes that {path / "train"} lacks: {", ".join(sorted(unknown))}.')
    labels = [torch.tensor([names.index(part.names[k]) for k in part.labels], dtype=torch.long) for part in parts]
    if len(parts) == 1:
        return checked_task(path.name, images[0], labels[0], images[0][:0], labels[0][:0], names)
    return checked_task(path.name, images[0], labels[0], images[1], labels[1], names)


def _read(part: ClassFolder, side: int, *, skip: bool) -> tuple[Tensor, ClassFolder]:
    """Read all images of a folder; leave unreadable ones out, or raise one error about all of them."""
    reader = ImageFiles(Paths(part.path, part.files), side)
    x, faults = allocated((len(reader), *reader.shape), reader.dtype), {}
    for position in tracked(range(len(reader)), f'images of {part.path}'):
        try:
            x[position] = reader.read(position)
        except UnreadableImageError as error:
            faults[position] = reason(error.__cause__ or error)
    if not faults:
        return x, part
    left = leave_out(part, faults, skip=skip)
    return x[[position for position in range(len(reader)) if position not in faults]], left


def list_folder(path: Path) -> ClassFolder:
    """Find the images and the classes of a folder; hidden files and folders are ignored.

    Raises
    ------
    DataError
        If there are no images.
    """
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    ignored: list[str] = []

    class Visible(torchvision.datasets.ImageFolder):
        """Folder of images that ignores hidden folders, such as those of notebooks or of version control."""

        def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
            names = [name for name in super().find_classes(directory)[0] if not name.startswith('.')]
            return names, {name: index for index, name in enumerate(names)}

    def is_image(file: str) -> bool:
        if any(part.startswith('.') for part in Path(file).relative_to(path).parts):
            return False
        known = Path(file).suffix.lower() in endings
        if not known:
            ignored.append(file)
        return known

    try:
        folder = Visible(str(path), is_valid_file=is_image)
    except FileNotFoundError as error:
        raise DataError(f'data folder {path} has no images in class folders: {error}') from error
    if ignored:
        _logger.warning('%s: %d files are no images by their ending, such as %s.', path, len(ignored), ignored[0])
    return ClassFolder(path, [file for file, _ in folder.samples], [k for _, k in folder.samples], list(folder.classes))


SOURCE = Source(
    settings={'path': PATH},
    read=lambda settings, image_size, **options: from_folder(settings['path'], side=image_size, **options),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    recognises=os.path.isdir,
    options=('cache_mb', 'on_error'),
)
