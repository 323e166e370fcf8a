"""Resizing: images of any size and 1 or 3 channels become images of one shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    if x.shape[1] != channels:
        if channels == 1:
            x = x.float().mean(1, keepdim=True)
        elif x.shape[1] == 1:
            x = x.expand(-1, channels, -1, -1)
        else:
            raise ValueError(f'{x.shape[1]} channels cannot become {channels}.')
    if tuple(x.shape[-2:]) == (image_size, image_size) or not len(x):
        return x
    parts = [  # in chunks, so that large sets do not become float32 as a whole
        F.interpolate(part.float(), (image_size, image_size), mode='bilinear', antialias=True, align_corners=False)
        for part in x.split(1024)
    ]
    if x.dtype == torch.uint8:
        parts = [part.round().clamp(0, 255).to(torch.uint8) for part in parts]
    return torch.cat(parts)
