"""Labelled data in any form, turned into a task, into two tensors, into batches, or into the shape of their images."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from ..errors import DataError, TransferError
from ..utils.random import quiet_randomness
from .batches import BATCH_SIZE, Wording, as_tensor, batches_of
from .class_names import class_names
from .dataset_part import dataset_part, random_part
from .lazy import AnyImages, LazyImages
from .resizing import resize_images
from .splits import Images
from .stratified import stratified_part
from .task import Task, as_labels, channels_first, checked_task, numbered_classes

Labelled = Task | Dataset | Iterable[Any] | tuple[Any, Any]
"""Labelled images or features: a task (its training part), a torch dataset, a loader, or two arrays ``(x, y)``."""

Data = Iterable[Any] | Dataset | tuple[Tensor, Tensor]
"""Labelled data: a loader (or list) of batches ``(inputs, classes)``, a torch dataset, or the two tensors."""

_TASK = Wording(
    DataError,
    form='{name} is a {kind}; give a Task, a torch dataset with a length, or (x, y).',
    pair='{name} gives no pairs of an image and a whole number.',
    values='{name} gives no pairs of an image and a whole number, all of one shape ({reason}); add transforms.',
)

_SKETCH = Wording(
    DataError,
    form='a dataset must be a torch dataset, a loader or two arrays (x, y), not {kind}.',
    pair='{name} gives no pairs of samples and labels; distances between datasets need labels.',
    values=(
        '{name} does not give tensors of one shape and whole numbers ({reason}); add transforms (Resize, ToTensor), and '
        'number the classes.'
    ),
)

_TRANSFER = Wording(
    TransferError,
    form='{name} must give batches (inputs, classes) of two tensors; it is a {kind}.',
    pair='{name} must give batches (inputs, classes) of two tensors; wrap your loader so that it does.',
    values='{name} must give batches (inputs, classes) of two tensors; wrap your loader so that it does ({reason}).',
)


def name_and_classes(dataset: Any) -> tuple[str, list[str]]:
    """Return the name and class names of data, as far as these, or the dataset behind a loader or subset, know them.

    Parameters
    ----------
    dataset
        A task, a torch dataset (torchvision's have class names), a loader, or the name alone.
    """
    return known_name(dataset) or type(_described(dataset)).__name__, class_names(dataset)


def known_name(dataset: Any) -> str | None:
    """Return the name of data, or that of the class that reads them; None where there are only tensors, lists or loaders."""
    dataset = _described(dataset)
    if isinstance(dataset, str) or hasattr(dataset, 'name'):
        return dataset if isinstance(dataset, str) else str(dataset.name)
    kind = type(dataset)
    return None if kind.__module__.partition('.')[0] in _NAMELESS else kind.__name__


_NAMELESS = {'builtins', 'torch', 'numpy', 'pytorch_lightning', 'lightning'}
"""Packages whose classes hold any data, so that their names say nothing about these."""


def _described(dataset: Any) -> Any:
    """Return the dataset behind loaders and subsets."""
    while not hasattr(dataset, 'name') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def image_shape(dataset: Any) -> tuple[int, int] | None:
    """Return the channels and image size (pixels) of square images, by the first of them; None for other data.

    Parameters
    ----------
    dataset
        A task, a torch dataset, a loader, or two arrays, channels first or last.
    """
    if isinstance(dataset, Task) and isinstance(dataset.train_x, LazyImages):
        shape = dataset.train_x.shape[1:]  # without reading one
    else:
        try:
            with quiet_randomness():
                x, _ = next(batches_of(_loader(dataset, 1), 'dataset', _TASK))
        except (DataError, TypeError, ValueError, RuntimeError, StopIteration):
            return None
        shape = x.shape[1:]
    for channels, *sizes in (shape, (*shape[-1:], *shape[:-1])) if len(shape) == 3 else ():
        if channels in (1, 3) and sizes[0] == sizes[1]:
            return int(channels), int(sizes[0])
    return None


def labelled(name: str, dataset: Any) -> Task:
    """Make a task of labelled images in memory, without test images.

    Parameters
    ----------
    name
        Name of the task; a task that is passed is renamed.
    dataset
        A task, two arrays ``(x, y)`` as :func:`~nni_warmstart.data.npz.from_npz` reads them (channels first or last), or a
        torch dataset of ``(image, class)``.

    Raises
    ------
    DataError
        If the data are empty, have a single class, or are not images of one shape with whole numbers for classes.
    """
    if isinstance(dataset, Task):
        task = dataset
        if not all(isinstance(x, AnyImages) and x.ndim == 4 and x.shape[1] in (1, 3) for x in (task.train_x, task.test_x)):
            raise DataError(f'{name} has images that are no tensors (n, channels, side, side) with 1 or 3 channels.')
        return checked_task(name, task.train_x, task.train_y, task.test_x, task.test_y, task.class_names)
    if not (isinstance(dataset, tuple) and len(dataset) == 2):
        if not (isinstance(dataset, Dataset) and isinstance(dataset, Sized)):
            raise _TASK.refused('form', name=name, kind=type(dataset).__name__)
        if not len(dataset):
            raise DataError(f'{name} is empty: it has no images.')
    if isinstance(dataset, tuple) and isinstance(dataset[1], np.ndarray | list):
        as_labels(np.asarray(dataset[1]), name)  # no tensor can hold text
    with _TASK.readable(name):
        parts = zip(*batches_of(_loader(dataset, BATCH_SIZE), name, _TASK), strict=True)
        images, labels = (_joined(part).detach().cpu().numpy() for part in parts)
    if images.ndim == 3:
        images = images[..., None]
    elif images.ndim == 4 and images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):  # channels first, as in torch
        images = images.transpose(0, 2, 3, 1)
    x, y = channels_first(images, name), as_labels(labels, name)
    names, classes = name_and_classes(dataset)[1], numbered_classes(y, name)
    return checked_task(name, x, y, x[:0], y[:0], names if len(names) == len(classes) else [str(label) for label in classes])


def read_labelled(dataset: Labelled, name: str, channels: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Read all samples and labels, for a sketch.

    Parameters
    ----------
    dataset
        Labelled images or features, in any form of :data:`Labelled`.
    name
        Name of the dataset in errors.
    channels, image_size
        Shape to which images are brought, as float32; 0 leaves them unchanged.

    Returns
    -------
    tuple
        Images or features, shape ``(n, ...)``; labels, int64, shape ``(n,)``.

    Raises
    ------
    DataError
        If the data cannot be read, or have no labels, or no label is 0 or more.
    """
    x, y, _ = _read(dataset, name, channels, image_size)
    return x, y


def _read(
    dataset: Labelled, name: str, channels: int, image_size: int, at_most: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Read as :func:`read_labelled` does, keep ``at_most`` images or twice as many, and return the labels of all, too."""
    xs, ys, keys, population = [], [], [], []
    generator = torch.Generator().manual_seed(seed)
    with quiet_randomness(), _SKETCH.readable(name):
        for x, y in batches_of(dataset, name, _SKETCH):
            if y.ndim != 1 or y.is_floating_point() or y.is_complex() or len(x) != len(y):
                raise DataError(
                    f'{name} has labels of shape {tuple(y.shape)} and type {y.dtype} for {len(x)} samples; needed is one '
                    'whole number each.'
                )
            parts = x.detach().cpu().split(1024)  # so that no large set becomes float32 at full size
            xs += (
                parts if x.ndim == 2 or not image_size else [_as_images(part, name, channels, image_size) for part in parts]
            )
            ys.append(y.detach().cpu().long())
            population += ys[-1].tolist()  # small tensors between large ones would keep their memory
            keys.append(torch.rand(len(y), generator=generator))
            if at_most is not None and x.ndim > 2 and sum(map(len, ys)) > 2 * at_most:
                index = random_part(torch.cat(ys), torch.cat(keys), at_most)
                xs, ys, keys = ([torch.cat(parts)[index]] for parts in (xs, ys, keys))
    if not population:
        raise DataError(f'{name} is empty: there is nothing to sketch.')
    labels = torch.tensor(population)
    if int(labels.min()) < 0:
        raise DataError(
            f'{name} has the label {int(labels.min())}; labels must be 0 or more (unlabelled samples cannot be used).'
        )
    return torch.cat(xs), torch.cat(ys), labels


def read_sample(
    dataset: Labelled, name: str, channels: int, image_size: int, at_most: int | None, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Read a stratified sample of images, or all of features, as :func:`read_labelled` does.

    Of a torch dataset that keeps its labels only the sample is read; of one that does not, and of what is read in sequence,
    no more than twice the sample is in memory.

    Parameters
    ----------
    dataset, name, channels, image_size
        Same as in :func:`read_labelled`.
    at_most
        Largest number of images, though at least one of each class; None for all.
    seed
        Seed of the choice.

    Returns
    -------
    tuple
        Images or features, shape ``(n, ...)``; labels, shape ``(n,)``; labels of all samples, shape ``(m,)``.
    """
    population = _population(dataset)
    if (
        isinstance(dataset, Task)
        and isinstance(dataset.train_x, Tensor)
        and dataset.train_x.ndim == 4
        and at_most is not None
    ):
        index = stratified_part(dataset.train_y.unique(return_inverse=True)[1], at_most, seed)
        dataset = dataset.train_x[index], dataset.train_y[index]  # before all of them become float32
    part = None if at_most is None else dataset_part(dataset, at_most, seed)
    if part is not None:
        x, y = read_labelled(part.samples, name, channels, image_size)
        gives_what_it_keeps = torch.equal(y, part.labels) and int(part.population.min()) >= 0
        if x.ndim > 2 and gives_what_it_keeps:
            return x, y, part.population
    behind = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    in_memory = isinstance(behind, Task | Images | TensorDataset | list | tuple)
    x, y, labels = _read(dataset, name, channels, image_size, None if in_memory else at_most, seed)
    population = labels if population is None else population
    if x.ndim == 2 or at_most is None:
        return x, y, population
    index = stratified_part(y.unique(return_inverse=True)[1], at_most, seed)
    return x[index], y[index], population


def _population(dataset: Any) -> Tensor | None:
    """Return the labels of all images of a task, or of those that a sample was drawn from."""
    if isinstance(dataset, Task):
        return dataset.train_y
    dataset = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    return dataset.population if isinstance(dataset, Images) else None


MOST_BYTES = 2**28
"""Bytes of float32 images that are embedded at once; a quarter of it stays in memory between the steps of a warm start."""


class SampleBatches(Sequence[tuple[Tensor, Tensor]]):
    """First batches of a loader of a sample, which are normalised again each time.

    Parameters
    ----------
    loader
        Loader in a fixed order.
    count
        Number of batches.
    """

    def __init__(self, loader: DataLoader, count: int) -> None:
        self.loader, self._length = loader, min(count, len(loader))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((x, y) for x, y in itertools.islice(self.loader, self._length))

    def __getitem__(self, index: Any) -> Any:
        """Return some of the first batches."""
        stop = index + 1 if isinstance(index, int) else index.stop
        return list(itertools.islice(self, stop))[index]

    def within(self, size: int) -> SampleBatches:
        """Return those of the first batches, at least one, whose images take no more than ``size`` bytes."""
        return SampleBatches(self.loader, max(1, min(len(self), size // max(self[0][0].nbytes, 1))))


def first_batches(data: Any, max_samples: int) -> Sequence[tuple[Tensor, Tensor]]:
    """Return the first batches with ``max_samples`` images or a few more, in random order where these are only a part.

    Labels are on the CPU, and int64 where they are whole numbers. There are no batches for None. Those of a sample of large
    images do not stay in memory.

    Raises
    ------
    TransferError
        If the data are empty, or in no form that can be read.
    """
    if data is None:
        return []
    if isinstance(data, SampleBatches):
        return SampleBatches(data.loader, min(len(data), -(-max_samples // (data.loader.batch_size or 1))))
    if isinstance(data, DataLoader) and isinstance(data.sampler, SequentialSampler) and _population(data) is not None:
        batches = SampleBatches(data, -(-max_samples // (data.batch_size or 1)))
        return batches if len(batches.within(MOST_BYTES // 4)) < len(batches) else list(batches)
    taken: list[tuple[Tensor, Tensor]] = []
    size = 0
    for x, y in batches_of(data, 'data', _TRANSFER, at_most=max_samples):
        size += len(y)
        y = y.cpu()
        taken.append((x, y if y.is_floating_point() or y.is_complex() else y.long()))
        if size >= max_samples:
            break
    if not taken:
        raise TransferError('data is empty: it gave no batch of (inputs, classes).')
    return taken


def has_classes(batches: Sequence[tuple[Any, Tensor]]) -> bool:
    """Check whether the labels are classes: whole numbers, one per image."""
    return all(
        isinstance(y, Tensor) and y.dim() == 1 and not y.is_floating_point() and not y.is_complex() for _, y in batches
    )


def in_range(labels: Tensor, classes: Any) -> bool:
    """Check whether a classifier with this number of classes has all of the labels."""
    return int(labels.min()) >= 0 and int(labels.max()) < classes


def check_range(labels: Tensor, classes: Any) -> None:
    """Raise an error if there are classes that a classifier does not have."""
    if not in_range(labels, classes):
        raise TransferError(
            f'data has labels from {int(labels.min())} to {int(labels.max())}, and the classifier has {classes} classes; '
            "number them from 0, or, where they are no classes, pass head='random'."
        )


def _loader(dataset: Any, batch_size: int) -> Any:
    """Return a loader of a torch dataset that also takes PIL images and draws nothing from torch's global generator."""
    if not isinstance(dataset, Dataset):
        return dataset
    return DataLoader(dataset, batch_size, collate_fn=_stacked, generator=torch.Generator())


def _stacked(samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Collate samples; PIL images are copied, since torch cannot wrap their read-only memory."""
    xs, ys = zip(*((x if isinstance(x, Tensor) else np.array(x), y) for x, y in samples), strict=True)
    return torch.stack([as_tensor(x) for x in xs]), torch.stack([as_tensor(y) for y in ys])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate batches; a single one keeps its layout in memory, on which later rounding depends."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _as_images(x: Tensor, name: str, channels: int, image_size: int) -> Tensor:
    """Return images, channels first or last, as float32 images of one shape; raise an error for other samples."""
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.permute(0, 3, 1, 2)  # channels last, as in numpy
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f'{name} has samples of shape {tuple(x.shape[1:])}; needed are images of 1 or 3 channels, or features (n, d).'
        )
    return resize_images(x.float(), channels, image_size)
