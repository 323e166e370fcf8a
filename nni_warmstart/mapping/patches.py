"""Inputs and outputs of layers at some places of an image, as rows of matrices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def is_plain(module: nn.Module) -> bool:
    """Check whether :func:`patches` supports a convolution."""
    return isinstance(module, nn.Conv2d) and module.padding_mode == 'zeros' and not isinstance(module.padding, str)


class Activations(dict[str, Tensor]):
    """Outputs of modules for some images: path of a module -> tensor of shape ``(rows, channels)``.

    Attributes
    ----------
    places
        Path of a module -> number of outputs per image and channel, of which the rows may be a part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, int] = {}


def count(y: Tensor) -> int:
    """Count outputs per image and channel: channels are the second dimension, or the last one of two or three."""
    return y[0, 0].numel() if y.dim() > 3 else y[0, ..., 0].numel()


def places(module: Any, x: Tensor) -> int:
    """Count the outputs of a linear layer or convolution per image and channel, from its input."""
    if isinstance(module, nn.Linear):
        return count(x)
    return _columns(module, x, 0) * _columns(module, x, 1)


def patches(module: Any, x: Tensor, where: Tensor) -> Tensor:
    """Return the input patches that a convolution multiplies with its weights for the outputs of :func:`at`.

    Parameters
    ----------
    module
        Convolution that passes :func:`is_plain`.
    x
        Input, shape ``(images, channels, height, width)``.
    where
        Places of the output to keep for each image, numbered row by row, shape ``(images, kept)``.

    Returns
    -------
    Tensor
        Patches, shape ``(images * kept, channels * taps)``.
    """
    (high, wide), (down, right), (apart, beside) = module.kernel_size, module.stride, module.dilation
    columns = _columns(module, x, 1)
    x = F.pad(x, (module.padding[1], module.padding[1], module.padding[0], module.padding[0]))
    corner = where // columns * down * x.shape[3] + where % columns * right
    taps = (torch.arange(high)[:, None] * apart * x.shape[3] + torch.arange(wide) * beside).flatten().to(x.device)
    index = (corner[:, :, None] + taps).flatten(1)
    taken = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
    return taken.unflatten(2, (-1, len(taps))).permute(0, 2, 1, 3).reshape(where.numel(), -1)


def at(y: Tensor, where: Tensor) -> Tensor:
    """Return the channels of images at some places of each, shape ``(images * kept, channels)``."""
    taken = y.flatten(2).gather(2, where[:, None].expand(-1, y.shape[1], -1))
    return taken.transpose(1, 2).flatten(0, 1)


def drawn(count: int, x: Tensor, rows: int) -> Tensor:
    """Draw the same places of every image for :func:`at`, ``rows`` of all images together, shape ``(images, kept)``.

    They are random, since a fixed stride might visit a single column.
    """
    found = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: max(rows // len(x), 1)]
    return found.to(x.device).expand(len(x), -1)


def _columns(module: Any, x: Tensor, axis: int) -> int:
    side = x.shape[2 + axis] + 2 * module.padding[axis]
    return (side - module.dilation[axis] * (module.kernel_size[axis] - 1) - 1) // module.stride[axis] + 1
