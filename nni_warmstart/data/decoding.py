"""Image files in any format that Pillow reads, decoded to tensors of one shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import functional as transforms

from ..errors import UNREADABLE, DataError, reason
from .resizing import resize_images

FAULTS = (*UNREADABLE, Image.DecompressionBombError)
"""Exceptions that Pillow raises for damaged files."""


class UnreadableImageError(DataError):
    """Exception for an image that cannot be read, in one line even if a worker of a loader has raised it."""

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rpartition('\n')[2].removeprefix(f'{__name__}.UnreadableImageError: '))


class Files(Protocol):
    """Image files by their number."""

    def __len__(self) -> int: ...

    def open(self, position: int) -> str | BinaryIO:
        """Return the path of a file, or its open content."""
        ...

    def name(self, position: int) -> str:
        """Return the name of a file in messages."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Reader of image files: upright, in colour, cropped to a centred square, and resized.

    Attributes
    ----------
    files
        Files of the images.
    side
        Size of the images in pixels.
    channels
        1 for the average of the colours, or 3.
    draft
        Whether photographs (JPEG) that are at least twice as large as needed are decoded at a fraction of their size, which
        is several times faster and changes pixels slightly.
    """

    files: Files
    side: int
    channels: int = 3
    draft: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image."""
        return self.channels, self.side, self.side

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return torch.float32 if self.channels == 1 else torch.uint8

    def __len__(self) -> int:
        return len(self.files)

    def adapted(self, channels: int, side: int) -> ImageFiles:
        """Return a reader of the same files at another size, in grey or in colour."""
        if channels not in (1, 3):
            raise ValueError(f'3 channels cannot become {channels}.')
        return replace(self, channels=channels, side=side)

    def read(self, position: int) -> Tensor:
        """Return one image.

        Raises
        ------
        UnreadableImageError
            If the file is damaged.
        """
        try:
            with Image.open(self.files.open(position)) as image:
                if self.draft:
                    image.draft(None, (self.side, self.side))
                square = centred_square(in_colour(image), self.side)
        except FAULTS as error:
            raise UnreadableImageError(
                f'image {self.files.name(position)} cannot be read ({reason(error)}); repair or remove it.'
            ) from error
        return square if self.channels == 3 else resize_images(square[None], self.channels, self.side)[0]


def centred_square(image: Image.Image, side: int) -> Tensor:
    """Return the centred square of an image, resized to ``side`` pixels, shape ``(channels, side, side)``, uint8."""
    square = transforms.center_crop(transforms.pil_to_tensor(image), [min(image.size)] * 2)
    return transforms.resize(square, [side, side], antialias=True)


def in_colour(image: Any) -> Any:
    """Return an image upright, with 8 bits a colour, and white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode == 'F':
        raise ValueError(FLOATING)
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


FLOATING = 'its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits'
"""Reason why an image with pixels of that type cannot be read."""
