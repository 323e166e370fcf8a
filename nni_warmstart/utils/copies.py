"""Copies of objects that go on without the original: their state is their own, the data in them are shared."""

from __future__ import annotations

import copy
import io
import pickle
import types
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

SMALL = 4096
"""Largest size (bytes) of a tensor or array that is copied, since it may be a counter; larger ones are data."""

_VALUES = (str, bytes, int, float, bool, tuple, type(None))

_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)

FAILURES = (
    pickle.PickleError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, LookupError, OSError,
)  # fmt: skip
"""Exceptions for objects that cannot be copied: generators, open files, locks."""


def copied(given: Any, shared: Iterable[Any] = ()) -> Any:
    """Return a copy whose counters, generators and caches change without those of the original.

    Tensors and arrays above :data:`SMALL` are shared, and so are classes and functions, wherever they were defined. A data
    loader in it gets an iterator of its own.

    Parameters
    ----------
    given
        Any object. It is copied as for a worker process: ``__getstate__`` and ``__reduce__`` apply.
    shared
        Objects in it that are not copied.

    Raises
    ------
    Exception
        One of :data:`FAILURES` if it holds what has no copy.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, shared)
    pickler.dump(given)
    buffer.seek(0)
    return _Unpickler(buffer, pickler.kept).load()


class _Pickler(pickle.Pickler):
    """Writes an object; keeps the parts that are not written, by their number."""

    def __init__(self, file: Any, shared: Iterable[Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.kept: list[Any] = []
        self._originals: list[Any] = []  # alive, so that no other object gets the same id
        self._numbers: dict[int, int] = {}
        for each in shared:
            self._keep(each, each)

    def persistent_id(self, obj: Any) -> int | None:
        if type(obj) in _VALUES:  # a list of a million files is nothing else
            return None
        number = self._numbers.get(id(obj))
        if number is not None:
            return number
        if isinstance(obj, _CODE):
            return self._keep(obj, obj)
        if isinstance(obj, Tensor):
            small = obj.numel() * obj.element_size() <= SMALL and obj.is_leaf
            return self._keep(obj, copy.deepcopy(obj) if small else obj)
        if isinstance(obj, np.ndarray) and obj.dtype != object:
            return self._keep(obj, obj.copy() if obj.nbytes <= SMALL else obj)
        if isinstance(obj, torch.Generator):
            return self._keep(obj, _generator_like(obj))
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, DataLoader):
            return _blank, (type(obj),), {**vars(obj), '_iterator': None}  # with workers an iterator has no copy
        if hasattr(type(obj), '__wrapped__') and hasattr(obj, '__dict__'):
            return _blank, (type(obj),), vars(obj)  # nni.trace would send the class as code, and make another one
        return NotImplemented

    def _keep(self, original: Any, value: Any) -> int:
        self._numbers[id(original)] = len(self.kept)
        self._originals.append(original)
        self.kept.append(value)
        return len(self.kept) - 1


class _Unpickler(pickle.Unpickler):
    """Reads what :class:`_Pickler` wrote."""

    def __init__(self, file: Any, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_load(self, pid: Any) -> Any:
        return self._kept[pid]


def _blank(cls: type) -> Any:
    return cls.__new__(cls)


def _generator_like(generator: torch.Generator) -> torch.Generator:
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin
