"""Bounds on a model space that a file describes: it is not made larger than the tensors in the file can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ..errors import ConfigError

LARGEST_NUMBER, MOST_ITEMS = 10**6, 10**4
"""Bounds on the arguments of a space in a file: on every number, and on all items together."""


@dataclass(frozen=True)
class Most:
    """Largest size of a model space.

    Attributes
    ----------
    modules
        Number of modules.
    numbers
        Number of elements of parameters and buffers.
    """

    modules: int
    numbers: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], share: float = 1.0) -> Most:
        """Return bounds that no space exceeds of which these tensors are at least a ``share``."""
        numbers = sum(tensor.numel() for tensor in tensors.values())
        return cls(2000 + int(50 * len(tensors) / share), 10**6 + int(4 * numbers / share))


@contextmanager
def at_most(most: Most) -> Iterator[None]:
    """Raise an error as soon as the modules that are made in this context exceed a size, before they are initialised.

    Raises
    ------
    ConfigError
        If they do.
    """
    modules = numbers = 0

    def count_module(module: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > most.modules:
            raise ConfigError(f'the space has more than {most.modules} modules, far more than its file has tensors.')

    def count_tensor(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers
        numbers += 0 if tensor is None else tensor.numel()
        if numbers > most.numbers:
            raise ConfigError(f'the space has more than {most.numbers:,} numbers, far more than its file.')

    handles = [
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_tensor),
        register_module_buffer_registration_hook(count_tensor),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_plain_sizes(arguments: Any) -> None:
    """Raise an error for arguments of a space that no space needs: huge numbers, and lists without end.

    Raises
    ------
    ConfigError
        If there are such.
    """
    level, count = [arguments], 0
    while level:
        count += len(level)
        if count > MOST_ITEMS:
            raise ConfigError(f'the arguments of the space have more than {MOST_ITEMS} items.')
        for item in level:
            if isinstance(item, int | float) and not abs(item) <= LARGEST_NUMBER:
                raise ConfigError(f'the space has the argument {str(item)[:20]}, beyond {LARGEST_NUMBER}.')
        inside = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inside for item in items]
