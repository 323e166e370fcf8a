"""Order of images in memory: channels last, in which layers are faster on CPUs and on GPUs, where all code can take it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_KNOWN = ('torch', 'nni', 'nni_warmstart')
"""Packages whose modules take any order. Code of users may ask for a ``view`` that only one order has."""

_RANDOM = (nn.Dropout, nn.AlphaDropout, nn.RReLU)


def is_known(module: nn.Module) -> bool:
    """Check whether a module, without those inside of it, is of a package whose code takes any order in memory."""
    return type(module).__module__.partition('.')[0] in _KNOWN


def takes_any_order(module: nn.Module) -> bool:
    """Check whether a module and all modules inside of it are of packages whose code takes any order in memory.

    Layers that draw a random number for each pixel are not: they draw in the order of the memory.
    """
    return all(is_known(each) and not isinstance(each, _RANDOM) for each in module.modules())


def may_write(module: nn.Module) -> bool:
    """Check whether a module may change its input in place: where it says so, or has code of users."""
    return any(getattr(each, 'inplace', False) or not is_known(each) for each in module.modules())


def channels_last(x: Any) -> Any:
    """Return images with channels last in memory; other tensors, and what is no tensor, as they are."""
    images = isinstance(x, Tensor) and x.dim() == 4
    return x.contiguous(memory_format=torch.channels_last) if images else x


def is_channels_last(x: Any) -> bool:
    """Check whether images have channels last in memory; False if both orders are one, as for images of one pixel."""
    images = isinstance(x, Tensor) and x.dim() == 4
    return images and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
