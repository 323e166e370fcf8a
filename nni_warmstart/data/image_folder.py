"""Tasks from folders with one folder of images per class."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import functional as transforms

from ..errors import UNREADABLE, DataError, reason
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
        raise DataError(f'data folder {path} does not exist.')
    beside = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith('.'))
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
        If there are no images, or one cannot be read.
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

    def read_image(file: str) -> Tensor:
        try:
            with Image.open(file) as image:
                colour = _in_colour(image)
        except (*UNREADABLE, Image.DecompressionBombError) as error:
            raise DataError(f'image {file} cannot be read ({reason(error)}); repair or remove it.') from error
        square = transforms.center_crop(transforms.pil_to_tensor(colour), [min(colour.size)] * 2)
        return transforms.resize(square, [image_size, image_size], antialias=True)

    # List the images of all classes, then read them one by one.
    try:
        folder = Visible(str(path), is_valid_file=is_image)
    except FileNotFoundError as error:
        raise DataError(f'data folder {path} has no images in class folders: {error}') from error
    if ignored:
        _logger.warning('%s: %d files are no images by their ending, such as %s.', path, len(ignored), ignored[0])
    x = torch.stack([read_image(file) for file, _ in folder.samples])
    return x, torch.tensor([label for _, label in folder.samples]), list(folder.classes)


def _in_colour(image: Any) -> Any:
    """Return an image upright, with 8 bits a colour, and white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits')
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f'its pixels go from {values.min()} to {values.max()}: save it with 8 or 16 bits')
        few = image.mode == 'I' and values.max() < 256  # 8-bit values stored in 32 bits
        image = Image.fromarray((values if few else values // 257).astype(np.uint8))
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('RGB')


SOURCE = Source(
    settings={'path': PATH},
    read=lambda settings, image_size: from_folder(settings['path'], side=image_size),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    recognises=os.path.isdir,
)
