"""Tasks from folders with one folder of images per class."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from .image_files import entries_of, image_files
from .image_reading import endings, read_image
from .memory import check_fits
from .source import PATH, Source
from .task import Task, checked_task

_logger = logging.getLogger(__name__)

PARTS = {'test', 'testing', 'train', 'training', 'val', 'valid', 'validation'}
"""Names of folders that are parts of a dataset, not its classes, unless there are others beside them."""


IMAGE_SIZE = 64
"""Default image size in pixels."""


def from_folder(path: str | Path, *, side: int = IMAGE_SIZE) -> Task:
    """Read a task from images in ``path/CLASS/*`` or in ``path/train/CLASS/*`` and ``path/test/CLASS/*``.

    Images are cropped to a centred square and resized to ``side`` by ``side`` pixels, in colour.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isdir(path):
        raise DataError(f'data folder {path} {"is no folder" if os.path.lexists(path) else "does not exist"}.')
    beside = [each.name for each in entries_of(str(path)) if each.is_dir()]
    has_split = (path / 'train').is_dir()
    if not has_split and beside and PARTS.issuperset(name.lower() for name in beside):
        raise DataError(f'{path} has {", ".join(beside)} and no train/; call the folder of the training images train.')
    if has_split:
        unread = [name for name in beside if name not in ('train', 'test')]
        if unread:
            _logger.warning('%s: beside train/ and test/ nothing is read: not %s.', path, ', '.join(unread))
    train_x, train_y, names = read_folder(path / 'train' if has_split else path, side)
    test_x, test_y = train_x[:0], train_y[:0]
    if (path / 'test').is_dir() and has_split:
        test_x, test_y, test_names = read_folder(path / 'test', side)
        unknown = set(test_names) - set(names)
        if unknown:
            raise DataError(f'{path / "test"} has classes that {path / "train"} lacks: {", ".join(sorted(unknown))}.')
        test_y = torch.tensor([names.index(test_names[label]) for label in test_y.tolist()], dtype=torch.long)
    return checked_task(path.name, train_x, train_y, test_x, test_y, names)


def read_folder(path: Path, image_size: int) -> tuple[Tensor, Tensor, list[str]]:
    """Read images, classes and their names from one folder per class.

    Parameters
    ----------
    path
        Folder whose subfolders are the classes, in the order of their names; hidden ones are ignored.
    image_size
        Size in pixels to which images are resized, cropped to a centred square first.

    Returns
    -------
    tuple
        Images in colour, uint8, shape ``(n, 3, image_size, image_size)``; classes, shape ``(n,)``; names.

    Raises
    ------
    DataError
        If there are no images, one cannot be read, or they do not fit into memory.
    """
    files, names = image_files(path, endings())
    number = len(files)
    what = f'data folder {path}, {number} images at {image_size} x {image_size} pixels,'
    check_fits(what, 3 * image_size**2 * (number + 8))  # resizing takes as much as 8 images
    x = torch.empty(number, 3, image_size, image_size, dtype=torch.uint8)
    for index, (file, _) in enumerate(files):
        x[index] = read_image(file, image_size)
    return x, torch.tensor([label for _, label in files]), names


SOURCE = Source(
    settings={'path': PATH},
    read=lambda settings, image_size: from_folder(settings['path'], side=image_size),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    recognises=os.path.isdir,
)
