"""Inputs of models: a tensor, or lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_fabric.utilities import move_data_to_device
from torch import Tensor


def to_device(inputs: Any, device: Any) -> Any:
    """Move every tensor of an input to a device."""
    return move_data_to_device(inputs, device)


def size_of(inputs: Any) -> int:
    """Return the number of samples in an input, by its first tensor that has dimensions; 0 without any.

    >>> import torch
    >>> size_of({'image': torch.zeros(4, 3), 'scale': torch.tensor(2.0)})
    4
    """
    if isinstance(inputs, Tensor):
        return len(inputs) if inputs.ndim else 0
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, list | tuple) else ()
    return next((size for size in map(size_of, parts) if size), 0)
