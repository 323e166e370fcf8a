"""Damaged images that only their decoding shows, each replaced by another one of its class."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from .image_reading import UnreadableImageError
from .lazy import Reader

_logger = logging.getLogger(__name__)


class Replacing:
    """Reader that gives the next image of the same class where one is damaged, the same in every process.

    Parameters
    ----------
    reader
        Reader of the images.
    labels
        Classes of the images, shape ``(n,)``; -1 for those that replace none.
    damaged
        Whether an image is known to be damaged, shape ``(n,)``, in memory that worker processes share; None for none.
    """

    def __init__(self, reader: Reader, labels: Tensor, damaged: Tensor | None = None) -> None:
        self.reader, self.labels = reader, labels
        self.damaged = torch.zeros(len(labels), dtype=torch.bool).share_memory_() if damaged is None else damaged

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image."""
        return self.reader.shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self.reader.dtype

    def __len__(self) -> int:
        return len(self.reader)

    def adapted(self, channels: int, side: int) -> Replacing:
        """Return a reader of the same images in another shape."""
        return Replacing(self.reader.adapted(channels, side), self.labels, self.damaged)

    def among(self, positions: Tensor) -> Replacing:
        """Return a reader that takes no other images than some, so that training, validation and test share none."""
        labels = torch.full_like(self.labels, -1)
        labels[positions] = self.labels[positions]
        return Replacing(self.reader, labels, self.damaged)

    def read(self, position: int) -> Tensor:
        """Return one image, or the next one of its class that can be read.

        Raises
        ------
        UnreadableImageError
            If there is none.
        """
        if not self.damaged[position]:
            found = self._read(position)
            if found is not None:
                return found
        members = (self.labels == self.labels[position]).nonzero().flatten()
        later = members > position
        for other in torch.cat([members[later], members[~later]]).tolist():
            found = None if self.damaged[other] else self._read(other)
            if found is not None:
                return found
        raise UnreadableImageError(f'none of the {len(members)} images of the class of image {position} can be read.')

    def _read(self, position: int) -> Tensor | None:
        """Return one image; note and log it if it is damaged."""
        try:
            return self.reader.read(position)
        except UnreadableImageError as error:
            self.damaged[position] = True
            count = int(self.damaged.sum())
            _logger.warning('%s The next image of its class takes its place; %d such images so far.', error, count)
            return None
