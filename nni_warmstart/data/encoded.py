"""Reader of encoded images: files of a folder, of an archive, or of the rows of a table."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .image_reading import read_image
from .resizing import resize_images


class Files(Protocol):
    """Image files by their number."""

    def __len__(self) -> int: ...

    def read(self, position: int, image_size: int, *, draft: bool) -> Tensor:
        """Read an image as :func:`~nni_warmstart.data.image_reading.read_image` does."""
        ...


class Paths:
    """Image files below one folder, whose paths take few bytes, which worker processes share."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        relative = [os.fsencode(os.path.relpath(path, root)) for path in paths]
        self.root = str(root)
        self._ends = np.cumsum([0, *map(len, relative)])
        self._joined = np.frombuffer(b''.join(relative), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position: int) -> str:
        """Return the path of a file."""
        start, end = self._ends[position : position + 2]
        return os.path.join(self.root, os.fsdecode(self._joined[start:end].tobytes()))

    def read(self, position: int, image_size: int, *, draft: bool) -> Tensor:
        """Read an image."""
        return read_image(self[position], image_size, draft=draft)


@dataclass(frozen=True)
class EncodedImages:
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
        Whether photographs are decoded at a fraction of their size; see
        :func:`~nni_warmstart.data.image_reading.read_image`.
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

    def adapted(self, channels: int, side: int) -> EncodedImages:
        """Return a reader of the same files at another size, in grey or in colour."""
        if channels not in (1, 3):
            raise ValueError(f'3 channels cannot become {channels}.')
        return replace(self, channels=channels, side=side)

    def read(self, position: int) -> Tensor:
        """Return one image; raise an UnreadableImageError if the file is damaged."""
        square = self.files.read(position, self.side, draft=self.draft)
        return square if self.channels == 3 else resize_images(square[None], self.channels, self.side)[0]
