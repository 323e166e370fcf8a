"""Tasks from the datasets of torchvision."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets

from ..errors import UNREADABLE, DataError, reason
from ..utils.deadline import silence_limited
from .image_folder import IMAGE_SIZE
from .lazy import CACHE_MB
from .map_style import from_parts
from .memory import check_fits
from .source import Setting, Source
from .task import Task, as_labels, channels_first, checked_task, numbered_classes

SPLITS = (('train', 'trainval', 'train-standard'), ('test', 'val', 'valid'))
"""Names of the splits for training and of those for testing."""


def from_torchvision(
    name: str,
    root: str | Path,
    *,
    download: bool = False,
    side: int = IMAGE_SIZE,
    cache_mb: float = CACHE_MB,
) -> Task:
    """Read a dataset of torchvision; downloads only on request.

    Datasets with a ``train`` argument (FashionMNIST, CIFAR10, ...) are read as a whole, in their own size. Those with a
    ``split`` (Food101, SVHN, ...) are read where they are used, as those of a function of the user are; they are tested on
    the first of the splits 'test', 'val' and 'valid' that they have.

    Parameters
    ----------
    name
        Name of the dataset's class.
    root
        Folder that it takes.
    download
        Whether it may be downloaded.
    side, cache_mb
        Image size in pixels, and megabytes of images that are kept in memory, of a dataset with a ``split``.

    Raises
    ------
    DataError
        If torchvision has no such dataset, it is none for classification, or its files are not under ``root``.
    """
    cls, root = getattr(torchvision.datasets, name, None), Path(os.path.expanduser(root))
    if cls is None:
        raise DataError(f'torchvision has no dataset {name!r}.')
    known = inspect.signature(cls).parameters if callable(cls) else {}
    try:
        with silence_limited():
            if 'train' in known:
                _check_fits(cls, name, root)
                parts = [cls(root, train=train, download=download) for train in (True, False)]
                if all(hasattr(part, attribute) for part in parts for attribute in ('data', 'targets')):
                    return _in_arrays(name, parts)
            elif 'split' in known:
                options = {'download': download} if 'download' in known else {}
                parts = [_first_split(cls, root, names, options) for names in SPLITS]
            else:
                parts = []
    except DataError:
        raise
    except (*UNREADABLE, AssertionError) as error:
        raise DataError(
            f'torchvision dataset {name} is not under {root}: {reason(error)[:200]} Set download: true to fetch it.'
        ) from error
    if not parts or None in parts:
        raise DataError(
            f'torchvision dataset {name} has no splits for training and testing; make it with a function of your own and '
            'use python:.'
        )
    return from_parts(parts, name, side, cache_mb)


def _first_split(cls: Any, root: Path, names: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Make a dataset with the first of some splits that it knows; return None if it knows none of them."""
    for name in names:
        try:
            return cls(root, split=name, **options)
        except ValueError as error:
            if f'Unknown value {name!r}' not in str(error):  # the message of torchvision's check of arguments
                raise
    return None


def _check_fits(cls: Any, name: str, root: Path) -> None:
    """Raise an error if the files of a dataset that is read as a whole do not fit into memory."""
    for folder in {name, str(getattr(cls, 'base_folder', name))}:
        files = (os.path.join(above, file) for above, _, names in os.walk(root / folder) for file in names)
        size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
        check_fits(f'torchvision dataset {name} in {root / folder}', size)


def _in_arrays(name: str, parts: list[Any]) -> Task:
    """Make a task of the arrays in which datasets keep their images and classes."""
    arrays = []
    for part in parts:
        x, y = np.asarray(part.data), np.asarray(part.targets)
        arrays += [channels_first(x[..., None] if x.ndim == 3 else x, name), as_labels(y, name)]
    train_x, train_y, test_x, test_y = arrays
    names = getattr(parts[0], 'classes', None) or numbered_classes(train_y, name)
    return checked_task(name, train_x, train_y, test_x, test_y, [str(item) for item in names])


SOURCE = Source(
    settings={
        'name': Setting(str, refusal='{key} is missing; name a dataset of torchvision, such as FashionMNIST.'),
        'root': Setting(str, default='~/data', is_path=True),
        'download': Setting(bool, default=False),
    },
    read=lambda settings, image_size, **options: from_torchvision(**settings, side=image_size, **options),
    title=lambda settings: str(settings.get('name')),
    options=('cache_mb',),
)
