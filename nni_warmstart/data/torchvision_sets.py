"""Tasks from the datasets of torchvision."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets

from ..errors import UNREADABLE, DataError, reason
from .memory import check_fits
from .source import Setting, Source
from .task import Task, as_labels, channels_first, checked_task, numbered_classes

_LONGEST_SILENCE = 30
"""Seconds for which a download waits."""


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
    if not callable(cls) or 'train' not in inspect.signature(cls).parameters:
        raise DataError(
            f'torchvision dataset {name} has no train/test switch of the usual kind; export it to a folder and use folder:.'
        )
    root = Path(os.path.expanduser(root))
    for folder in {name, str(getattr(cls, 'base_folder', name))}:
        files = (os.path.join(above, file) for above, _, names in os.walk(root / folder) for file in names)
        size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
        check_fits(f'torchvision dataset {name} in {root / folder}', size)
    try:
        with _timeout():
            parts: list[Any] = [cls(root, train=train, download=download) for train in (True, False)]
        pairs = [(np.asarray(part.data), np.asarray(part.targets)) for part in parts]
    except (*UNREADABLE, AssertionError) as error:
        raise DataError(
            f'torchvision dataset {name} is not under {root}: {reason(error)[:200]} Set download: true to fetch it.'
        ) from error
    arrays = []
    for x, y in pairs:
        arrays += [channels_first(x[..., None] if x.ndim == 3 else x, name), as_labels(y, name)]
    train_x, train_y, test_x, test_y = arrays
    names = getattr(parts[0], 'classes', None) or numbered_classes(train_y, name)
    return checked_task(name, train_x, train_y, test_x, test_y, [str(item) for item in names])


@contextmanager
def _timeout() -> Iterator[None]:
    """Limit the time for which a download waits for an answer: torchvision sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_LONGEST_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


SOURCE = Source(
    settings={
        'name': Setting(str, refusal='{key} is missing; name a dataset of torchvision, such as FashionMNIST.'),
        'root': Setting(str, default='~/data', is_path=True),
        'download': Setting(bool, default=False),
    },
    read=lambda settings, image_size: from_torchvision(**settings),
    title=lambda settings: str(settings.get('name')),
)
