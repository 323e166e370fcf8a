"""Construction of modules from arguments of unknown origin, stopped once it makes more than a file could hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TransferError

_PER_TENSOR = 50  # calls of torch for a tensor of a module: to make it, to fill it, and for what goes with it

_SOME_CALLS, _SOME_BYTES = 10_000, 10**8  # for small files, and heads of very many classes

_LARGEST, _MOST_ITEMS = 10**6, 10**4  # of the arguments: loops and lists of Python's own call nothing of torch


class Bounded(TorchDispatchMode):
    """Mode in which modules are made whose tensors are expected to be about as many and as large as given ones.

    What is larger by far is refused before memory is used for it.

    Parameters
    ----------
    tensors
        Tensors of the modules, as a file holds them.
    arguments
        Arguments that the modules are made with, as a file holds them.

    Raises
    ------
    TransferError
        If more is made, or an argument is huge.
    """

    def __init__(self, tensors: Iterable[Tensor], arguments: Any = None) -> None:
        super().__init__()
        _check_sizes(arguments)
        sizes = [tensor.numel() for tensor in tensors]
        self._calls = _SOME_CALLS + _PER_TENSOR * len(sizes)
        self._bytes = _SOME_BYTES + 8 * 4 * sum(sizes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls -= 1
        if args and isinstance(args[0], list | tuple) and all(isinstance(size, int) for size in args[0]):
            self._bytes -= 8 * math.prod(args[0])  # a call that makes a tensor begins with its shape
        if self._calls < 0 or self._bytes < 0:
            raise TransferError('it would be far larger than the tensors that are there.')
        return func(*args, **(kwargs or {}))


def _check_sizes(arguments: Any) -> None:
    """Raise an error for arguments that no space needs: huge numbers, and lists without end."""
    level, count = [arguments], 0
    while level:
        count += len(level)
        if count > _MOST_ITEMS:
            raise TransferError(f'its arguments have more than {_MOST_ITEMS} items.')
        for item in level:
            if isinstance(item, int | float) and not abs(item) <= _LARGEST:
                raise TransferError(f'its argument {str(item)[:20]} is beyond {_LARGEST}.')
        inside = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inside for item in items]
