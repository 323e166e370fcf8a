"""Image-classification tasks by name, folder, npz file or torchvision dataset, as tensors ready for a model space."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .errors import UNREADABLE, DataError, reason

_logger = logging.getLogger(__name__)


PARTS = {'test', 'testing', 'train', 'training', 'val', 'valid', 'validation'}
"""Folders of these names are parts of a dataset, not its classes, where there are no others."""


@dataclass(frozen=True)
class Task:
    """One labelled image-classification task.

    Attributes
    ----------
    name
        How the task is called in cards and reports.
    train_x, test_x
        Pictures, shape ``(n, channels, side, side)``, uint8 or floating point; ``test_x`` may be empty.
    train_y, test_y
        Classes, int64, shape ``(n,)``, in ``0 .. len(class_names) - 1``.
    class_names
        One name per class.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def adapted(self, channels: int, side: int) -> Task:
        """The same task with pictures of ``channels`` channels and ``side`` pixels.

        Grey is repeated to colour, colour is averaged to grey; sizes change by antialiased bilinear interpolation.

        Raises
        ------
        DataError
            If the number of channels is neither 1 nor ``channels``, and ``channels`` is not 1.
        """
        train_x, test_x = (_adapted(self.name, x, channels, side) for x in (self.train_x, self.test_x))
        return replace(self, train_x=train_x, test_x=test_x)


class Images(Dataset):
    """Pictures normalised on the fly, ``((channels, side, side) float32, class)``.

    Parameters
    ----------
    x, y
        Pictures ``(n, channels, side, side)`` and classes ``(n,)``.
    mean, std
        Per channel, in the units of ``x``.
    name, class_names
        Of the task that they are part of.
    """

    def __init__(
        self, x: Tensor, y: Tensor, mean: Tensor, std: Tensor, name: str = 'dataset', class_names: tuple[str, ...] = ()
    ) -> None:
        self.x, self.y, self.name, self.class_names = x, y, name, class_names
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (self.x[index].float() - self.mean) / self.std, self.y[index]

    def part(self, index: Tensor) -> Images:
        """Some of them."""
        return Images(self.x[index], self.y[index], self.mean, self.std, self.name, self.class_names)


@dataclass(frozen=True)
class Splits:
    """The parts of a task that a search uses; ``test`` is None where the task has no test pictures."""

    train: Images
    val: Images
    test: Images | None


def split(task: Task, *, val_share: float = 0.5, seed: int = 0) -> Splits:
    """Cut the training pictures into a part for the weights and one for the alphas, as DARTS does.

    The cut is stratified and depends on ``seed`` alone; test pictures stay untouched. Pictures are normalised by the mean
    and standard deviation of the training part, per channel.

    Raises
    ------
    DataError
        If some class is missing from one of the two parts.
    """
    if not 0 < val_share < 1:
        raise DataError(f'val_share = {val_share}, but it must lie between 0 and 1.')
    val_index, train_index = stratified(task.train_y, val_share, seed)
    val_index = val_index[mixing(task.train_y[val_index])]  # alphas learn from it in this order
    for part, index in (('training', train_index), ('validation', val_index)):
        missing = set(range(task.num_classes)) - set(task.train_y[index].tolist())
        if missing:
            names = ', '.join(task.class_names[label] for label in sorted(missing))
            raise DataError(
                f'{task.name}: class {names} is missing from the {part} split at val_share = {val_share}; every class needs '
                'pictures in both halves. Add some, leave the class out, or change val_share.'
            )
    train_x = task.train_x[train_index]
    mean, std = _moments(train_x)

    def images(x: Tensor, y: Tensor) -> Images:
        return Images(x, y, mean, std, task.name, task.class_names)

    test = images(task.test_x, task.test_y) if len(task.test_x) else None
    return Splits(
        images(train_x, task.train_y[train_index]),
        images(task.train_x[val_index], task.train_y[val_index]),
        test,
    )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, float32; in parts, so that no large set becomes float64 as a whole."""
    parts, count = x.split(1024), x.numel() // x.shape[1]
    mean = torch.stack([part.double().sum((0, 2, 3)) for part in parts]).sum(0) / count
    squares = torch.stack([(part.double() - mean.view(-1, 1, 1)).square().sum((0, 2, 3)) for part in parts]).sum(0)
    return mean.float(), (squares / (count - 1)).sqrt().float().clamp_min(1e-6)


def mixing(labels: Tensor) -> Tensor:
    """An order in which classes alternate: that of the data, or a random one, always the same, where they come sorted.

    Sorted are data in which neighbours are of one class more often than half way from chance to always.
    """
    together = (labels[1:] == labels[:-1]).double().mean() if len(labels) > 1 else 0.0
    chance = (labels.bincount() / len(labels)).square().sum()
    if together <= (1 + chance) / 2:
        return torch.arange(len(labels))
    return torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))


def stratified(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of a part with ``share`` of every class, and of the rest; both sorted, both decided by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        order = members[torch.randperm(len(members), generator=generator)]
        chosen[order[: round(len(members) * share)]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def described(dataset: Any) -> tuple[str, list[str]]:
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


def form_of(dataset: Any) -> tuple[int, int] | None:
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


def digits() -> Task:
    """Scikit-learn's handwritten digits (1797 grey pictures of 8x8 pixels), a quarter of them for testing."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    y = torch.from_numpy(bunch.target).long()
    test, train = stratified(y, 0.25, seed=0)
    return _checked('digits', x[train], y[train], x[test], y[test], [str(digit) for digit in range(10)])


def from_npz(path: str | Path) -> Task:
    """A task from one npz file.

    It holds ``train_x`` ``(n, height, width, channels)``, ``train_y`` ``(n,)``, and optionally ``test_x``, ``test_y`` and
    ``class_names``; it is read without pickle.

    Raises
    ------
    DataError
        If the file or an array is missing, or the arrays are no image-classification task.
    """
    path = Path(os.path.expanduser(path))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: np.asarray(file[key]) for key in file.files}  # of a member that is no array, bytes
    except FileNotFoundError as error:
        raise DataError(f'data file {path} does not exist.') from error
    except UNREADABLE as error:
        raise DataError(f'data file {path} cannot be read as npz: {reason(error)}') from error
    missing = {'train_x', 'train_y'} - arrays.keys()
    if missing:
        raise DataError(f'{path} has no array {", ".join(sorted(missing))}; it has {", ".join(arrays) or "none"}.')
    train_x, train_y = _channels_first(arrays['train_x'], path), _labels(arrays['train_y'], path)
    if ('test_x' in arrays) != ('test_y' in arrays):
        raise DataError(f'{path} has one of test_x and test_y; give both or none.')
    if 'test_x' in arrays:
        test_x, test_y = _channels_first(arrays['test_x'], path), _labels(arrays['test_y'], path)
    else:
        test_x, test_y = train_x[:0], train_y[:0]
    names = arrays['class_names'] if 'class_names' in arrays else _numbered(train_y, path)
    if np.ndim(names) != 1:
        raise DataError(f'{path}: class_names have shape {np.shape(names)}; needed is one name per class.')
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: class_names are bytes that are not UTF-8; save them as text.') from error
    return _checked(path.stem, train_x, train_y, test_x, test_y, names)


def from_folder(path: str | Path, *, side: int = 64) -> Task:
    """A task from pictures in ``path/CLASS/*`` or in ``path/train/CLASS/*`` and ``path/test/CLASS/*``.

    Pictures are cut to a centred square and read at ``side`` pixels, in colour.
    """
    from .folders import read_folder  # torchvision and Pillow are read only where there are pictures in folders

    path = Path(os.path.expanduser(path))
    if not os.path.isdir(path):
        raise DataError(f'data folder {path} does not exist.')
    beside = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith('.'))
    has_split = (path / 'train').is_dir()
    if not has_split and beside and PARTS.issuperset(name.lower() for name in beside):
        raise DataError(f'{path} has {", ".join(beside)} and no train/; call the folder of the training pictures train.')
    if has_split:
        unread = [name for name in beside if name not in ('train', 'test')]
        if unread:
            _logger.warning('%s: beside train/ and test/ nothing is read: not %s.', path, ', '.join(unread))
    train_x, train_y, names = read_folder(path / 'train' if has_split else path, side)
    test_x, test_y = train_x[:0], train_y[:0]
    if (path / 'test').is_dir() and has_split:
        test_x, test_y, test_names = read_folder(path / 'test', side)
        unknown = set(test_names) - set(names)
        if unknown:
            raise DataError(f'{path / "test"} has classes that {path / "train"} lacks: {", ".join(sorted(unknown))}.')
        test_y = torch.tensor([names.index(test_names[label]) for label in test_y.tolist()], dtype=torch.long)
    return _checked(path.name, train_x, train_y, test_x, test_y, names)


def from_torchvision(name: str, root: str | Path, *, download: bool = False) -> Task:
    """A dataset of torchvision with a ``train`` argument (FashionMNIST, CIFAR10, ...), downloaded only when asked.

    Raises
    ------
    DataError
        If torchvision has no such dataset, or its files are not under ``root``.
    """
    import torchvision.datasets

    cls = getattr(torchvision.datasets, name, None)
    if cls is None:
        raise DataError(f'torchvision has no dataset {name!r}.')
    try:
        parts = [cls(Path(os.path.expanduser(root)), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise DataError(
            f'torchvision dataset {name} is not under {root}: {reason(error)} Set download: true to fetch it.'
        ) from error
    except TypeError as error:
        raise DataError(
            f'torchvision dataset {name} has no train/test switch of the usual kind; export it to a folder and use folder:.'
        ) from error
    arrays = []
    for part in parts:
        x = np.asarray(part.data)
        arrays += [_channels_first(x[..., None] if x.ndim == 3 else x, name), _labels(np.asarray(part.targets), name)]
    train_x, train_y, test_x, test_y = arrays
    names = getattr(parts[0], 'classes', None) or _numbered(train_y, name)
    return _checked(name, train_x, train_y, test_x, test_y, [str(item) for item in names])


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
        return _checked(name, task.train_x, task.train_y, task.test_x, task.test_y, task.class_names)
    if not (isinstance(dataset, tuple) and len(dataset) == 2):
        if not (isinstance(dataset, Dataset) and isinstance(dataset, Sized)):
            raise DataError(f'{name} is a {type(dataset).__name__}; give a Task, a torch dataset with a length, or (x, y).')
        if not len(dataset):
            raise DataError(f'{name} is empty: it has no pictures.')
    names = described(dataset)[1]
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
    x, y = _channels_first(pictures, name), _labels(labels, name)
    numbers = _numbered(y, name)
    return _checked(name, x, y, x[:0], y[:0], names if len(names) == len(numbers) else [str(label) for label in numbers])


@contextmanager
def quiet_randomness() -> Iterator[None]:
    """Leave torch's global generator as it was: iterating a loader draws a worker seed from it."""
    with torch.random.fork_rng(devices=[]):
        yield


def _checked(name: str, train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, names: Any) -> Task:
    """Make a task, refusing data that cannot be searched on."""
    if len(train_x) == 0:
        raise DataError(f'{name} is empty: it has no training pictures.')
    for part, x, y in (('training', train_x, train_y), ('test', test_x, test_y)):
        if len(x) != len(y):
            raise DataError(f'{name} has {len(x)} {part} pictures and {len(y)} labels; there must be one label each.')
        if x.is_floating_point() and not torch.isfinite(x).all():
            bad = int((~torch.isfinite(x).flatten(1).all(1)).sum())
            raise DataError(f'{name} has NaN or infinite pixels in {bad} {part} pictures; remove or repair them.')
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(names)):
            raise DataError(
                f'{name} has {part} labels from {int(y.min())} to {int(y.max())}, but {len(names)} class names; labels '
                'must run from 0 to classes - 1.'
            )
    if len(train_y.unique()) < 2:
        raise DataError(f'{name} has one class; a classification needs at least two.')
    return Task(name, train_x, train_y, test_x, test_y, tuple(names))


def _numbered(y: Tensor, origin: Any) -> range:
    """Classes by their number, where they have no names."""
    classes = int(y.max()) + 1 if len(y) else 0
    if classes > len(y):  # a class needs a picture, and a label like 10**12 would make as many names
        raise DataError(
            f'{origin} has labels up to {classes - 1} and {len(y)} pictures; labels must run from 0 to classes - 1.'
        )
    return range(classes)


def _labels(y: np.ndarray, origin: Any) -> Tensor:
    if y.ndim != 1 or y.dtype.kind not in 'iu':
        raise DataError(
            f'{origin}: labels have shape {y.shape} and type {y.dtype}; they must be whole numbers, one per picture.'
        )
    return torch.from_numpy(np.ascontiguousarray(y, dtype=np.int64))


def _channels_first(x: np.ndarray, origin: Any) -> Tensor:
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise DataError(
            f'{origin}: pictures have shape {x.shape}; needed is (n, height, width, channels) with 1 or 3 channels last.'
        )
    if x.dtype.kind not in 'buif' or 0 in x.shape[1:]:
        raise DataError(
            f'{origin}: pictures have shape {x.shape} and type {x.dtype}; needed are numbers, and a pixel at least.'
        )
    if x.dtype != np.uint8:
        with np.errstate(over='ignore'):  # what becomes infinite is refused later, in one line
            x = x.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def _adapted(name: str, x: Tensor, channels: int, side: int) -> Tensor:
    if x.shape[1] != channels:
        if channels == 1:
            x = x.float().mean(1, keepdim=True)
        elif x.shape[1] == 1:
            x = x.expand(-1, channels, -1, -1)
        else:
            raise DataError(f'{name} has {x.shape[1]} channels and the space takes {channels}.')
    if tuple(x.shape[-2:]) != (side, side) and len(x):
        try:
            x = _resized(x, side)
        except (RuntimeError, MemoryError) as error:
            raise DataError(f'{name} does not fit into memory at {side} x {side} pixels: {len(x)} pictures.') from error
    return x.contiguous()


def _resized(x: Tensor, side: int) -> Tensor:
    parts = [  # in parts, so that large sets do not become float32 as a whole
        F.interpolate(part.float(), (side, side), mode='bilinear', antialias=True, align_corners=False)
        for part in x.split(1024)
    ]
    if x.dtype == torch.uint8:
        parts = [part.round().clamp(0, 255).to(torch.uint8) for part in parts]
    return torch.cat(parts)
