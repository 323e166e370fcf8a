"""Depthwise convolutions whose gradients oneDNN computes slowly, from others that it computes fast.

On CPUs that are kernels wider than three pixels, and dilated and strided ones. The gradient of the input is a convolution
of the same kind, with the kernel mirrored. That of the weights is computed for at most three columns of a kernel at once. A
dilated convolution is an ordinary one on every second pixel; one of stride 2 is the sum of four of stride 1, one for each
parity of rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..nni_adapter.mixed import Convolution
from .layout import channels_last

_COLUMNS = 3
"""Largest width of a kernel for which oneDNN computes gradients of weights fast."""


def is_slow(x: Tensor, layer: Convolution) -> bool:
    """Check whether a convolution is one of those that this module computes."""
    channels, _, size, width = layer.weight.shape
    step = layer.dilation[0]
    half = size // 2 * step
    return (
        layer.groups == channels == x.shape[1]
        and size == width
        and size % 2 == 1
        and layer.stride in ((1, 1), (2, 2))
        and layer.dilation in ((1, 1), (2, 2))
        and layer.padding == (half, half)
        and (size > _COLUMNS or step > 1 or layer.stride == (2, 2))
        and x.device.type == 'cpu'
        and not _autocasts()
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.dtype == layer.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and x.shape[2] % 2 == x.shape[3] % 2 == 0
    )


def _autocasts() -> bool:
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4 and later
        return torch.is_autocast_enabled('cpu')
    return torch.is_autocast_cpu_enabled()


def convolved(x: Tensor, layer: Convolution) -> Tensor:
    """Return what a layer computes, in less time if it is a slow one."""
    weight, bias = layer.weight, layer.bias
    if not is_slow(x, layer):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if layer.stride == (1, 1):
        found = depthwise(x, weight, layer.dilation[0])
    elif layer.dilation == (2, 2):  # reads every second pixel only
        found = depthwise(halved(x), weight, 1)
    else:
        found = strided(by_parity(x), weight)
    return found if bias is None else found + bias.view(-1, 1, 1)


def halved(x: Tensor) -> Tensor:
    """Return every second pixel of images."""
    return channels_last(x[:, :, ::2, ::2])


def by_parity(x: Tensor) -> Tensor:
    """Return images of pixels of one parity of rows and columns, shape ``(n, 4 * channels, height / 2, width / 2)``."""
    n, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return pixels.reshape(n, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)


def strided(parities: Tensor, weight: Tensor) -> Tensor:
    """Return a depthwise convolution of stride 2, which keeps the size but for the stride.

    Parameters
    ----------
    parities
        Images as :func:`by_parity` returns them.
    weight
        Kernels, shape ``(channels, 1, k, k)``, with k odd.
    """
    channels, size = len(weight), weight.shape[2]
    reach = (size // 2 + 1) // 2  # of the kernels for one parity, on both sides
    taps = 2 * reach + 1
    before = 2 * reach - size // 2
    whole = F.pad(weight, (before, 2 * taps - size - before) * 2).view(channels, taps, 2, taps, 2)
    kernels = whole.permute(2, 4, 0, 1, 3).reshape(4 * channels, 1, taps, taps)
    n, _, height, width = parities.shape
    found = depthwise(parities, kernels, 1).permute(0, 2, 3, 1).reshape(n, height, width, 4, channels)
    return found.sum(3).permute(0, 3, 1, 2)


def depthwise(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Return the depthwise convolution of stride 1 that keeps the size of its input.

    Parameters
    ----------
    x
        Images, shape ``(n, channels, height, width)``; sizes are multiples of ``dilation``.
    weight
        Kernels, shape ``(channels, 1, k, k)``, with k odd.
    dilation
        Distance of the kernel's taps in pixels.
    """
    half = weight.shape[2] // 2
    reached = min(half, (max(x.shape[2:]) - 1) // dilation)  # other taps of the kernel see nothing but padding
    if reached > x.shape[3] // dilation:
        return _same(x, weight, dilation)
    used = slice(half - reached, half + reached + 1)
    return _Depthwise.apply(x, weight[:, :, used, used], dilation)  # type: ignore[return-value]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.dilation = dilation
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.size = x.shape
        return _same(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # second derivatives
            return *_differentiable(gradient, x, weight, ctx.dilation, ctx.size, (of_x, of_weight)), None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            _same(gradient, weight.flip(2, 3), ctx.dilation) if of_x else None,
            weight_gradient(x, gradient, weight.shape[2], ctx.dilation) if of_weight else None,
            None,
        )


def _same(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[2] // 2 * dilation, dilation=dilation, groups=len(weight))


def _differentiable(gradient: Tensor, x: Any, weight: Tensor, dilation: int, size: Any, wanted: tuple[bool, bool]) -> Any:
    padding = weight.shape[2] // 2 * dilation
    x = gradient.new_zeros(size) if x is None else x
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], len(weight), [*wanted, False]
    )
    return found[:2]


def weight_gradient(x: Tensor, gradient: Tensor, size: int, dilation: int) -> Tensor:
    """Return the gradient of the kernels, shape ``(channels, 1, size, size)``.

    Parameters
    ----------
    x, gradient
        Input, and gradient of the output, both of shape ``(n, channels, height, width)``.
    size
        Rows and columns of a kernel.
    dilation
        Distance of its taps in pixels.
    """
    if dilation > 1:
        x, gradient = _apart(x, dilation), _apart(gradient, dilation)
    channels, half = x.shape[1], size // 2
    parts = []
    for first in range(0, size, _COLUMNS):
        columns = min(_COLUMNS, size - first)
        left = half - first
        whole = columns == size  # no columns to add
        moved = x if whole else _padded(x, left, columns - 1 - left)
        parts.append(
            torch.ops.aten.convolution_backward(
                gradient, moved, x.new_empty(channels, 1, size, columns), None,
                [1, 1], [half, half if whole else 0], [1, 1], False, [0, 0], channels, [False, True, False],
            )[1]
        )  # fmt: skip
    return torch.cat(parts, 3) if len(parts) > 1 else parts[0]


def _padded(x: Tensor, left: int, right: int) -> Tensor:
    """Return images with columns of zeros added, or, for negative numbers, columns taken away."""
    n, channels, height, width = x.shape
    rows = F.pad(x.permute(0, 2, 3, 1).reshape(n, height, width * channels), (left * channels, right * channels))
    return rows.view(n, height, width + left + right, channels).permute(0, 3, 1, 2)


def _apart(x: Tensor, step: int) -> Tensor:
    """Return every ``step``-th pixel of the images as images of their own, shape ``(step * step * n, channels, ...)``."""
    n, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, height // step, step, width // step, step, channels)
    pixels = pixels.permute(2, 4, 0, 1, 3, 5).reshape(step * step * n, height // step, width // step, channels)
    return pixels.permute(0, 3, 1, 2)
