"""Random changes of training images, drawn for each image; shapes ``(n, c, h, w)`` stay the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images; 0 switches one off.

    Attributes
    ----------
    jitter
        Strength of :func:`jittered`.
    crop
        Share of the image size by which :func:`cropped` shifts.
    cutout
        Size of the square that :func:`cut_out` sets to zero, as a share of the image size.
    """

    jitter: float = 0.0
    crop: float = 0.0
    cutout: float = 0.0

    def __call__(self, x: Tensor, *, flip: bool = False) -> Tensor:
        """Return augmented images; ``flip`` tells whether a mirrored image has the same class."""
        if flip:
            x = flipped(x)
        return cut_out(jittered(cropped(x, self.crop), self.jitter), self.cutout)


def flipped(x: Tensor) -> Tensor:
    """Mirror every other image, at random, left to right."""
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(-1), x)


def cropped(x: Tensor, share: float) -> Tensor:
    """Pad images with zeros and crop them at random, up to ``share`` of the image size away (He et al., 2016)."""
    pad = round(share * x.shape[-1])
    if pad == 0:
        return x
    n, _, height, width = x.shape
    down, right = torch.randint(0, 2 * pad + 1, (2, n, 1), device=x.device)
    rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (right + torch.arange(width, device=x.device))[:, None, None, :]
    images, channels = (torch.arange(size, device=x.device) for size in x.shape[:2])
    return F.pad(x, [pad] * 4)[images[:, None, None, None], channels[:, None, None], rows, columns]


def jittered(x: Tensor, strength: float) -> Tensor:
    """Rotate, scale and shift images at random; borders are repeated.

    Angles are at most ``strength`` radians in either direction, changes of scale and shifts at most ``strength`` of the
    size.
    """
    if strength == 0:
        return x
    angle, scale, right, down = strength * (2 * torch.rand(4, len(x), device=x.device) - 1)
    cosine, sine = torch.cos(angle) * (1 + scale), torch.sin(angle) * (1 + scale)
    matrix = torch.stack([torch.stack([cosine, -sine, 2 * right], 1), torch.stack([sine, cosine, 2 * down], 1)], 1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode='border', align_corners=False)


def cut_out(x: Tensor, share: float) -> Tensor:
    """Set one square of every image to zero, with a random centre (DeVries & Taylor, arXiv 1708.04552)."""
    if share == 0:
        return x
    height, width = x.shape[-2:]
    y, z = torch.rand(2, len(x), 1, 1, 1, device=x.device)
    rows = torch.arange(height, device=x.device)[:, None] + 0.5
    columns = torch.arange(width, device=x.device) + 0.5
    inside = ((rows - y * height).abs() < share * height / 2) & ((columns - z * width).abs() < share * width / 2)
    return x.masked_fill(inside, 0.0)
