"""Task: a labelled image-classification task, in memory or read while it is used."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .lazy import AnyImages, LazyImages
from .memory import check_fits
from .resizing import resize_images

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Labelled image-classification task.

    Attributes
    ----------
    name
        Name of the task in cards and reports.
    train_x, test_x
        Images, shape ``(n, channels, image_size, image_size)``, uint8 or floating point; ``test_x`` may be empty. Large sets
        are :class:`~nni_warmstart.data.lazy.LazyImages`, which have shape, type and length of a tensor, and are read where
        they are indexed.
    train_y, test_y
        Classes, int64, shape ``(n,)``, in ``0 .. len(class_names) - 1``.
    class_names
        Name of each class.
    """

    name: str
    train_x: AnyImages
    train_y: Tensor
    test_x: AnyImages
    test_y: Tensor
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def adapted(self, channels: int, side: int) -> Task:
        """Return the same task with images of ``channels`` channels and ``side`` by ``side`` pixels.

        Grey images are repeated to colour, colour is averaged to grey; sizes change by antialiased bilinear interpolation.

        Raises
        ------
        DataError
            If the number of channels is neither 1 nor ``channels``, and ``channels`` is not 1, or the images do not fit into
            memory.
        """
        resized = []
        self._check_fits(channels, side)
        for x in (self.train_x, self.test_x):
            try:
                resized.append(
                    resize_images(x, channels, side).contiguous() if isinstance(x, Tensor) else x.adapted(channels, side)
                )
            except ValueError as error:
                raise DataError(f'{self.name} has {x.shape[1]} channels and the space takes {channels}.') from error
            except (RuntimeError, MemoryError) as error:
                raise DataError(
                    f'{self.name} does not fit into memory at {side} x {side} pixels: {len(x)} images.'
                ) from error
        return replace(self, train_x=resized[0], test_x=resized[1]).held()

    def held(self) -> Task:
        """Return the same task with its lazy images in memory, if they fit into their cache."""
        lazy = [x for x in (self.train_x, self.test_x) if isinstance(x, LazyImages)]
        if sum(x.nbytes for x in lazy) > min((x.kept.capacity for x in lazy), default=0):
            return self
        train_x, test_x = (
            x.loaded(f'images of {self.name}') if isinstance(x, LazyImages) else x for x in (self.train_x, self.test_x)
        )
        return replace(self, train_x=train_x, test_x=test_x)

    def _check_fits(self, channels: int, side: int) -> None:
        """Raise an error if images of another shape do not fit into memory."""
        changed = [
            x for x in (self.train_x, self.test_x) if isinstance(x, Tensor) and tuple(x.shape[1:]) != (channels, side, side)
        ]
        size = sum(len(x) * (1 if x.dtype == torch.uint8 and x.shape[1] <= channels else 4) for x in changed)
        check_fits(f'{self.name} at {side} x {side} pixels', size * channels * side**2)


def checked_task(name: str, train_x: AnyImages, train_y: Tensor, test_x: AnyImages, test_y: Tensor, names: Any) -> Task:
    """Make a task; raise an error for data that a search cannot use."""
    if len(train_x) == 0:
        raise DataError(f'{name} is empty: it has no training images.')
    for part, x, y in (('training', train_x, train_y), ('test', test_x, test_y)):
        if len(x) != len(y):
            raise DataError(f'{name} has {len(x)} {part} images and {len(y)} labels; there must be one label each.')
        if isinstance(x, Tensor) and x.is_floating_point() and not torch.isfinite(x).all():
            bad = int((~torch.isfinite(x).flatten(1).all(1)).sum())
            raise DataError(f'{name} has NaN or infinite pixels in {bad} {part} images; remove or repair them.')
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(names)):
            raise DataError(
                f'{name} has {part} labels from {int(y.min())} to {int(y.max())}, but {len(names)} class names; labels '
                'must run from 0 to classes - 1.'
            )
    if len(test_x) and train_x.dtype != test_x.dtype:
        _logger.warning(
            '%s has training images of type %s and test images of type %s; their pixels must have the same units.',
            name, train_x.dtype, test_x.dtype,
        )  # fmt: skip
    if len(train_y.unique()) < 2:
        raise DataError(f'{name} has one class; a classification needs at least two.')
    shared = _in_both(train_x, test_x)
    if shared:
        _logger.warning(
            '%s: %d of %d test images are training images, too, so the test accuracy will be too high; remove them from '
            'one of the two.', name, shared, len(test_x),
        )  # fmt: skip
    return Task(name, train_x, train_y, test_x, test_y, tuple(names))


def _in_both(train_x: AnyImages, test_x: AnyImages) -> int:
    """Return the number of test images that equal a training image in every pixel."""
    if not (isinstance(train_x, Tensor) and isinstance(test_x, Tensor)):
        return 0  # sources of lazy images compare what they read
    if not len(test_x) or train_x.shape[1:] != test_x.shape[1:]:
        return 0
    known = set(map(_hash, train_x))
    return sum(_hash(image) in known for image in test_x)


def _hash(image: Tensor) -> int:
    """Return a hash of the bytes of an image of any type, on any device."""
    return hash(image.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


def numbered_classes(y: Tensor, origin: Any) -> range:
    """Return the numbers of the classes, for labels without class names."""
    classes = int(y.max()) + 1 if len(y) else 0
    if classes > len(y):  # a class needs an image, and a label like 10**12 would make as many names
        raise DataError(
            f'{origin} has labels up to {classes - 1} and {len(y)} images; labels must run from 0 to classes - 1.'
        )
    return range(classes)


def as_labels(y: np.ndarray, origin: Any) -> Tensor:
    """Return labels ``(n,)`` as int64; raise an error, which names ``origin``, unless they are one whole number each."""
    check_labels(y.shape, y.dtype, origin)
    return torch.from_numpy(np.ascontiguousarray(y, dtype=np.int64))


def check_labels(shape: tuple[int, ...], dtype: np.dtype, origin: Any) -> None:
    """Raise an error, which names ``origin``, for labels that are not one whole number per image."""
    if len(shape) != 1 or dtype.kind not in 'iu':
        raise DataError(f'{origin}: labels have shape {shape} and type {dtype}; they must be whole numbers, one per image.')


def channels_first(x: np.ndarray, origin: Any) -> Tensor:
    """Return images ``(n, height, width, channels)`` as ``(n, channels, height, width)``, uint8 or float32."""
    check_images(x.shape, x.dtype, origin)
    with np.errstate(over='ignore'):  # values that become infinite are refused later, in one line
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.uint8 if x.dtype == np.uint8 else np.float32)
    return torch.from_numpy(x)


def check_images(shape: tuple[int, ...], dtype: np.dtype, origin: Any) -> None:
    """Raise an error, which names ``origin``, for images that are not ``(n, height, width, channels)`` in numbers."""
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise DataError(
            f'{origin}: images have shape {shape}; needed is (n, height, width, channels) with 1 or 3 channels last.'
        )
    if dtype.kind not in 'buif' or 0 in shape[1:]:
        raise DataError(f'{origin}: images have shape {shape} and type {dtype}; needed are numbers, and a pixel at least.')
