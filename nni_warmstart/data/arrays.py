"""Reader of images in an array on disk, of which only those that are asked for are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .resizing import resize_images


@dataclass(frozen=True)
class MappedArray:
    """Array in a file, mapped into memory by every process that reads it.

    Attributes
    ----------
    path
        File.
    offset
        Bytes before the array.
    shape, dtype
        Shape and type of the array, in C order.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @cached_property
    def values(self) -> np.ndarray:
        """The array itself."""
        return np.memmap(self.path, self.dtype, 'r', self.offset, self.shape)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key != 'values'}


@dataclass(frozen=True)
class ArrayImages:
    """Reader of images ``(n, height, width, channels)`` in a file.

    Attributes
    ----------
    array
        Images.
    form
        Channels and size in pixels to which they are brought; None for those of the array.
    """

    array: MappedArray
    form: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image."""
        _, height, width, channels = self.array.shape
        return (channels, height, width) if self.form is None else (self.form[0], self.form[1], self.form[1])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        is_averaged = self.shape[0] < self.array.shape[-1]
        return torch.uint8 if self.array.dtype == np.uint8 and not is_averaged else torch.float32

    def __len__(self) -> int:
        return self.array.shape[0]

    def adapted(self, channels: int, side: int) -> ArrayImages:
        """Return a reader of the same images in another shape."""
        if channels != 1 and self.array.shape[-1] not in (1, channels):
            raise ValueError(f'{self.array.shape[-1]} channels cannot become {channels}.')
        return replace(self, form=(channels, side))

    def read(self, position: int) -> Tensor:
        """Return one image."""
        dtype = np.uint8 if self.array.dtype == np.uint8 else np.float32
        x = torch.from_numpy(np.array(self.array.values[position].transpose(2, 0, 1), dtype))
        return x if self.form is None else resize_images(x[None], *self.form)[0]
