"""Images of a pretrained network: how they were normalised, and a network that takes standardised ones instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

IMAGENET: Mapping[str, Sequence[float]] = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
"""Mean and standard deviation of the channels of ImageNet's images, for pixels from 0 to 1."""


def normalisation(mean: Sequence[float], std: Sequence[float]) -> dict[str, list[float]]:
    """Return what a card says of the images of a network: mean and deviation of each channel, of pixels from 0 to 1."""
    return {'mean': [float(value) for value in mean], 'std': [float(value) for value in std]}


def take_standardised(network: nn.Module, normalised_by: Mapping[str, Sequence[float]]) -> None:
    r"""Change the first convolution of a network that was trained on ImageNet, in place, to take standardised images.

    The evaluators of this package give the channels of a task's images the mean 0 and the standard deviation 1. A network
    whose images were normalised by mean :math:`m` and deviation :math:`s` has seen channels of mean
    :math:`(m_I - m) / s` and deviation :math:`s_I / s`, with those of ImageNet, :math:`m_I` and :math:`s_I`. The weights are
    multiplied by the one, and the other goes into the bias. That is exact but for the pixels at the border, where padding
    adds zeros. A network that was normalised by ImageNet's own statistics is not changed.

    Parameters
    ----------
    network
        Network with its weights.
    normalised_by
        Its normalisation: 'mean' and 'std' of each channel, for pixels from 0 to 1.
    """
    (own_mean, own_std), (mean, std) = (
        (torch.tensor(each['mean']), torch.tensor(each['std'])) for each in (normalised_by, IMAGENET)
    )
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        return
    scale, shift = (values.to(first.weight) for values in (std / own_std, (mean - own_mean) / own_std))
    if torch.allclose(scale, torch.ones(3), atol=1e-3) and torch.allclose(shift, torch.zeros(3), atol=1e-3):
        return
    with torch.no_grad():
        moved: Tensor = first.weight.sum((2, 3)) @ shift
        first.weight *= scale.view(1, 3, 1, 1)
        first.bias = nn.Parameter(moved if first.bias is None else first.bias + moved)
