"""Convolutions of the candidates that enter one node as a single one, while gradients are off and batch norm is fixed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..nni_adapter.mixed import Convolution, convolution_of


def is_fixed(norm: Any) -> bool:
    """Check whether a batch norm is an affine function now: it normalises by its running statistics."""
    return not torch.is_grad_enabled() and not norm.training and norm.running_mean is not None


class Unconvolved(NamedTuple):
    """Input of a convolution that is computed together with others."""

    x: Tensor
    layer: Convolution


def unconvolved(x: Tensor, module: Any) -> Unconvolved | None:
    """Return the input of an ordinary convolution that keeps its size, so that kernels can be added; None for others."""
    layer = convolution_of(module, x)
    if layer is None or layer.groups != 1 or (layer.stride, layer.dilation) != ((1, 1), (1, 1)):
        return None
    height, width = layer.weight.shape[2:]
    odd = height == width and height % 2 == 1
    return Unconvolved(x, layer) if odd and layer.padding == (height // 2, width // 2) else None


class MergedConvolution:
    r"""Sum over candidates :math:`\sum_k w_k \, \mathrm{norm}_k(W_k * x_k + b_k)`, as one convolution.

    Batch norm and weights are folded into kernels (Jacob et al., arXiv 1712.05877, section 3.2), smaller kernels are padded
    and kernels of one input added (RepVGG: Ding et al., arXiv 2101.03697), and inputs concatenated along the channels.
    """

    def __init__(self) -> None:
        self._inputs: dict[int, Tensor] = {}
        self._kernels: dict[int, list[Tensor]] = {}
        self._shifts: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._inputs)

    def add(self, candidate: Unconvolved, norm: Any, weight: Tensor) -> None:
        """Add the candidate, normalised by a fixed batch norm, times its weight."""
        x, layer = candidate
        scale = weight * norm.weight * (norm.running_var + norm.eps).rsqrt()
        mean = norm.running_mean if layer.bias is None else norm.running_mean - layer.bias
        self._inputs[id(x)] = x
        self._kernels.setdefault(id(x), []).append(layer.weight * scale.view(-1, 1, 1, 1))
        self._shifts.append(weight * norm.bias - mean * scale)

    def output(self) -> Tensor:
        """Return the sum."""
        side = max(kernel.shape[2] for kernels in self._kernels.values() for kernel in kernels)
        kernels = [torch.stack([_padded(each, side) for each in found]).sum(0) for found in self._kernels.values()]
        x, kernel = (each[0] if len(each) == 1 else torch.cat(each, 1) for each in (list(self._inputs.values()), kernels))
        return F.conv2d(x, kernel, torch.stack(self._shifts).sum(0), padding=side // 2)


def _padded(kernel: Tensor, side: int) -> Tensor:
    return F.pad(kernel, [(side - kernel.shape[2]) // 2] * 4)
