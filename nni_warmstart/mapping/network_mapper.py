"""Mapping of a network without choices onto all candidates of a model space that can compute what its layers do."""

from __future__ import annotations

from collections.abc import Mapping as Facts
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..tracing.axes import IN, NEITHER, OUT, Axes
from ..tracing.layers import Layer
from ..tracing.structure import Structure
from .channel_assignment import Assignment, assign_channels, passed_on, without_pieces
from .layer_alignment import Alignment
from .mapper import Mapping, Share, map_tensors
from .narrowing import regressing, weight_covariances
from .network_layers import layers_of
from .projection import sharing
from .superkernel_coupling import strongest_first


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
    factors: Facts[str, Tensor],
    skip: frozenset[str] = frozenset(),
) -> Mapping:
    """Map the tensors of a network, candidate by candidate, so that the path nearest to it computes what it does.

    Kernels that pad on one side are moved into larger centred ones that contain them, and kept whole where there is none;
    smaller kernels are the crop of most energy. Other epsilons of batch norms, and biases that the target lacks, are
    absorbed by the norms; scales that these lack, by the layers before them. Channels that are cut go where they are read.

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
    factors
        Target tensor -> factor on its partner in the network.
    skip
        Target tensors that are left out.
    """
    found = alignment.correspondence
    assigned = _assigned(state, source, target, alignment, found.tensors.keys() - skip)
    labels = assigned.target, assigned.source
    target, source = (
        replace(each, channels=without_pieces(each.channels, label))
        for each, label in zip((target, source), labels, strict=True)
    )
    couple, share = strongest_first(state, source, target), _regressing_by_weights(state, source, labels[1])

    def mapped(pairs: dict[str, str]) -> Mapping:
        fitting, structure = _fitted_to(pairs, state, source, target, layers, eps, factors)
        each = replace(found, tensors=pairs)
        return map_tensors(
            fitting, structure, target, couple=couple, share=share, skip=skip, correspondence=each, labels=labels
        )

    # The path goes first, where fixed layers and shared channels are mapped once more with every round of candidates.
    first, *others = alignment.rounds
    whole = mapped(first)
    for pairs in others:
        whole = _with_more(whole, mapped(pairs))
    return replace(whole, correspondence=found, lacking=assigned.lacking)


def _assigned(
    state: dict[str, Tensor], source: Structure, target: Structure, alignment: Alignment, names: set[str]
) -> Assignment:
    """Assign channels that are cut; layers on either side without a partner hand on what they read."""
    pairs = {name: origin for name, origin in alignment.correspondence.tensors.items() if name in names}
    idle = [layer for each in alignment.idle for layer in each.handing_on]
    dropped = [layer for layer in layers_of(source) if layer.path in alignment.dropped]
    passed = passed_on(target.channels, idle), passed_on(source.channels, dropped)
    return assign_channels(target.channels, source.channels, pairs, state, passed)


def _with_more(whole: Mapping, more: Mapping) -> Mapping:
    """Add what only another mapping has."""
    return replace(
        whole,
        tensors={**more.tensors, **whole.tensors}, pairs={**more.pairs, **whole.pairs},
        kinds={**more.kinds, **whole.kinds}, unmapped={**more.unmapped, **whole.unmapped},
        repeated=whole.repeated | more.repeated,
    )  # fmt: skip


def _regressing_by_weights(state: dict[str, Tensor], source: Structure, labels: np.ndarray) -> Share:
    """Predict dropped channels from kept ones by covariances that are estimated where they are needed, to save memory.

    Channels with labels are of several layers, of which some read what the others do not, and are shared out.
    """
    makers: dict[str, np.ndarray] = {}
    for name, axes in source.channels.tensors.items():
        channels = axes.channels[axes.roles.index(OUT)] if OUT in axes.roles and IN in axes.roles else None
        if channels is not None:
            makers[name] = channels

    def share(name: str, coupling: Tensor) -> Tensor:
        axes = source.channels.tensors[name]
        read = axes.channels[axes.roles.index(IN)] if IN in axes.roles else None
        if read is None or coupling.shape[0] <= coupling.shape[1] or (labels[read] >= 0).all():
            return sharing(coupling)
        some = {each: state[each] for each, made in makers.items() if each == name or np.isin(made, read).any()}
        return regressing(weight_covariances(some, source, [name]))(name, coupling)

    return share


def _fitted_to(
    pairs: dict[str, str],
    state: dict[str, Tensor],
    source: Structure,
    target: Structure,
    layers: Facts[str, Layer],
    eps: Facts[str, float],
    factors: Facts[str, Tensor],
) -> tuple[dict[str, Tensor], Structure]:
    """Return the network's state and structure as the partners in the target need them.

    Kernels, epsilons and factors are theirs, linear layers are 1 x 1 convolutions, and biases and norms that the target
    lacks are absorbed by the layers beside them.
    """
    state, tensors = dict(state), dict(source.channels.tensors)
    passed = {layer.side.path: layer.norm for layer in layers_of(source) if layer.side is not None}
    for norm, weight, bias in _norms_to_layers(pairs, target, source):
        deviation = (state[f'{norm}.running_var'] + layers.get(norm, Layer()).eps).sqrt()
        scale = state.get(f'{norm}.weight', 1.0) / deviation
        state[weight] = _times(state[weight], scale, 0)
        path = weight.rpartition('.')[0]
        shift = (state[f'{path}.bias'] - state[f'{norm}.running_mean']) * scale + state.get(f'{norm}.bias', 0.0)
        if bias:
            state[bias] = shift
        elif passed.get(path):  # what a shortcut adds to all pixels, the layers that it passes can add as well
            state[f'{passed[path]}.bias'] = state[f'{passed[path]}.bias'] + shift
    for norm, path, own in _scales_to_layers(pairs, target, source):
        variance = state[f'{norm}.running_var'] + eps[own]
        scale = state[f'{norm}.weight'] * (variance / (variance - eps[own] + layers.get(norm, Layer()).eps)).sqrt()
        for name in {f'{path}.weight', f'{path}.bias'} & state.keys():
            state[name] = _times(state[name], scale, 0)
        mean = f'{norm}.running_mean'
        state[mean] = state[mean] * scale - state[f'{norm}.bias'] * variance.sqrt()
    for name, origin in pairs.items():
        path, other = name.rpartition('.')[0], origin.rpartition('.')[0]
        layer, local = layers.get(other, Layer()), origin.rpartition('.')[2]
        axes, own = tensors[origin], target.channels.tensors[name]
        if local == 'weight' and layer.start and set(axes.dilation) == {1} and own.dilation:
            state[origin] = _centred(state[origin], layer.start, own)
            tensors[origin] = replace(axes, shape=tuple(state[origin].shape))
        elif local == 'weight' and layer.eps and path in eps and f'{other}.running_var' in state:
            variance = state[f'{other}.running_var'].double()
            factor = ((variance + eps[path]) / (variance + layer.eps)).sqrt()
            state[origin] = (state[origin].double() * factor).to(state[origin])
        elif len(axes.shape) == 2 and len(own.shape) == 4:
            state[origin] = state[origin][:, :, None, None]
            tensors[origin] = _with_kernel(axes)
        elif len(axes.shape) == 4 and len(own.shape) == 2:
            state[origin], tensors[origin] = state[origin].flatten(1), _without_kernel(axes)
        if name in factors:
            at = axes.roles.index(IN) if IN in axes.roles and len(axes.shape) > 1 else 0
            state[origin] = _times(state[origin], factors[name], at)
    for own, other in _biases_to_norms(pairs, target, source):
        state[own] = state[own] - state[other]
    return state, replace(source, channels=replace(source.channels, tensors=tensors))


def _times(tensor: Tensor, factor: Tensor, axis: int) -> Tensor:
    """Multiply a tensor by one number, or by one for each index of an axis."""
    return tensor * factor.to(tensor).view(-1, *[1] * (tensor.dim() - 1 - axis))


def _norms_to_layers(pairs: dict[str, str], target: Structure, source: Structure) -> list[tuple[str, str, str]]:
    """Return norms of the network that have no partner, with the weights and biases ('' for none) of the layers before."""
    found = []
    partnered = {origin.rpartition('.')[0] for origin in pairs.values()}
    after = {each.path: each.norm for layer in layers_of(source) for each in (layer, layer.side) if each is not None}
    for name, origin in pairs.items():
        path, _, local = origin.rpartition('.')
        norm = after.get(path, '')
        if local == 'weight' and norm and norm not in partnered:
            bias = f'{path}.bias' if 'bias' in target.locals[name.rpartition('.')[0]] else ''
            found.append((norm, origin, bias))
    return found


def _scales_to_layers(pairs: dict[str, str], target: Structure, source: Structure) -> list[tuple[str, str, str]]:
    """Return norms of the network with the layers before them, and their partners, of those that have no scale there."""
    before = {each.norm: each.path for layer in layers_of(source) for each in (layer, layer.side) if each is not None}
    norms = [(each, name) for name, other in pairs.items() if (each := other.removesuffix('.running_mean')) in before]
    partners = {norm: name.rpartition('.')[0] for norm, name in norms}
    scaled = {norm: own for norm, own in partners.items() if 'weight' in source.locals[norm]}
    return [(norm, before[norm], own) for norm, own in scaled.items() if 'weight' not in target.locals[own]]


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


def _with_kernel(axes: Axes) -> Axes:
    """Return the axes of a linear layer's weight as those of a 1 x 1 convolution's."""
    labels = {kind: (*values, None, None) if values else values for kind, values in _labels(axes)}
    return replace(
        axes, shape=(*axes.shape, 1, 1), roles=(*axes.roles, NEITHER, NEITHER), channels=(*axes.channels, None, None),
        bounds=(*axes.bounds, (), ()), dilation=(1, 1), **labels,
    )  # fmt: skip


def _without_kernel(axes: Axes) -> Axes:
    """Return the axes of a 1 x 1 convolution's weight as those of a linear layer's."""
    labels = {kind: values[:2] for kind, values in _labels(axes)}
    return replace(
        axes,
        shape=axes.shape[:2],
        roles=axes.roles[:2],
        channels=axes.channels[:2],
        bounds=axes.bounds[:2],
        dilation=(),
        **labels,
    )


def _labels(axes: Axes) -> tuple[tuple[str, tuple[np.ndarray | None, ...]], ...]:
    return ('pieces', axes.pieces), ('norms', axes.norms), ('strands', axes.strands)


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
