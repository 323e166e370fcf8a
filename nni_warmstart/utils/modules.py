"""State of a network: its modes, tensors, and the extra state of modules that have one (``get_extra_state``)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_EXTRA = '_extra_state'
"""Name of an extra state in the state of a module, as torch has it."""


def unwrapped(model: Any) -> Any:
    """Return the network in a wrapper for several devices; anything else unchanged."""
    return model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the mode of every module at the end, including modules that were frozen among others in training."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def tensors_of(module: nn.Module, *, keep_vars: bool = False) -> dict[str, Tensor]:
    """Return the state of a module as far as it consists of tensors; extra state may be anything."""
    state: dict[str, Any] = module.state_dict(keep_vars=keep_vars)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def untold_state(module: nn.Module) -> dict[str, Any]:
    """Return the extra state of modules that is no tensor, by its name."""
    return {name: value for name, value in module.state_dict().items() if not isinstance(value, Tensor)}


def write_tensor(module: nn.Module, name: str, own: Tensor, value: Tensor) -> None:
    """Write a value in place of one of :func:`tensors_of`, ``own``, which a module with extra state makes anew each time."""
    path, _, last = name.rpartition('.')
    if last == _EXTRA:
        module.get_submodule(path).set_extra_state(value.to(own))
    else:
        own.copy_(value)


@contextmanager
def holding(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let some parameters and buffers hold other values within the context, without a copy of either."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: own[name].data for name in tensors}
    try:
        for name, value in tensors.items():
            own[name].data = value.to(own[name])
        yield
    finally:
        for name, value in before.items():
            own[name].data = value


@contextmanager
def forward_exchanged(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else within the context, by a ``forward`` of the instance."""
    before = vars(module).get('forward')
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Restore buffers and extra state at the end, to the bit: a module may change them in evaluation mode as well."""
    buffers = [
        (each, name, buffer, buffer.clone())
        for each in module.modules()
        for name, buffer in each.named_buffers(recurse=False)
    ]
    extra = [
        (each, copy.deepcopy(each.get_extra_state()))
        for each in module.modules()
        if type(each).set_extra_state is not nn.Module.set_extra_state
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for each, name, buffer, value in buffers:
                buffer.copy_(value)
                each._buffers[name] = buffer
        for each, state in extra:
            each.set_extra_state(state)
