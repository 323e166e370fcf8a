"""Tasks from npz files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import UNREADABLE, DataError, reason
from .source import PATH, Source
from .task import Task, as_labels, channels_first, checked_task, numbered_classes


def from_npz(path: str | Path) -> Task:
    """Read a task from one npz file.

    The file holds ``train_x`` ``(n, height, width, channels)``, ``train_y`` ``(n,)``, and optionally ``test_x``, ``test_y``
    and ``class_names``; it is read without pickle.

    Raises
    ------
    DataError
        If the file or an array is missing, or the arrays are not an image-classification task.
    """
    path = Path(os.path.expanduser(path))
    try:
        with path.open('rb') as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise DataError(f'data file {path} does not exist.') from error
    except OSError as error:
        raise DataError(f'data file {path} cannot be read: {error.strerror}.') from error
    if start[:2] != b'PK':  # a zip file; of any other, numpy says that it may be pickled
        raise DataError(f'data file {path} cannot be read as npz: it is no file that `numpy.savez` has written.')
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: np.asarray(file[key]) for key in file.files}  # a member that is no array comes as bytes
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


SOURCE = Source(
    settings={'path': PATH},
    read=lambda settings, image_size: from_npz(settings['path']),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    recognises=lambda word: word.endswith('.npz') and not os.path.isdir(word),
)
