"""Facts about the layers of a network that only a run shows: sizes, places of the taps, epsilons of norms, activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from ..utils.modules import modes_kept

aten = torch.ops.aten

PRELU = 'prelu'
"""Activation with weights of its own."""

_ACTIVATIONS = {
    getattr(aten, name): PRELU if name == '_prelu_kernel' else name.removesuffix('_')
    for name in (
        'relu', 'relu_', 'hardswish', 'hardswish_', 'silu', 'silu_', 'hardsigmoid', 'hardsigmoid_', 'sigmoid', 'sigmoid_',
        'gelu', 'leaky_relu', 'leaky_relu_', 'elu', 'elu_', 'mish', 'mish_', 'tanh', 'tanh_', 'hardtanh', 'hardtanh_',
        '_prelu_kernel',
    )
}  # fmt: skip


class Layer(NamedTuple):
    """Facts about a layer.

    Attributes
    ----------
    size
        Image size (pixels) of its output; 1 for vectors.
    start
        Place of the first tap of a convolution's kernel, relative to the pixel of its output times the stride, for each
        dimension: -1 for a centred kernel of 3 pixels, 0 where only the right and lower sides are padded. Empty for others.
    eps
        Constant that a batch norm adds to its variances; 0 for other layers.
    activation
        Function that is applied to its output as it is, such as 'relu', 'relu6' or 'hardswish'; '' for none.
    shortcut
        Function that made what is added to its output, likewise: 'relu' in a ResNet, whose blocks end with one.
    """

    size: int = 1
    start: tuple[int, ...] = ()
    eps: float = 0.0
    activation: str = ''
    shortcut: str = ''


def layers_of(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Layer]:
    """Run a network once on zeros in evaluation mode, and return the facts about its layers by path, in the order of runs.

    Parameters
    ----------
    model
        Any network; random choices have to be fixed by the caller. It is not changed.
    shape
        Shape of its input, batch first.
    """
    like = next(model.parameters())
    seen = _Watch()
    with modes_kept(model), torch.no_grad(), _hooked(model, seen), seen:
        model.eval()(torch.zeros(shape, dtype=like.dtype, device=like.device))
    return seen.layers


class _Watch(TorchDispatchMode):
    """Remembers which tensors are padded, where the kernels of convolutions begin, and what is applied to their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: dict[str, Layer] = {}
        self.stack: list[str] = []
        self.start: dict[str, tuple[int, ...]] = {}

    def note_activation(self, func: Any, args: Any, output: Any) -> None:
        """Note which activation follows the layer that made the input of an operator, and which made its shortcut."""
        inputs: list[Any] = [each for each in args if isinstance(each, Tensor)]
        kind = _ACTIVATIONS.get(func.overloadpacket, '')
        made = [getattr(each, '_made_by', '') for each in inputs]
        if kind in ('hardtanh', 'leaky_relu', 'elu'):  # whose numbers tell them apart
            kind = 'relu6' if (kind, *args[1:3]) == ('hardtanh', 0, 6) else f'{kind}{tuple(args[1:3])}'
        if kind and made[0] and not self.layers[made[0]].activation:
            self.layers[made[0]] = self.layers[made[0]]._replace(activation=kind)
        elif func.overloadpacket in (aten.add, aten.add_) and len(inputs) == 2:
            for path, other in zip(made, reversed(inputs), strict=True):
                if path and getattr(other, '_activation', ''):
                    self.layers[path] = self.layers[path]._replace(shortcut=other._activation)
        if func.overloadpacket is aten.max_pool2d_with_indices:  # commutes with activations that increase
            output[0]._activation = getattr(args[0], '_activation', '')
        elif isinstance(output, Tensor) and (kind or func._schema.is_mutable):
            marked: Any = output
            marked._activation = kind
            marked._made_by = made[0] if kind and output is args[0] else ''

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.note_activation(func, args, output)
        if func.overloadpacket is aten.constant_pad_nd:
            output._padded = tuple(reversed(args[1][::2]))  # what is before the first pixel
        elif func.overloadpacket is aten.convolution and self.stack:
            dims = len(args[4])
            before = getattr(args[0], '_padded', ())[-dims:]
            before = (0,) * (dims - len(before)) + before
            self.start.setdefault(self.stack[-1], tuple(-a - b for a, b in zip(before, args[4], strict=True)))
        return output


@contextmanager
def _hooked(model: nn.Module, seen: _Watch) -> Iterator[None]:
    def before(path: str) -> Any:
        return lambda module, inputs: seen.stack.append(path)

    def after(path: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.stack.pop()
            if path not in seen.layers and isinstance(output, Tensor):
                eps = float(module.eps) if isinstance(module, _BatchNorm) else 0.0
                seen.layers[path] = Layer(output.shape[-1] if output.dim() > 2 else 1, seen.start.get(path, ()), eps)
                output._made_by = path  # pyright: ignore[reportAttributeAccessIssue]

        return keep

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if isinstance(module, _BatchNorm) or next(module.parameters(recurse=False), None) is not None:
                hooks.callback(module.register_forward_pre_hook(before(path)).remove)
                hooks.callback(module.register_forward_hook(after(path)).remove)
        yield
