"""Activations and gates that only one side has: means of a network's gates, constant ones, and scales of activations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_POINTS = 64  # of the quadrature

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'relu': F.relu, 'relu6': F.relu6, 'hardswish': F.hardswish, 'silu': F.silu, 'hardsigmoid': F.hardsigmoid,
    'sigmoid': torch.sigmoid, 'gelu': F.gelu, 'mish': F.mish, 'tanh': torch.tanh, '': lambda x: x,
}  # fmt: skip
"""Activations whose means are known how to compute, by name."""

SHARPENED = {(before, now) for before in ('relu', 'relu6') for now in ('hardswish', 'silu')}
"""Activation of a network and of a target, where the target's is nearly the network's for large inputs."""

SHARPNESS = 4.0
"""Factor s by which such inputs are scaled, for ``hardswish(s x) / s`` is at most 0.375 / s away from ``relu(x)``."""

_OPEN = {'hardsigmoid': 3 * (1 - 1e-6), 'sigmoid': 12.0}


def mean_after_norm(scale: Tensor, shift: Tensor, activation: str) -> Tensor:
    r"""Return the mean of ``activation(shift + scale * z)`` over a standard normal z, channel by channel.

    A batch norm gives its output this mean and standard deviation on the data on which its statistics were taken.

    Parameters
    ----------
    scale, shift
        Weight and bias of the norm, shape ``(n,)``.
    activation
        Name of the activation, one of :data:`ACTIVATIONS`.
    """
    probability = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    z = math.sqrt(2) * torch.erfinv(2 * probability - 1)
    return ACTIVATIONS[activation](shift.double()[:, None] + scale.double()[:, None] * z).mean(1)


def mean_gate(
    means: Tensor, reduce: tuple[Tensor, Tensor], expand: tuple[Tensor, Tensor], activations: tuple[str, str]
) -> Tensor:
    """Return a gate's factors at the mean of its input, shape ``(n,)``.

    Parameters
    ----------
    means
        Means of the channels over images and pixels, shape ``(n,)``.
    reduce, expand
        Weight and bias of its two layers.
    activations
        Names of the activations after them.
    """
    hidden = ACTIVATIONS[activations[0]](reduce[0].double().flatten(1) @ means + reduce[1].double())
    return ACTIVATIONS[activations[1]](expand[0].double().flatten(1) @ hidden + expand[1].double())


def constant_gate(activation: str, is_optional: bool) -> tuple[float, float] | None:
    """Return the logit of a gate that starts constant, and its factor; None for other activations than sigmoids.

    Beside a candidate without a gate the factor has to be 1 (nearly, for a sigmoid); elsewhere it is one half, where the
    gate learns fastest, and the following layer makes up for it.
    """
    if activation not in _OPEN:
        return None
    return (_OPEN[activation], 1.0) if is_optional else (0.0, 0.5)
