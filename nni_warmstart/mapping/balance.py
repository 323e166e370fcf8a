"""Balance of weights that candidates of different widths and kernels share, for the mixture of all of them.

NNI mixes such candidates by one layer: each weight is multiplied by the probability of the candidates that have it. A
channel that only the wider candidates have is weakened by this, layer by layer, although batch norms expect it whole.
Divided by these probabilities, the weights let the mixture compute what the network does, for the alphas that it starts
with; so does the path of the network where these select it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .nearest_numbers import Numbers

_LEAST = 0.1  # of a probability: weights that hardly any candidate has do not become arbitrarily large


def balanced(
    weight: Tensor, axes: tuple[int, ...], searched: Numbers, probabilities: Mapping[str, Mapping[str, float]]
) -> Tensor:
    """Divide a weight by the probability of the candidates that have it, along the axes whose length is searched.

    Parameters
    ----------
    weight
        Weight of the widest candidate with the largest kernel.
    axes
        Axes of that length, which are cut together: 0 and 1 (channels) at the end, negative ones (of kernels) on both sides.
    searched
        Lengths by the candidates of the choices.
    probabilities
        Label of a choice -> candidate -> its probability.
    """
    lengths = [weight.shape[axis] for axis in axes]
    having = torch.zeros(lengths, dtype=torch.float64)
    for names, number in searched.numbers.items():
        probability = 1.0
        for label, name in zip(searched.labels, names, strict=True):
            probability *= probabilities[label][name]
        begins = [(length - number) // 2 if axis < 0 else 0 for axis, length in zip(axes, lengths, strict=True)]
        having[tuple(slice(begin, begin + number) for begin in begins)] += probability
    shape = [1] * weight.dim()
    for axis, length in zip(axes, lengths, strict=True):
        shape[axis] = length
    return (weight.double() / having.clamp_min(_LEAST).view(shape)).to(weight)
