"""Tasks from the datasets of torchvision."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torchvision.datasets

from ..errors import DataError, reason
from .source import Setting, Source
from .task import Task, as_labels, channels_first, checked_task, numbered_classes


def from_torchvision(name: str, root: str | Path, *, download: bool = False) -> Task:
    """Read a dataset of torchvision with a ``train`` argument (FashionMNIST, CIFAR10, ...); downloads only on request.

    Raises
    ------
    DataError
        If torchvision has no such dataset, or its files are not under ``root``.
    """
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


SOURCE = Source(
    settings={
        'name': Setting(str, refusal='{key} is missing; name a dataset of torchvision, such as FashionMNIST.'),
        'root': Setting(str, default='~/data', is_path=True),
        'download': Setting(bool, default=False),
    },
    read=lambda settings, image_size: from_torchvision(**settings),
    title=lambda settings: str(settings.get('name')),
)
