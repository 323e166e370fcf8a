"""Fingerprints of labelled data, by which a run that goes on knows whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from .lazy import AnyImages, LazyImages
from .splits import Images
from .task import Task

MOST_BYTES = 32 * 2**20
"""Largest number of bytes of a tensor that are read, which takes a tenth of a second.

Of a larger tensor, rows at equal distances are read, so that an exchange of single images of a large dataset may go
unnoticed, but not another order, number or size of them.
"""


MOST_IMAGES = 16
"""Number of images that are read of a dataset that is not in memory."""


def fingerprint(task: Task) -> dict[str, str]:
    """Return type, shape and hash of every part of a task."""
    return {
        'training images': of_images(task.train_x),
        'training labels': of_tensor(task.train_y),
        'test images': of_images(task.test_x),
        'test labels': of_tensor(task.test_y),
        'class names': f'{len(task.class_names)} {_hash(repr(tuple(task.class_names)).encode())}',
    }


def of_images(images: AnyImages) -> str:
    """Return the fingerprint of images as :func:`of_tensor`; of lazy ones, at most :data:`MOST_IMAGES` are read."""
    if not isinstance(images, LazyImages):
        return of_tensor(images)
    some = images[torch.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES), dtype=torch.float64).long()]
    kind, _, content = of_tensor(some).split()
    return f'{kind} {_shape(images.shape)} {content}'


def of_tensor(tensor: Tensor) -> str:
    """Return type, shape and hash of a tensor, 'uint8 24x3x8x8 9f86d081884c'; at most :data:`MOST_BYTES` are read."""
    rows = tensor.detach().flatten(1) if tensor.ndim > 1 else tensor.detach().reshape(-1, 1)
    size = rows.element_size()
    fitting = max(1, MOST_BYTES // max(1, size * rows.shape[1]))
    if len(rows) > fitting:
        rows = rows[torch.linspace(0, len(rows) - 1, fitting, dtype=torch.float64).long().to(rows.device)]
    content = rows[:, : MOST_BYTES // size].contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return f'{str(tensor.dtype).removeprefix("torch.")} {_shape(tensor.shape)} {_hash(content)}'


def of_dataset(dataset: Any) -> str:
    """Return the fingerprint of a torch dataset: of its content where it holds tensors, else of its class and length.

    No sample is read, since that may draw random numbers.
    """
    if isinstance(dataset, Images):
        return f'{of_images(dataset.x)}, {of_tensor(dataset.y)}'
    try:
        if isinstance(dataset, TensorDataset):
            return ', '.join(map(of_tensor, dataset.tensors))
        if isinstance(dataset, Subset):
            return f'{of_tensor(torch.as_tensor(dataset.indices))} of {of_dataset(dataset.dataset)}'
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        pass  # sparse tensors, positions that are no numbers
    try:
        return f'{type(dataset).__name__} of {len(dataset)}'
    except (TypeError, NotImplementedError):  # an iterable dataset
        return type(dataset).__name__


def _shape(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape)) or 'scalar'


def _hash(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()
