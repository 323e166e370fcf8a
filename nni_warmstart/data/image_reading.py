"""Reading of image files: size and kind are checked before pixels are decoded."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import UNREADABLE, DataError, reason
from ..utils.files import open_regular
from ..utils.limits import Budget

FORMATS = ('AVIF', 'BMP', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'PCX', 'PNG', 'PPM', 'SGI', 'TGA', 'TIFF', 'WEBP')
"""Formats of Pillow that are read. Others start programs (EPS), decompress without a bound (FITS), take a second for every
million pixels (QOI), or hold no images."""

_PER_PIXEL = {'WEBP': 24, 'JPEG2000': 24, 'AVIF': 24}
"""Bytes that a pixel takes at most while it is read, as measured; see :func:`_size` for other formats."""

_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82', 'GIF': b';'}
"""Format -> bytes at the end of a complete file, where nothing but zeros follows."""

_BAND = 256  # rows that are made opaque at once
_AT_ONCE = 2**20  # pixels; the colours of larger images are resized one by one, which takes less memory


def endings() -> set[str]:
    """Return the endings of the names of image files, with the dot."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in _formats()}


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of :data:`FORMATS` that the installed Pillow reads."""
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


class UnreadableImageError(DataError):
    """Exception for an image that cannot be read, in one line even if a worker of a loader has raised it.

    Attributes
    ----------
    why
        Reason without the name of the image.
    """

    def __init__(self, message: str, why: str = '') -> None:
        super().__init__(message.strip().rpartition('\n')[2].removeprefix(f'{__name__}.{type(self).__name__}: '))
        self.why = why or str(self)


def read_image(file: str, image_size: int, *, draft: bool = False) -> Tensor:
    """Read an image upright and in colour, cropped to a centred square and resized.

    Parameters
    ----------
    file
        Path of the file.
    image_size
        Size of the result in pixels.
    draft
        Whether a photograph (JPEG) that is at least twice as large as needed is decoded at a fraction of its size, which is
        faster and changes pixels slightly.

    Returns
    -------
    Tensor
        uint8, shape ``(3, image_size, image_size)``.

    Raises
    ------
    UnreadableImageError
        If the file cannot be read, is no image, or takes more memory than the limit of a file allows.
    """
    with _explained(file), open_regular(file) as (stream, size):
        return decoded(stream, size, file, image_size, draft=draft)


def decoded(stream: BinaryIO, size: int, name: str, image_size: int, *, draft: bool = False) -> Tensor:
    """Read an image from a stream of ``size`` bytes, called ``name`` in errors, like :func:`read_image`."""
    with opened(stream, size, name) as image:
        if draft:
            image.draft(None, (image_size, image_size))
        _budget(name, size).spend(_size(image))
        return square_of(image, image_size)


def check_image(stream: BinaryIO, size: int, name: str, tail: bytes) -> None:
    """Read the header of an image, and decode it if its end looks cut, or cannot be judged by its format.

    Parameters
    ----------
    stream, size, name
        Same as in :func:`decoded`.
    tail
        End of the file.

    Raises
    ------
    UnreadableImageError
        If the image cannot be read.
    """
    with opened(stream, size, name) as image:
        _budget(name, size).spend(_size(image))
        end = _ENDS.get(image.format or '')
        if end is None or not tail.rstrip(b'\0').endswith(end) or image.mode == 'F':
            _in_colour(image)


@contextmanager
def opened(stream: BinaryIO, size: int, name: str) -> Iterator[Image.Image]:
    """Open an image, of which Pillow reads the header only, within the limit of a file; parameters as :func:`decoded`.

    Raises
    ------
    UnreadableImageError
        If it cannot be read, then or in the body of the context.
    """
    budget, before = _budget(name, size), Image.MAX_IMAGE_PIXELS
    try:
        with _explained(name), warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            Image.MAX_IMAGE_PIXELS = budget.left // 11  # for images inside of images, as in icons
            with Image.open(stream, formats=_formats()) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        budget.check(budget.left + 1)
        raise
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _budget(name: str, size: int) -> Budget:
    budget = Budget(f'image {name}', UnreadableImageError)
    budget.spend(size)
    return budget


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what Pillow raises about a damaged file into one line."""
    try:
        yield
    except (UnreadableImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except UnidentifiedImageError as error:
        raise _unreadable(name, 'it is no image of a known format') from error
    except UNREADABLE as error:
        raise _unreadable(
            name, error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        ) from error


def _unreadable(name: str, why: str) -> UnreadableImageError:
    return UnreadableImageError(f'image {name} cannot be read ({why}); repair or remove it.', why)


def square_of(image: Image.Image, image_size: int) -> Tensor:
    """Return an image upright and in colour, cropped to a centred square and resized, as uint8."""
    colour = _in_colour(image)
    is_small = colour.width * colour.height <= _AT_ONCE
    bands = [colour] if is_small else (colour.getchannel(index) for index in range(3))
    return torch.cat([_resized(_squared(np.array(band)), image_size) for band in bands])


def _squared(pixels: np.ndarray) -> np.ndarray:
    """Return the centred square of an image, shape ``(height, width, ...)``, as a view."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    return pixels[top : top + side, left : left + side]


def _resized(pixels: np.ndarray, image_size: int) -> Tensor:
    """Return an image, shape ``(side, side)`` or ``(side, side, 3)``, with its channels first and resized."""
    x = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)
    if x.shape[-1] == image_size:
        return x.contiguous()
    size = (image_size, image_size)
    return F.interpolate(x.float()[None], size, mode='bilinear', antialias=True, align_corners=False)[0].round().byte()


def _size(image: Image.Image) -> int:
    """Return the bytes that reading an image takes at most, or a tile of it, which may be larger."""
    pixels = image.width * image.height
    tags: Any = getattr(image, 'tag_v2', {})
    if 322 in tags and 323 in tags:  # width and height of the tiles of a TIFF
        pixels = max(pixels, int(tags[322]) * int(tags[323]))
    is_plain = image.mode == 'RGB' and 'transparency' not in image.info
    return pixels * _PER_PIXEL.get(image.format or '', 11 if is_plain else 15)


def _in_colour(image: Image.Image) -> Image.Image:
    """Return an image upright, with 8 bits a colour, and white where it is transparent."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits')
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f'its pixels go from {values.min()} to {values.max()}: save it with 8 or 16 bits')
        few = image.mode == 'I' and values.max() < 256  # 8-bit values stored in 32 bits
        grey = (values if few else values // 257).astype(np.uint8)
        if 'transparency' in image.info:
            grey[values == image.info['transparency']] = 255
        image = Image.fromarray(grey)
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        return _on_white(image)
    image.load()
    return image if image.mode == 'RGB' else image.convert('RGB')


def _on_white(image: Image.Image) -> Image.Image:
    colour = Image.new('RGB', image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert('RGBA')
        colour.paste(Image.alpha_composite(Image.new('RGBA', band.size, 'white'), band).convert('RGB'), (0, top))
    return colour
