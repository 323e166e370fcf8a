"""Tracing: find out which tensors of a network share their channels, by running it once on the meta device.

Every index of every parameter's axis is a *unit*. While the network runs, each activation carries the unit of every one of
its values; wherever an operator forces two units to coincide (a sum, a batch norm, a depthwise convolution, a layer and its
input), they are joined. Data movement (views, slices, concatenations, channel shuffles) moves the units along. This module
knows nothing of NNI.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from ..errors import TransferError, reason
from ..utils.modules import modes_kept
from . import rules  # noqa: F401  (registers them)
from .axes import Channels
from .dispatch import ChannelTracer


def trace_channels(model: nn.Module, shape: tuple[int, ...], skip: frozenset[str] = frozenset()) -> Channels:
    """Run ``model`` once on the meta device and find its channels.

    Parameters
    ----------
    model
        Any network; it is not changed, and nothing is computed.
    shape
        Shape of its input, batch first: ``(n, channels, height, width)`` or ``(n, features)``.
    skip
        Names of parameters that have no channels (alphas).

    Raises
    ------
    TransferError
        If the network does not run on such an input; the message names the module.
    """
    stand_ins: dict[str, Tensor] = {}
    mode = ChannelTracer()
    first: dict[int, Tensor] = {}
    # Meta tensors take the place of the parameters and buffers; shared tensors keep sharing one.
    for path, module in model.named_modules():  # each module once, under the first of its names
        for local, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            name = f'{path}.{local}' if path else local
            if not tensor.is_floating_point():
                continue  # integer buffers may be used as indices
            if id(tensor) not in first:
                first[id(tensor)] = torch.empty_like(tensor, device='meta', requires_grad=False)
                if name not in skip:
                    first[id(tensor)]._units = mode.parameter(name, tuple(tensor.shape))  # type: ignore[attr-defined]
            stand_ins[name] = first[id(tensor)]
            if local in module._non_persistent_buffers_set:
                mode.constant.add(name)  # no file has it
    # The input's channels are units of their own.
    kinds = [p.dtype for p in model.parameters() if p.is_floating_point()]
    x = torch.empty(shape, device='meta', dtype=kinds[0] if kinds else None)
    ids = mode.new(shape[1])
    mode.inputs = frozenset(ids.tolist())
    x._units = ids.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)  # type: ignore[attr-defined]
    # Run the network; the mode sees every operator.
    names = {id(module): name for name, module in model.named_modules()}
    try:
        with modes_kept(model), torch.no_grad(), _watching(names, mode), mode, _ContiguousProducts():
            model.eval()
            output = torch.func.functional_call(model, stand_ins, (x,), tie_weights=False)
        found = mode.result(ids, output)
    except Exception as error:  # a user's forward method may raise anything
        raise TransferError(
            f'{_place(model, mode)} does not run on an input of shape {tuple(shape)} without data ({reason(error)[:200]}).'
        ) from error
    return replace(found, tensors={name: axes for name, axes in found.tensors.items() if name not in mode.constant})


class _ContiguousProducts(TorchFunctionMode):
    """Makes the inputs of linear layers contiguous: for others ATen expands the weight and multiplies in batches."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS and args and isinstance(args[0], Tensor):
            args = (args[0].contiguous(), *args[1:])
        return func(*args, **(kwargs or {}))


_PRODUCTS = frozenset({nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__})


def _place(model: nn.Module, mode: ChannelTracer) -> str:
    path = mode.stack[-1] if mode.stack else ''
    module = model.get_submodule(path) if path else model
    return f'module {path!r} ({type(module).__name__})' if path else type(model).__name__


@contextmanager
def _watching(names: dict[int, str], mode: ChannelTracer) -> Iterator[None]:
    """Tell ``mode`` which module runs, and by what factor the module changes the image size."""

    def before(module: nn.Module, inputs: Any) -> None:
        if id(module) in names:
            mode.stack.append(names[id(module)])
            mode.sizes.append(_image_size(inputs))

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) in names:
            path, size, made = mode.stack.pop(), mode.sizes.pop(), _image_size(output)
            if isinstance(output, Tensor) and [getattr(x, 'shape', None) for x in inputs] == [output.shape]:
                mode.keeps.add(path)
            if size and made:
                mode.scales.setdefault(path, made / size)

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _image_size(tensors: Any) -> int:
    """Return the width of the last image in nested tensors, 0 if there is none."""
    while isinstance(tensors, list | tuple):
        if not tensors:
            return 0
        tensors = tensors[-1]
    return tensors.shape[-1] if isinstance(tensors, Tensor) and tensors.dim() >= 3 else 0
