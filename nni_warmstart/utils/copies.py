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

MOST_COPIED = 64 * 2**20
"""Size (bytes) of the tensors and arrays that are copied with an object, samplers first; all others are shared, as data."""

_VALUES = (int, float, bool, tuple, type(None))

_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)

FAILURES = (
    pickle.PickleError, TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError, LookupError, OSError,
)  # fmt: skip
"""Exceptions for objects that cannot be copied: generators, open files, locks."""


def copied(given: Any, shared: Iterable[Any] = ()) -> Any:
    """Return a copy whose counters, generators and caches change without those of the original.

    Tensors and arrays beyond :data:`MOST_COPIED` are shared, and so are classes and functions, wherever they were defined. A
    data loader in it gets an iterator of its own.

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
    return _Unpickler(buffer, pickler.kept, pickler.buffers).load()


class _Pickler(pickle.Pickler):
    """Writes an object; keeps the parts that are not written, by their number."""

    def __init__(self, file: Any, shared: Iterable[Any]) -> None:
        self.buffers: list[pickle.PickleBuffer] = []  # of tables, say, which are shared
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=self.buffers.append)
        self.kept: list[Any] = []
        self._left = MOST_COPIED
        self._originals: list[Any] = []  # alive, so that no other object gets the same id
        self._numbers: dict[int, int] = {}
        for each in shared:
            self._keep(each, each)

    def persistent_id(self, obj: Any) -> int | None:
        kind = type(obj)
        if kind in _VALUES or (kind in (str, bytes) and len(obj) < 1024):  # a list of a million files is nothing else
            return None
        number = self._numbers.get(id(obj))
        if number is not None:
            return number
        if isinstance(obj, (*_CODE, str, bytes)):
            return self._keep(obj, obj)
        if isinstance(obj, Tensor):
            fits = obj.is_leaf and self._fits(obj.numel() * obj.element_size())
            return self._keep(obj, copy.deepcopy(obj) if fits else obj)
        if isinstance(obj, np.ndarray) and obj.dtype != object:
            fits = not isinstance(obj, np.memmap) and self._fits(obj.nbytes)
            return self._keep(obj, obj.copy() if fits else obj)
        if isinstance(obj, torch.Generator):
            return self._keep(obj, _generator_like(obj))
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, DataLoader):
            small = {name: vars(obj)[name] for name in ('sampler', 'batch_sampler', 'generator')}
            return _blank, (type(obj),), {**small, **vars(obj), '_iterator': None}  # with workers an iterator has no copy
        if hasattr(type(obj), '__wrapped__') and hasattr(obj, '__dict__'):
            return _blank, (type(obj),), vars(obj)  # nni.trace would send the class as code, and make another one
        return NotImplemented

    def _fits(self, size: int) -> bool:
        fits = size <= self._left
        self._left -= size * fits
        return fits

    def _keep(self, original: Any, value: Any) -> int:
        self._numbers[id(original)] = len(self.kept)
        self._originals.append(original)
        self.kept.append(value)
        return len(self.kept) - 1


class _Unpickler(pickle.Unpickler):
    """Reads what :class:`_Pickler` wrote."""

    def __init__(self, file: Any, kept: list[Any], buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, buffers=buffers)
        self._kept = kept

    def persistent_load(self, pid: Any) -> Any:
        return self._kept[pid]


def _blank(cls: Any) -> Any:
    return cls.__new__(cls)


def _generator_like(generator: torch.Generator) -> torch.Generator:
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin
