"""Mapping of a network without choices onto all candidates of a model space that can compute what its layers do."""

from __future__ import annotations

from collections.abc import Mapping as Facts
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..tracing.axes import IN, Axes
from ..tracing.channel_spaces import ChannelSpace, Couple
from ..tracing.layers import Layer
from ..tracing.structure import Structure
from .layer_alignment import Alignment
from .mapper import Mapping, evenly, map_tensors
from .narrowing import regressing, weight_covariances


def extents_of(layers: Facts[str, Layer], source: Structure) -> dict[str, int]:
    """Return the size of the smallest centred kernel that contains the taps of each convolution, by its path."""
    tensors = source.channels.tensors
    found = {}
    for path, layer in layers.items():
        axes = tensors.get(f'{path}.weight')
        if layer.start and axes is not None and set(axes.dilation) == {1}:
            sizes = zip(layer.start, axes.shape[-len(layer.start) :], strict=True)
            found[path] = max(2 * max(abs(start), abs(start + size - 1)) + 1 for start, size in sizes)
    return found


def map_network(
    state: dict[str, Tensor],
    source: Structure,
    target: Structure,
    alignment: Alignment,
    layers: Facts[str, Layer],
    eps: Facts[str, float],
    skip: frozenset[str] = frozenset(),
) -> Mapping:
    """Map the tensors of a network, candidate by candidate, so that the path nearest to it computes what it does.

    Kernels that pad on one side are moved into larger centred ones that contain them, and kept whole where there is none;
    smaller kernels are the crop of most energy. Other epsilons of batch norms, and biases that the target lacks, are
    absorbed by the norms.

    Parameters
    ----------
    state, source
        Tensors and structure of the network.
    target
        Structure of the model space.
    alignment
        Alignment of the two.
    layers
        Facts about the network's layers by path.
    eps
        Constant that each batch norm of the target adds to its variances, by path.
    skip
        Target tensors that are left out.
    """
    covariances = weight_covariances(state, source)
    couple, share = strongest(state, source), regressing(covariances)
    found = alignment.correspondence
    whole: Mapping | None = None
    for pairs in alignment.rounds:
        fitting, structure = _fitted_to(pairs, state, source, target, layers, eps)
        mapping = map_tensors(
            fitting, structure, target, couple=couple, share=share, skip=skip, correspondence=replace(found, tensors=pairs)
        )
        if whole is None:
            whole = mapping
        else:  # the path goes first, where fixed layers and shared channels are mapped once more
            whole = replace(
                whole,
                tensors={**mapping.tensors, **whole.tensors}, pairs={**mapping.pairs, **whole.pairs},
                kinds={**mapping.kinds, **whole.kinds}, unmapped={**mapping.unmapped, **whole.unmapped},
                repeated=whole.repeated | mapping.repeated,
            )  # fmt: skip
    assert whole is not None
    return replace(whole, correspondence=found)


def strongest(state: dict[str, Tensor], source: Structure) -> Couple:
    """Make couplings that keep the strongest channels; spaces that do not shrink are coupled evenly.

    The strength of a channel is the product of the squares of the weights that read it, and of the scale and shift that
    norms give it. Selection by covariances (:func:`~nni_warmstart.mapping.narrowing.select_channels`) takes minutes for the
    thousand channels that the blocks of pretrained networks have.
    """
    even = evenly(source)

    def couple(source_space: ChannelSpace, target_space: ChannelSpace) -> Tensor:
        if len(target_space) >= len(source_space) or np.isin(source_space.channels, source.channels.inputs).any():
            return even(source_space, target_space)
        strength = torch.ones(len(source_space), dtype=torch.float64)
        for name, axis, _ in sorted(source_space.places):
            axes, path = source.channels.tensors[name], name.rpartition('.')[0]
            held = axes.channels[axis]
            if held is None or held.ndim != 1 or not np.array_equal(held, source_space.channels):
                continue
            if axes.roles[axis] == IN:
                strength *= state[name].double().movedim(axis, 0).flatten(1).square().sum(1)
            elif f'{path}.running_mean' in state and name.endswith('.weight'):
                strength *= state[name].double().square() + state[f'{path}.bias'].double().square()
        kept = strength.topk(len(target_space)).indices.sort().values
        return F.one_hot(kept, len(source_space)).T.double()

    return couple


def _fitted_to(
    pairs: dict[str, str],
    state: dict[str, Tensor],
    source: Structure,
    target: Structure,
    layers: Facts[str, Layer],
    eps: Facts[str, float],
) -> tuple[dict[str, Tensor], Structure]:
    """Return the network's state and structure with kernels, epsilons and biases as the partners in the target need them."""
    state, tensors = dict(state), dict(source.channels.tensors)
    for name, origin in pairs.items():
        path, other = name.rpartition('.')[0], origin.rpartition('.')[0]
        layer, local = layers.get(other, Layer()), origin.rpartition('.')[2]
        axes = tensors[origin]
        if local == 'weight' and layer.start and set(axes.dilation) == {1} and target.channels.tensors[name].dilation:
            state[origin] = _centred(state[origin], layer.start, target.channels.tensors[name])
            tensors[origin] = replace(axes, shape=tuple(state[origin].shape))
        elif local == 'weight' and layer.eps and path in eps and f'{other}.running_var' in state:
            variance = state[f'{other}.running_var'].double()
            factor = ((variance + eps[path]) / (variance + layer.eps)).sqrt()
            state[origin] = (state[origin].double() * factor).to(state[origin])
    for own, other in _biases_to_norms(pairs, target, source):
        state[own] = state[own] - state[other]
    return state, replace(source, channels=replace(source.channels, tensors=tensors))


def _biases_to_norms(pairs: dict[str, str], target: Structure, source: Structure) -> list[tuple[str, str]]:
    """Return means of the network's norms, with the biases of layers before them that the target lacks."""
    found, last = [], ''
    for name, origin in pairs.items():
        path, other = name.rpartition('.')[0], origin.rpartition('.')[0]
        if len(source.channels.tensors[origin].shape) > 1:
            missing = 'bias' in source.locals[other] and 'bias' not in target.locals[path]
            last = f'{other}.bias' if missing else ''
        elif origin.endswith('.running_mean') and last:
            found.append((origin, last))
    return found


def _centred(kernel: Tensor, start: tuple[int, ...], target: Axes) -> Tensor:
    """Return a kernel whose first tap is at ``start`` as a centred one, dimension by dimension, for a target's size."""
    dims = len(start)
    for index, first in enumerate(start):
        axis, size = kernel.dim() - dims + index, kernel.shape[index - dims]
        length, extent = target.shape[index - dims], 2 * max(abs(first), abs(first + size - 1)) + 1
        if extent <= length:  # it contains all taps at their places
            padding = [0] * (2 * dims)
            at = 2 * (dims - 1 - index)
            padding[at : at + 2] = [first + extent // 2, extent // 2 - (first + size - 1)]
            kernel = torch.nn.functional.pad(kernel, padding)
        elif size > length:
            energy = [float(kernel.narrow(axis, i, length).square().sum()) for i in range(size - length + 1)]
            centre = (size - length) / 2
            kernel = kernel.narrow(axis, max(range(len(energy)), key=lambda i: (energy[i], -abs(i - centre))), length)
    return kernel
