"""Tasks from torch datasets that a user's function makes: their images are read where they are used."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from ..errors import REFUSALS, DataError, reason
from ..utils.importing import imported
from ..utils.progress import tracked
from .batches import as_tensor
from .class_names import class_names
from .image_folder import IMAGE_SIZE
from .image_reading import square_of
from .lazy import CACHE_MB, AnyImages, LazyImages
from .resizing import resize_images
from .source import Setting, Source
from .task import Task, as_labels, checked_task, numbered_classes

_logger = logging.getLogger(__name__)

LABELS = ('targets', 'labels', '_labels')
"""Attributes in which the datasets of torchvision and others keep the classes of all samples."""


@dataclass(frozen=True)
class DatasetImages:
    """Reader of the images of a torch dataset, as PIL images, arrays or tensors.

    Attributes
    ----------
    dataset
        Dataset with a length, whose samples are pairs of an image and a class.
    labels
        Classes of the samples, with which those that are given are compared.
    shape
        Shape to which images are brought, ``(channels, side, side)``.
    dtype
        Type of the pixels, uint8 or float32.
    """

    dataset: Any
    labels: Tensor
    shape: tuple[int, int, int]
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.dataset)

    def adapted(self, channels: int, side: int) -> DatasetImages:
        """Return a reader of the same images in another shape."""
        if channels != 1 and self.shape[0] not in (1, channels):
            raise ValueError(f'{self.shape[0]} channels cannot become {channels}.')
        is_averaged = channels < self.shape[0]
        return replace(self, shape=(channels, side, side), dtype=torch.float32 if is_averaged else self.dtype)

    def read(self, position: int) -> Tensor:
        """Return one image; raise an error if its class is another one than the dataset keeps for it."""
        kind, known = type(self.dataset).__name__, int(self.labels[position])
        try:
            sample = self.dataset[position]
            label = _class_of(sample[1])
        except (*REFUSALS, OSError) as error:  # a user's dataset may raise anything
            raise DataError(f'sample {position} of the {kind} cannot be read ({reason(error)}).') from error
        if label != known:
            raise DataError(
                f'sample {position} of the {kind} has the class {label}, and its {" or ".join(LABELS)} say {known}; let '
                'these hold the classes that it gives.'
            )
        image = _image(sample[0], self.shape[1], f'sample {position}')
        if image.is_floating_point() and not self.dtype.is_floating_point:
            raise DataError(f'sample {position} has an image of floating-point numbers, and sample 0 one of whole numbers.')
        return resize_images(image[None], *self.shape[:2])[0].to(self.dtype)


def _image(image: Any, side: int, name: str) -> Tensor:
    """Return an image with the channels first, as uint8 or float32; a PIL image is cropped and resized as a file is."""
    if isinstance(image, Image.Image):
        return square_of(image.copy(), side)  # which turns it upright in place, and the dataset may keep it
    try:
        x = as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(image).__name__
        raise DataError(f'{name} has an image of type {kind}; needed is a PIL image, an array or a tensor.') from error
    x = x[None] if x.ndim == 2 else x
    if x.ndim == 3 and x.shape[0] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.permute(2, 0, 1)
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        raise DataError(f'{name} has an image of shape {tuple(x.shape)}; needed are two dimensions, and 1 or 3 channels.')
    return x if x.dtype == torch.uint8 else x.float()


def labels_of(dataset: Any, name: str) -> Tensor:
    """Return the classes of all samples of a dataset, without reading its images if it keeps them in an attribute."""
    found = kept_labels(dataset, name)
    return _read_labels(dataset, name) if found is None else found


def kept_labels(dataset: Any, name: str) -> Tensor | None:
    """Return the classes of all samples that a dataset keeps; None where it keeps none, or changes them.

    Raises
    ------
    DataError
        If what it keeps is not one whole number per sample.
    """
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return as_labels(dataset.tensors[1].numpy(), name)
    if isinstance(dataset, Subset):
        found = kept_labels(dataset.dataset, name)
        return None if found is None else found[torch.as_tensor(dataset.indices, dtype=torch.long)]
    if isinstance(dataset, ConcatDataset):
        parts = [kept_labels(part, name) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat(cast(Any, parts))
    found = None if getattr(dataset, 'target_transform', None) is not None else _attribute(dataset)
    return None if found is None else as_labels(found, name)


def _read_labels(dataset: Any, name: str) -> Tensor:
    _logger.warning('%s has no attribute %s with its classes, so all samples are read for them.', name, ' or '.join(LABELS))
    numbers = tracked(range(len(dataset)), f'classes of {name}')
    return as_labels(np.asarray([_class_of(dataset[number][1]) for number in numbers]), name)


def _class_of(label: Any) -> int:
    if int(label) != float(label):
        raise ValueError(f'there is the label {label}')
    return int(label)


def _attribute(dataset: Any) -> np.ndarray | None:
    """Return the classes that a dataset keeps in an attribute; None if it keeps none."""
    for attribute in LABELS:
        found = getattr(dataset, attribute, None)
        if isinstance(found, Sized) and len(found) == len(dataset):
            return np.asarray(found)
    samples = getattr(dataset, '_samples', None)  # of some datasets of torchvision: pairs of a path and a class
    if isinstance(samples, list) and all(isinstance(each, tuple) and len(each) == 2 for each in samples):
        return np.asarray([label for _, label in samples])
    return None


def from_dataset(dataset: Any, name: str, side: int, cache_mb: float) -> tuple[AnyImages, Tensor, list[str]]:
    """Return the images, classes and names of classes of a torch dataset.

    Raises
    ------
    DataError
        If it has no length or no samples, or its samples are not pairs of an image and a class.
    """
    if not isinstance(dataset, Sized) or not hasattr(dataset, '__getitem__'):
        raise DataError(
            f'{name} is a {type(dataset).__name__} without a length or an index, by which samples could be drawn; give a '
            'map-style dataset.'
        )
    if not len(dataset):
        raise DataError(f'{name} is empty: it has no images.')
    try:
        image, label = cast(Any, dataset)[0]
        first, labels, names = _image(image, side, f'{name}, sample 0'), labels_of(dataset, name), class_names(dataset)
        if _class_of(label) != int(labels[0]):  # a dataset may give others than it keeps
            labels = _read_labels(dataset, name)
            names = names if len(names) == len(labels.unique()) else []
    except DataError:
        raise
    except (*REFUSALS, OSError) as error:
        raise DataError(f'{name} gives no pairs of an image and a whole number ({reason(error)}).') from error
    reader = DatasetImages(dataset, labels, (first.shape[0], side, side), first.dtype)
    return LazyImages(reader, cache_mb * 1e6), labels, names


def from_function(
    function: str, arguments: Mapping[str, Any] | None = None, *, side: int = IMAGE_SIZE, cache_mb: float = CACHE_MB
) -> Task:
    """Read a task from what a function of the user returns.

    Parameters
    ----------
    function
        ``package.module:function``; it returns a torch dataset with a length, a pair of one for training and one for
        testing, or a :class:`~nni_warmstart.data.Task`.
    arguments
        Keyword arguments of the function.
    side
        Image size in pixels.
    cache_mb
        Megabytes of images that are kept in memory. A larger set is read while it is used.

    Raises
    ------
    ConfigError
        If there is no such function.
    DataError
        If it fails, or returns something else.
    """
    call = imported(function, 'data.python.function')
    try:
        found = call(**(arguments or {}))
    except Exception as error:  # a user's function may raise anything
        raise DataError(f'{function} fails: {type(error).__name__}: {reason(error)}') from error
    if isinstance(found, Task):
        return checked_task(found.name, found.train_x, found.train_y, found.test_x, found.test_y, found.class_names)
    parts = found if isinstance(found, tuple) and len(found) == 2 else (found,)
    return from_parts(parts, function.rpartition(':')[2], side, cache_mb)


def from_parts(parts: Iterable[Any], name: str, side: int, cache_mb: float) -> Task:
    """Return a task of a torch dataset for training, and perhaps one for testing, as :func:`from_dataset` reads them."""
    (x, y, names), *test = [from_dataset(part, name, side, cache_mb) for part in parts]
    classes = numbered_classes(y, name)
    names = names if len(names) >= len(classes) else [str(label) for label in classes]
    if not test:
        return checked_task(name, x, y, torch.empty(0, *x.shape[1:], dtype=x.dtype), y[:0], names).held()
    test_x, test_y, test_names = test[0]
    if test_names != names and {*test_y.tolist()} <= {*range(len(test_names))}:
        test_y = _renumbered(test_y, test_names, names, name)
    untested = sorted({names[label] for label in set(y.tolist()) - set(test_y.tolist())})
    if untested:
        _logger.warning('%s has no test images of %s; accuracies on it are of the others.', name, ', '.join(untested[:10]))
    return checked_task(name, x, y, test_x, test_y, names).held()


def _renumbered(labels: Tensor, names: list[str], known: list[str], name: str) -> Tensor:
    """Return classes with these names by the numbers that ``known`` has for the same names."""
    numbers = torch.tensor([known.index(each) if each in known else -1 for each in names])
    unknown = [names[label] for label in labels.unique() if numbers[label] < 0]
    if unknown:
        raise DataError(f'{name} has test classes that the training images lack: {", ".join(unknown[:10])}.')
    return numbers[labels]


SOURCE = Source(
    settings={
        'function': Setting(str, refusal='{key} = {value!r}, but it must be package.module:function.'),
        'arguments': Setting(dict, default={}),
    },
    read=lambda settings, image_size, **options: from_function(**settings, side=image_size, **options),
    title=lambda settings: str(settings.get('function')).rpartition(':')[2],
    options=('cache_mb',),
)
