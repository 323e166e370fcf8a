"""Divergence of a training: numbers that are not finite, or far beyond those of any network that works."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

LARGEST = 1e6
"""Largest absolute value of a weight of a training that counts as sound.

Weights of networks that work are below a thousand or so, whereas those of a training that diverges grow by orders of
magnitude per epoch. Batch norm hides this: outputs do not change with the scale of the weights before it, so that losses
stay finite and look ordinary.
"""


def divergence(weights: Iterable[tuple[str, Tensor]], figures: Mapping[str, Any] | None = None) -> str | None:
    """Return what shows that a training has diverged, such as 'train_loss is nan'; None if nothing does.

    Parameters
    ----------
    weights
        Names and values of the trained parameters.
    figures
        Logged figures, of which those with 'loss' in their name have to be finite. A large one may be sound: the loss of
        a validation after a few steps is, where batch norm has seen few images, and so is that of a regression.
    """
    for name, value in (figures or {}).items():
        if 'loss' in name and not math.isfinite(float(value)):
            return f'{name} is {float(value)}'
    named = [(name, tensor.detach()) for name, tensor in weights if tensor.numel()]
    if not named:
        return None
    largest = torch.stack([tensor.abs().amax().double().cpu() for _, tensor in named])
    bad = (~(largest <= LARGEST)).nonzero()
    if not len(bad):
        return None
    first = int(bad[0])
    value = float(largest[first])
    return f'{named[first][0]} reaches {value:.3g}' + (f', more than {LARGEST:.0e}' if math.isfinite(value) else '')
