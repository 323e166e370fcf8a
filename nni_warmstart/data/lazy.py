"""LazyImages: images that are read when they are needed, in place of a tensor that holds all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import DataError
from ..utils.progress import tracked
from .memory import check_fits

CACHE_MB = 512.0
"""Default size of the images that are kept in memory, in megabytes (1e6 bytes)."""


class Reader(Protocol):
    """Reads one image at a time, in any process that it is copied to.

    Attributes
    ----------
    shape
        Shape of an image, ``(channels, height, width)``.
    dtype
        Type of its pixels, uint8 or float32.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def read(self, position: int) -> Tensor:
        """Return one image, shape ``shape``."""
        ...

    def adapted(self, channels: int, side: int) -> Reader:
        """Return a reader of the same images with other channels and another size."""
        ...


class Kept:
    """Images that stay in memory once they are read, up to a number of bytes.

    Parameters
    ----------
    size
        Number of images that there are.
    capacity
        Number of bytes that may be kept.
    """

    def __init__(self, size: int, capacity: float) -> None:
        self.capacity = self.free = capacity
        self._block = torch.full((size,), -1, dtype=torch.int16)
        self._row = torch.zeros(size, dtype=torch.int32)
        self._blocks: list[Tensor] = []

    def __contains__(self, position: int) -> bool:
        return int(self._block[position]) >= 0

    def __getitem__(self, position: int) -> Tensor:
        return self._blocks[int(self._block[position])][int(self._row[position])]

    def missing(self, positions: Tensor) -> Tensor:
        """Return those of some positions whose images are not kept."""
        return positions[self._block[positions] < 0]

    def add(self, positions: Tensor, images: Tensor) -> None:
        """Keep the images of some positions; processes that are forked later share their memory."""
        self._block[positions], self._row[positions] = len(self._blocks), torch.arange(len(positions), dtype=torch.int32)
        self._blocks.append(images)
        self.free -= images.nbytes


class LazyImages:
    """Images that are read when they are needed; it has shape, type and length of the tensor that it stands for.

    Parameters
    ----------
    reader
        Reads the images.
    cache
        Number of bytes that :meth:`keep` may keep in memory.
    """

    ndim = 4

    def __init__(self, reader: Reader, cache: float = CACHE_MB * 1e6) -> None:
        self.reader, self.kept = reader, Kept(len(reader), cache)
        self.positions = torch.arange(len(reader))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor of all images, ``(n, channels, height, width)``."""
        return torch.Size((len(self), *self.reader.shape))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self.reader.dtype

    @property
    def nbytes(self) -> int:
        """Number of bytes that the tensor of all images would have."""
        return self.shape.numel() * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Check whether pixels are floating-point numbers."""
        return self.dtype.is_floating_point

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """Read one image ``(channels, height, width)``, or some as a tensor ``(n, channels, height, width)``."""
        positions = self.positions[index]
        if positions.ndim == 0:
            return self._read(int(positions))
        return self._stacked(positions)

    def subset(self, index: Tensor) -> LazyImages:
        """Return some of the images without reading them."""
        twin = object.__new__(LazyImages)
        twin.kept, twin.positions = self.kept, self.positions[index]
        among = getattr(self.reader, 'among', None)  # of readers that may give one image for another
        twin.reader = self.reader if among is None else among(twin.positions)
        return twin

    def adapted(self, channels: int, side: int) -> LazyImages:
        """Return the same images with other channels and another size in pixels, in which they will be read."""
        if self.reader.shape == (channels, side, side):
            return self
        twin = LazyImages(self.reader.adapted(channels, side), self.kept.capacity)
        twin.positions = self.positions
        return twin

    def keep(self, title: str) -> int:
        """Read the images now and keep them in memory, as far as there is room in the cache.

        Parameters
        ----------
        title
            What the images are read for, for the progress bar.

        Returns
        -------
        int
            Number of images that were read; those that had been kept before are not.
        """
        size = self.nbytes // max(len(self), 1)
        missing = self.kept.missing(self.positions)[: int(self.kept.free // max(size, 1))]
        if len(missing):
            self.kept.add(missing, self._stacked(missing, title))
        return len(missing)

    def loaded(self, title: str) -> Tensor:
        """Read all images.

        Raises
        ------
        DataError
            If they do not fit into memory.
        """
        return self._stacked(self.positions, title)

    def _read(self, position: int) -> Tensor:
        if position in self.kept:
            return self.kept[position]
        image = self.reader.read(position)
        if image.is_floating_point() and not torch.isfinite(image).all():
            raise DataError(f'image {position} has NaN or infinite pixels; remove or repair it.')
        return image

    def _stacked(self, positions: Tensor, title: str | None = None) -> Tensor:
        images = allocated((len(positions), *self.reader.shape), self.dtype, title or f'a batch of {len(positions)} images')
        rows = positions.tolist()
        for row, position in enumerate(rows if title is None else tracked(rows, title)):
            images[row] = self._read(position)
        return images


AnyImages = Tensor | LazyImages
"""Images of a task: in memory, or read when they are needed."""


def subset(x: AnyImages, index: Tensor) -> AnyImages:
    """Return the images at some positions; lazy ones stay lazy."""
    return x[index] if isinstance(x, Tensor) else x.subset(index)


def allocated(shape: Sequence[int], dtype: torch.dtype, what: str) -> Tensor:
    """Return an uninitialised tensor of images, called ``what`` in errors.

    Raises
    ------
    DataError
        If there is not enough memory for it.
    """
    size = math.prod(shape[1:]) * dtype.itemsize
    check_fits(what, size * (shape[0] + 8), 'lower data.cache_mb, or take fewer or smaller images')
    return torch.empty(*shape, dtype=dtype)  # and resizing takes as much as 8 images
