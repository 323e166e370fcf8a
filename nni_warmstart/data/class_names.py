"""Names of the classes of data, wherever datasets, loaders and data modules keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset

from ..errors import REFUSALS

_ATTRIBUTES = ('class_names', 'classes', 'categories')
"""Attributes that hold names in the order of their numbers, in this package, torchvision and elsewhere."""


def class_names(data: Any) -> list[str]:
    """Return the names of the classes in the order of their numbers; empty where they are not known.

    Parameters
    ----------
    data
        A task, a torch dataset, a loader, a data module or anything else. Loaders and subsets have the names of the dataset
        behind them, a concatenation those that all of its parts have. Where a dataset changes its labels by a
        ``target_transform``, the names are those of the changed ones.
    """
    while not any(hasattr(data, name) for name in (*_ATTRIBUTES, 'class_to_idx')) and hasattr(data, 'dataset'):
        data = data.dataset
    if isinstance(data, ConcatDataset) and not any(hasattr(data, name) for name in _ATTRIBUTES):
        parts = [class_names(part) for part in data.datasets]
        return parts[0] if all(part == parts[0] for part in parts) else []
    names = next((found for name in _ATTRIBUTES if (found := _texts(getattr(data, name, None)))), None)
    numbers = getattr(data, 'class_to_idx', None)
    if names is None and isinstance(numbers, Mapping) and {*numbers.values()} == {*range(len(numbers))}:
        names = [str(name) for name in sorted(numbers, key=lambda name: int(numbers[name]))]
    transform = getattr(data, 'target_transform', None)
    return names or [] if transform is None else _renumbered(names or [], transform)


def _texts(values: Any) -> list[str]:
    """Return a sequence of names as text; empty for anything else, such as the number of classes."""
    if isinstance(values, np.ndarray | Tensor) and values.ndim == 1:
        values = values.tolist()
    return [str(each) for each in values] if isinstance(values, list | tuple) else []


def _renumbered(names: list[str], transform: Any) -> list[str]:
    """Return names in the order of the numbers that a function makes of theirs; empty if these have no such order."""
    try:
        changed = [int(transform(number)) for number in range(len(names))]
    except REFUSALS:  # a user's function, which may want something else than a number
        return []
    if sorted(changed) != list(range(len(names))):
        return []
    return [names[changed.index(number)] for number in range(len(names))]
