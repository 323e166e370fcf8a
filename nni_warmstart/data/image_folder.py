"""Tasks from folders with one folder of images per class."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from ..utils.progress import tracked
from .class_folder import ClassFolder, examined, leave_out, too_small
from .encoded import EncodedImages, Paths
from .image_files import entries_of, image_files, is_folder
from .image_reading import UnreadableImageError, endings
from .lazy import CACHE_MB, LazyImages, allocated
from .replacing import Replacing
from .source import PATH, Source
from .task import Task, checked_task

_logger = logging.getLogger(__name__)

PARTS = {'test', 'testing', 'train', 'training', 'val', 'valid', 'validation'}
"""Names of folders that are parts of a dataset, not its classes, unless there are others beside them."""


IMAGE_SIZE = 64
"""Default image size in pixels."""


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
        that are test images as well. Where only decoding shows that a file is damaged, and the set is read while it is used,
        the next image of its class takes its place.

    Raises
    ------
    DataError
        If the folder has no images in class folders, or some cannot be read and are not skipped.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isdir(path):
        raise DataError(f'data folder {path} {"is no folder" if os.path.lexists(path) else "does not exist"}.')
    beside = [each.name for each in entries_of(str(path)) if is_folder(each)]
    only_parts = bool(beside) and PARTS.issuperset(name.lower() for name in beside)
    has_split = (path / 'train').is_dir() and (only_parts or not _holds_images(path / 'train'))
    if only_parts and not has_split:
        raise DataError(f'{path} has {", ".join(beside)} and no train/; call the folder of the training images train.')
    if has_split:
        unread = [name for name in beside if name not in ('train', 'test')]
        if unread:
            _logger.warning('%s: beside train/ and test/ nothing is read: not %s.', path, ', '.join(unread))
    skip, images = on_error == 'skip', []
    parts = [list_folder(path / 'train' if has_split else path, skip=skip)]
    if has_split and (path / 'test').is_dir():
        parts.append(list_folder(path / 'test', skip=skip))
    before = parts[0].names
    parts = examined(parts, skip=skip)
    is_small = sum(len(part.files) for part in parts) * 3 * side**2 <= cache_mb * 1e6
    if is_small:
        whole = parts
        images, parts = map(list, zip(*(_read(part, side, skip=skip) for part in whole), strict=True))
        left_out = too_small(parts, before, skip=skip) if parts != whole else []  # decoding has shown more damage
        for place, out in enumerate(left_out):
            images[place] = images[place][[i for i in range(len(images[place])) if i not in out]]
            parts[place] = parts[place].without(out)
    names, title = parts[0].names, os.path.basename(os.path.abspath(path))
    unknown = set(parts[-1].names) - set(names)
    if unknown:
        raise DataError(f'{path / "test"} has classes that {path / "train"} lacks: {", ".join(sorted(unknown))}.')
    untested = sorted(set(names) - set(parts[-1].names))
    if untested:
        _logger.warning(
            '%s has no images of %s; accuracies on it are of the others.', path / 'test', ', '.join(untested[:10])
        )
    numbers = {name: number for number, name in enumerate(names)}
    labels = [torch.tensor([numbers[part.names[k]] for k in part.labels], dtype=torch.long) for part in parts]
    if not is_small:
        for part, y in zip(parts, labels, strict=True):
            reader = EncodedImages(Paths(part.path, part.files), side, draft=True)
            images.append(LazyImages(Replacing(reader, y) if skip else reader, cache_mb * 1e6))
    if len(parts) == 1:
        return checked_task(title, images[0], labels[0], images[0][:0], labels[0][:0], names)
    return checked_task(title, images[0], labels[0], images[1], labels[1], names)


def _holds_images(folder: Path) -> bool:
    """Check whether a folder is one of a class, say of trains among vehicles: it holds images, and no folders."""
    inside = entries_of(str(folder))
    has_folders = any(is_folder(each) for each in inside)
    return not has_folders and any(os.path.splitext(each.name)[1].lower() in endings() for each in inside)


def _read(part: ClassFolder, side: int, *, skip: bool) -> tuple[Tensor, ClassFolder]:
    """Read all images of a folder; leave unreadable ones out, or raise one error about all of them."""
    reader = EncodedImages(Paths(part.path, part.files), side)
    what = f'data folder {part.path}, {len(reader)} images at {side} x {side} pixels,'
    x, faults = allocated((len(reader), *reader.shape), reader.dtype, what), {}
    for position in tracked(range(len(reader)), f'images of {part.path}'):
        try:
            x[position] = reader.read(position)
        except UnreadableImageError as error:
            faults[position] = error.why
    if not faults:
        return x, part
    left = leave_out(part, faults, skip=skip)
    return x[[position for position in range(len(reader)) if position not in faults]], left


def list_folder(path: Path, *, skip: bool = False) -> ClassFolder:
    """Find the images and the classes of a folder; see :func:`~nni_warmstart.data.image_files.image_files`."""
    files, names = image_files(path, endings(), skip=skip)
    return ClassFolder(path, [file for file, _ in files], [label for _, label in files], names)


SOURCE = Source(
    settings={'path': PATH},
    read=lambda settings, image_size, **options: from_folder(settings['path'], side=image_size, **options),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    recognises=os.path.isdir,
    options=('cache_mb', 'on_error'),
)
