"""Pictures in class folders, read as they look."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import functional as transforms

from .errors import UNREADABLE, DataError, reason

_logger = logging.getLogger(__name__)


def read_folder(path: Path, side: int) -> tuple[Tensor, Tensor, list[str]]:
    """Pictures, classes and their names of one folder per class.

    Parameters
    ----------
    path
        Its folders are the classes, in the order of their names; what is hidden counts for nothing.
    side
        To which pictures are brought, cut to a centred square first.

    Returns
    -------
    tuple
        Pictures in colour, uint8, shape ``(n, 3, side, side)``; classes, shape ``(n,)``; names.

    Raises
    ------
    DataError
        If there are no pictures, or one cannot be read.
    """
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    ignored: list[str] = []

    class Visible(torchvision.datasets.ImageFolder):
        """Without hidden folders, such as those of a notebook or of version control."""

        def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
            names = [name for name in super().find_classes(directory)[0] if not name.startswith('.')]
            return names, {name: index for index, name in enumerate(names)}

    def is_picture(file: str) -> bool:
        if any(part.startswith('.') for part in Path(file).relative_to(path).parts):
            return False
        known = Path(file).suffix.lower() in endings
        if not known:
            ignored.append(file)
        return known

    def read(file: str) -> Tensor:
        try:
            with Image.open(file) as picture:
                colour = _in_colour(picture)
        except (*UNREADABLE, Image.DecompressionBombError) as error:
            raise DataError(f'picture {file} cannot be read ({reason(error)}); repair or remove it.') from error
        square = transforms.center_crop(transforms.pil_to_tensor(colour), [min(colour.size)] * 2)
        return transforms.resize(square, [side, side], antialias=True)

    try:
        folder = Visible(str(path), is_valid_file=is_picture)
    except FileNotFoundError as error:
        raise DataError(f'data folder {path} has no pictures in class folders: {error}') from error
    if ignored:
        _logger.warning('%s: %d files are no pictures by their ending, such as %s.', path, len(ignored), ignored[0])
    x = torch.stack([read(file) for file, _ in folder.samples])
    return x, torch.tensor([label for _, label in folder.samples]), list(folder.classes)


def _in_colour(picture: Any) -> Any:
    """Upright and of 8 bits; what is transparent is white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == 'F':
        raise ValueError('its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits')
    if picture.mode.startswith('I'):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f'its pixels go from {values.min()} to {values.max()}: save it with 8 or 16 bits')
        few = picture.mode == 'I' and values.max() < 256  # 8 bits in the room of 32
        picture = Image.fromarray((values if few else values // 257).astype(np.uint8))
    if picture.mode in ('RGBA', 'LA', 'PA') or 'transparency' in picture.info:
        picture = picture.convert('RGBA')
        picture = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture)
    return picture.convert('RGB')
