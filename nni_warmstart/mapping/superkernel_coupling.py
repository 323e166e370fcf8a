"""Couplings for widths that are searched: the strongest channels come first, and spare channels add nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracing.axes import IN
from ..tracing.channel_spaces import ChannelSpace, Couple
from ..tracing.structure import Structure
from .mapper import evenly

_NOTHING = 1e-30  # share of what is read from a channel that its spare copies get


def strongest_first(state: Mapping[str, Tensor], source: Structure, target: Structure) -> Couple:
    """Make couplings for a network without data.

    A space with fewer channels keeps the strongest. In a space whose width is searched, of which narrower candidates take
    the first channels, the strongest come first; channels to spare are copies from which nothing is read, so that every
    candidate that is wide enough computes the same. Other wider spaces are coupled evenly.

    Selection by covariances (:func:`~nni_warmstart.mapping.narrowing.select_channels`) takes minutes for the thousand
    channels that the blocks of pretrained networks have.

    Parameters
    ----------
    state, source
        Tensors and structure of the network.
    target
        Structure of the model space.
    """
    even, searched = evenly(source), _searched_channels(target)

    def couple(source_space: ChannelSpace, target_space: ChannelSpace) -> Tensor:
        count, wanted = len(source_space), len(target_space)
        is_searched = bool(np.isin(target_space.channels, searched).any())
        if np.isin(source_space.channels, source.channels.inputs).any() or (wanted >= count and not is_searched):
            return even(source_space, target_space)
        order = strengths(source_space, state, source).argsort(descending=True, stable=True)
        if not is_searched:
            order = order[:wanted].sort().values
        coupling = F.one_hot(order.repeat(wanted // count + 1)[:wanted], count).T.double()
        coupling[:, count:] *= _NOTHING
        return coupling

    return couple


def strengths(space: ChannelSpace, state: Mapping[str, Tensor], source: Structure) -> Tensor:
    """Return the strength of each channel of a space, shape ``(n,)``.

    It is the product of the squares of the weights that read it, and of the scale and shift that norms give it.
    """
    strength = torch.ones(len(space), dtype=torch.float64)
    for name, axis, _ in sorted(space.places):
        axes, path = source.channels.tensors[name], name.rpartition('.')[0]
        held = axes.channels[axis]
        if held is None or held.ndim != 1 or not np.array_equal(held, space.channels):
            continue
        if axes.roles[axis] == IN:
            strength *= state[name].double().movedim(axis, 0).flatten(1).square().sum(1)
        elif f'{path}.running_mean' in state and name.endswith('.weight'):
            strength *= state[name].double().square() + state[f'{path}.bias'].double().square()
    return strength


def _searched_channels(target: Structure) -> np.ndarray:
    """Return the channels of axes whose width is searched."""
    found = [
        channels.ravel()
        for axes in target.channels.tensors.values()
        for role, channels, bounds in zip(axes.roles, axes.channels, axes.bounds, strict=True)
        if role and bounds and channels is not None
    ]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, int)
