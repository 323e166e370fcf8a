"""Labelled images in any form that users have them: tasks, torch datasets, loaders, arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from ..errors import DataError, TransferError, reason
from ..utils.random import quiet_randomness
from .task import Task, as_labels, channels_first, checked_task, numbered_classes


def name_and_classes(dataset: Any) -> tuple[str, list[str]]:
    """Name and class names of data, as far as these, or what they load or are a part of, tell; torchvision's do.

    Parameters
    ----------
    dataset
        A task, a torch dataset, a loader, or the name alone.
    """
    while not hasattr(dataset, 'name') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    name = dataset if isinstance(dataset, str) else getattr(dataset, 'name', type(dataset).__name__)
    classes = getattr(dataset, 'class_names', None) or getattr(dataset, 'classes', None)
    return str(name), [str(each) for each in classes] if isinstance(classes, list | tuple) else []


def image_shape(dataset: Any) -> tuple[int, int] | None:
    """Channels and side (pixels) of square pictures, by the first of them; None of other data.

    Parameters
    ----------
    dataset
        A task, a torch dataset, a loader, or two arrays, channels first or last.
    """
    if isinstance(dataset, Task):
        shape = dataset.train_x.shape[1:]
    elif isinstance(dataset, Dataset):
        with quiet_randomness():
            pair: Any = dataset[0] if isinstance(dataset, Sized) and len(dataset) else ()
        shape = np.shape(pair[0]) if isinstance(pair, list | tuple) and len(pair) == 2 else ()
    elif isinstance(dataset, tuple):
        shape = np.shape(dataset[0])[1:]
    else:
        with quiet_randomness():
            batch = next(iter(dataset), ())
        shape = np.shape(batch[0])[1:] if isinstance(batch, list | tuple) and len(batch) == 2 else ()
    for channels, *sides in (shape, (*shape[-1:], *shape[:-1])) if len(shape) == 3 else ():
        if channels in (1, 3) and sides[0] == sides[1]:
            return int(channels), int(sides[0])
    return None


def labelled(name: str, dataset: Any) -> Task:
    """A task from labelled pictures in memory, without test pictures.

    Parameters
    ----------
    name
        Of the task; a task that is passed takes it on.
    dataset
        A task, two arrays ``(x, y)`` as :func:`from_npz` has them (channels first or last), or a torch dataset of
        ``(picture, class)``.

    Raises
    ------
    DataError
        If it is empty, has a single class, or holds no pictures of one shape with whole numbers for classes.
    """
    if isinstance(dataset, Task):
        task = dataset
        if not all(isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] in (1, 3) for x in (task.train_x, task.test_x)):
            raise DataError(f'{name} has pictures that are no tensors (n, channels, side, side) with 1 or 3 channels.')
        return checked_task(name, task.train_x, task.train_y, task.test_x, task.test_y, task.class_names)
    if not (isinstance(dataset, tuple) and len(dataset) == 2):
        if not (isinstance(dataset, Dataset) and isinstance(dataset, Sized)):
            raise DataError(f'{name} is a {type(dataset).__name__}; give a Task, a torch dataset with a length, or (x, y).')
        if not len(dataset):
            raise DataError(f'{name} is empty: it has no pictures.')
    names = name_and_classes(dataset)[1]
    try:
        if isinstance(dataset, Dataset):
            pairs = [dataset[index] for index in range(len(dataset))]  # pyright: ignore[reportArgumentType]
            dataset = np.stack([np.asarray(x) for x, _ in pairs]), np.asarray([np.asarray(y) for _, y in pairs])
        pictures, labels = np.asarray(dataset[0]), np.asarray(dataset[1])
        if pictures.dtype.kind not in 'buif':
            raise ValueError(f'pictures of type {pictures.dtype}')
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f'{name} gives no pairs of a picture and a whole number, all of one shape ({reason(error)}); add transforms.'
        ) from error
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    elif pictures.ndim == 4 and pictures.shape[-1] not in (1, 3) and pictures.shape[1] in (1, 3):  # torch's habit
        pictures = pictures.transpose(0, 2, 3, 1)
    x, y = channels_first(pictures, name), as_labels(labels, name)
    numbers = numbered_classes(y, name)
    return checked_task(name, x, y, x[:0], y[:0], names if len(names) == len(numbers) else [str(label) for label in numbers])


Labelled = Task | Dataset | Iterable[Any] | tuple[Any, Any]
"""Labelled pictures or features: a task (its training part), a torch dataset, a loader, or two arrays ``(x, y)``."""


def read_labelled(dataset: Labelled, name: str, channels: int, side: int) -> tuple[Tensor, Tensor]:
    """All of ``x`` (images brought to ``channels`` and ``side`` pixels; 0 leaves them as they are) and ``y``."""
    if isinstance(dataset, Task):
        batches: Iterable[Any] = [(dataset.train_x, dataset.train_y)]
    elif isinstance(dataset, tuple) and len(dataset) == 2:
        batches = [dataset]
    elif isinstance(dataset, Dataset):
        batches = DataLoader(dataset, batch_size=256)
    elif isinstance(dataset, Iterable):
        batches = dataset
    else:
        raise DataError(f'a dataset must be a torch dataset, a loader or two arrays (x, y), not {type(dataset).__name__}.')
    xs, ys = [], []
    with quiet_randomness(), _readable(name):
        for batch in batches:
            if not isinstance(batch, list | tuple) or len(batch) != 2 or batch[1] is None:
                raise DataError(f'{name} gives no pairs of samples and labels; distances between datasets need labels.')
            x, y = (torch.as_tensor(np.asarray(part) if not isinstance(part, Tensor) else part) for part in batch)
            if y.ndim != 1 or y.is_floating_point() or y.is_complex() or len(x) != len(y):
                raise DataError(
                    f'{name} has labels of shape {tuple(y.shape)} and type {y.dtype} for {len(x)} samples; needed is one '
                    'whole number each.'
                )
            parts = x.detach().cpu().split(1024)  # so that no large set becomes float32 at full size
            xs += parts if x.ndim == 2 else [_prepared(part, name, channels, side) for part in parts]
            ys.append(y.detach().cpu().long())
    if not ys or not sum(len(y) for y in ys):
        raise DataError(f'{name} is empty: there is nothing to sketch.')
    y = torch.cat(ys)
    if int(y.min()) < 0:
        raise DataError(
            f'{name} has the label {int(y.min())}; labels must be 0 or more (unlabelled samples cannot be used).'
        )
    return torch.cat(xs), y


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Say in one line what a dataset gives that no tensor can hold: PIL pictures, pictures of several sizes, text."""
    try:
        yield
    except DataError:
        raise
    except (TypeError, RuntimeError, ValueError) as error:
        raise DataError(
            f'{name} does not give tensors of one shape and whole numbers ({reason(error)[:200]}); add '
            'transforms (Resize, ToTensor), and number the classes.'
        ) from error


def _prepared(x: Tensor, name: str, channels: int, side: int) -> Tensor:
    """Images of ``channels`` and ``side`` pixels, float32."""
    if not side:
        return x
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.permute(0, 3, 1, 2)  # numpy's habit
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f'{name} has samples of shape {tuple(x.shape[1:])}; needed are pictures of 1 or 3 channels, or features (n, d).'
        )
    x = x.float()
    if x.shape[1] != channels:
        x = x.expand(-1, 3, -1, -1) if channels == 3 else x.mean(1, keepdim=True)
    return F.interpolate(x, (side, side), mode='bilinear', antialias=True, align_corners=False)


Data = Iterable[Any] | Dataset | tuple[Tensor, Tensor]
"""Labelled data: a loader (or list) of batches ``(inputs, classes)``, a torch dataset, or the two tensors."""


def first_batches(data: Any, max_samples: int) -> list[tuple[Any, Tensor]]:
    """The first batches of ``data`` with ``max_samples`` pictures or a few more, in a mixed order where these are a part."""
    if data is None:
        return []
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        data = TensorDataset(*data)
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=256)
    taken: list[tuple[Any, Tensor]] = []
    size = 0
    for batch in _mixed(data, max_samples):
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
            raise TransferError('data must give batches (inputs, classes) of two tensors; wrap your loader so that it does.')
        y = batch[1].cpu()
        taken.append((batch[0], y if y.is_floating_point() or y.is_complex() else y.long()))
        size += len(batch[1])
        if size >= max_samples:
            break
    if not taken:
        raise TransferError('data is empty: it gave no batch of (inputs, classes).')
    return taken


def _mixed(data: Iterable[Any], max_samples: int) -> Iterable[Any]:
    """The same pictures at random, where a loader in the order of its dataset would show its first classes alone."""
    if not (isinstance(data, DataLoader) and isinstance(data.sampler, SequentialSampler) and data.batch_size is not None):
        return data
    if len(data.dataset) <= max_samples:  # pyright: ignore[reportArgumentType]
        return data
    return DataLoader(
        data.dataset,
        data.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=data.collate_fn,
        num_workers=data.num_workers,
    )


def has_classes(batches: list[tuple[Any, Tensor]]) -> bool:
    """Whether the labels are classes: whole numbers, one per picture."""
    return all(y.dim() == 1 and not y.is_floating_point() and not y.is_complex() for _, y in batches)


def check_range(labels: Tensor, classes: Any) -> None:
    """Refuse classes that a classifier does not have."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise TransferError(
            f'data has labels from {low} to {high}, and the classifier has {classes} classes; number them from 0.'
        )
