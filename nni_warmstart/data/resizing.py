"""Resizing: images of any size and 1 or 3 channels become images of one shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PART = 2**25
"""Pixels that are resized at once, as float32: as a whole, a large set would take four times its memory."""


def resize_images(x: Tensor, channels: int, image_size: int) -> Tensor:
    """Convert images to a number of channels and a size.

    Grey images are repeated to colour, colour is averaged to grey; sizes change by antialiased bilinear interpolation.

    Parameters
    ----------
    x
        Images, shape ``(n, channels, height, width)``, uint8 or floating point.
    channels, image_size
        Channels and size in pixels of the result.

    Returns
    -------
    Tensor
        Images, shape ``(n, channels, image_size, image_size)``. Resized uint8 images are rounded to uint8; other images, and
        those that are averaged, become float32.

    Raises
    ------
    ValueError
        If the number of channels is neither 1 nor ``channels``, and ``channels`` is not 1.
    """
    if x.shape[1] not in (1, channels) and channels != 1:
        raise ValueError(f'{x.shape[1]} channels cannot become {channels}.')
    same_size = tuple(x.shape[-2:]) == (image_size, image_size)
    if not len(x) or (same_size and x.shape[1] == channels):
        return x
    if same_size and channels != 1:
        return x.expand(-1, channels, -1, -1)
    averaged = x.shape[1] != channels == 1
    dtype = torch.uint8 if x.dtype == torch.uint8 and not averaged else torch.float32
    resized = x.new_empty(len(x), channels, image_size, image_size, dtype=dtype)
    size = max(1, _PART // (channels * max(x.shape[-2] * x.shape[-1], image_size**2)))
    for part, place in zip(x.split(size), resized.split(size), strict=True):
        part = part.float().mean(1, keepdim=True) if averaged else part.expand(-1, channels, -1, -1).float()
        if not same_size:
            part = F.interpolate(part, (image_size, image_size), mode='bilinear', antialias=True, align_corners=False)
        place.copy_(part.round().clamp(0, 255) if dtype == torch.uint8 else part)
    return resized
