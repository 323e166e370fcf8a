"""Tasks from scikit-learn, npz files and torchvision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UNREADABLE, DataError, reason
from .splits import stratified_split
from .task import Task, as_labels, channels_first, checked_task, numbered_classes


def digits() -> Task:
    """Scikit-learn's handwritten digits (1797 grey pictures of 8x8 pixels), a quarter of them for testing."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    y = torch.from_numpy(bunch.target).long()
    test, train = stratified_split(y, 0.25, seed=0)
    return checked_task('digits', x[train], y[train], x[test], y[test], [str(digit) for digit in range(10)])


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
    train_x, train_y = channels_first(arrays['train_x'], path), as_labels(arrays['train_y'], path)
    if ('test_x' in arrays) != ('test_y' in arrays):
        raise DataError(f'{path} has one of test_x and test_y; give both or none.')
    if 'test_x' in arrays:
        test_x, test_y = channels_first(arrays['test_x'], path), as_labels(arrays['test_y'], path)
    else:
        test_x, test_y = train_x[:0], train_y[:0]
    names = arrays['class_names'] if 'class_names' in arrays else numbered_classes(train_y, path)
    if np.ndim(names) != 1:
        raise DataError(f'{path}: class_names have shape {np.shape(names)}; needed is one name per class.')
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: class_names are bytes that are not UTF-8; save them as text.') from error
    return checked_task(path.stem, train_x, train_y, test_x, test_y, names)


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
        arrays += [channels_first(x[..., None] if x.ndim == 3 else x, name), as_labels(np.asarray(part.targets), name)]
    train_x, train_y, test_x, test_y = arrays
    names = getattr(parts[0], 'classes', None) or numbered_classes(train_y, name)
    return checked_task(name, train_x, train_y, test_x, test_y, [str(item) for item in names])
