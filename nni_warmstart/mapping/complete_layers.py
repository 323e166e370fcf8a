"""Layers without effect that complete a network: biases and batch norms, and a layer before the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..tracing.axes import IN, OUT, Axes
from ..tracing.layers import Layer
from ..tracing.structure import Structure
from .network_layers import layers_of

NORM = 'unit_norm'
"""Name of an added norm, in the layer before it."""

HANDING_ON = 'handing_on'
"""Name of an added layer before the classifier, in the classifier."""

_EPS = 1e-5

_LEAST = {'relu': 0.0, 'relu6': 0.0, 'sigmoid': 0.0, 'hardsigmoid': 0.0, 'hardswish': -0.375, 'silu': -0.2785}
"""Smallest values of activations."""

_KEPT_FROM = {'': -float('inf'), 'relu': 0.0, 'hardswish': 3.0}
"""Values from which on activations return what they are given."""


def completed(
    state: Mapping[str, Tensor], structure: Structure, facts: Mapping[str, Layer]
) -> tuple[dict[str, Tensor], Structure, dict[str, Layer]]:
    """Add biases of zero, and norms that return their input, to the convolutions that have none.

    Parameters
    ----------
    state, structure, facts
        Tensors of a network, its structure, and the facts about its layers by path.

    Returns
    -------
    tuple
        The same three with the additional tensors, which follow the weights of their layers.
    """
    found, known = dict(state), dict(facts)
    added: dict[str, dict[str, Tensor]] = {}
    shortcuts = [layer.side for layer in layers_of(structure) if layer.side is not None]
    for layer in (*layers_of(structure), *shortcuts):
        weight, tensors = state[f'{layer.path}.weight'], added.setdefault(layer.path, {})
        if layer.kind == 'linear':
            continue
        ones, zeros = torch.ones(layer.width).to(weight), torch.zeros(layer.width).to(weight)
        if f'{layer.path}.bias' not in state:
            tensors[f'{layer.path}.bias'] = zeros
        if not layer.norm:
            norm = f'{layer.path}.{NORM}'
            tensors |= {f'{norm}.weight': ones * (1 + _EPS) ** 0.5, f'{norm}.bias': zeros}
            tensors |= {f'{norm}.running_mean': zeros, f'{norm}.running_var': ones}
            fact = known.get(layer.path, Layer())
            known[norm] = fact._replace(start=(), eps=_EPS)
    axes_of: dict[str, Axes] = {}
    for name, axes in structure.channels.tensors.items():
        axes_of[name] = axes
        path, _, local = name.rpartition('.')
        if local == 'weight':
            for each, tensor in added.get(path, {}).items():
                found[each] = tensor
                axes_of[each] = _vector(axes)
    return found, replace(structure, channels=replace(structure.channels, tensors=axes_of)), known


def with_layer_before(
    classifier: str,
    state: Mapping[str, Tensor],
    structure: Structure,
    last: str,
    activation: str,
) -> tuple[dict[str, Tensor], Structure] | None:
    """Add a layer before the classifier that hands on the features, plus what its activation needs to return them.

    Parameters
    ----------
    classifier
        Path of the classifier.
    state, structure
        Tensors and structure of a network.
    last
        Activation that made the features, which are means of its values.
    activation
        Activation after the added layer.

    Returns
    -------
    tuple or None
        The same two with the additional layer; None where the activation changes some of the features.
    """
    least, kept = _LEAST.get(last, -float('inf')), _KEPT_FROM.get(activation, float('inf'))
    shift = max(kept - least, 0.0) if kept > -float('inf') else 0.0
    if shift == float('inf') or f'{classifier}.bias' not in state:
        return None
    path, weight = f'{classifier}.{HANDING_ON}', state[f'{classifier}.weight']
    found = dict(state)
    found[f'{path}.weight'] = torch.eye(weight.shape[1]).to(weight)
    found[f'{path}.bias'] = torch.full((weight.shape[1],), shift).to(weight)
    found[f'{classifier}.bias'] = state[f'{classifier}.bias'] - shift * weight.sum(1)
    axes_of: dict[str, Axes] = {}
    for name, axes in structure.channels.tensors.items():
        if name == f'{classifier}.weight':
            features = axes.channels[axes.roles.index(IN)]
            axes_of[f'{path}.weight'] = Axes((weight.shape[1],) * 2, (OUT, IN), (features, features), ((), ()))
            axes_of[f'{path}.bias'] = Axes((weight.shape[1],), (OUT,), (features,), ((),))
        axes_of[name] = axes
    return found, replace(structure, channels=replace(structure.channels, tensors=axes_of))


def _vector(axes: Axes) -> Axes:
    """Return the axes of a tensor with one value for each output channel of a weight."""
    at = axes.roles.index(OUT)
    pieces, norms, strands = (each[at : at + 1] for each in (axes.pieces, axes.norms, axes.strands))
    channels = (axes.channels[at],)
    return Axes((axes.shape[at],), (OUT,), channels, ((),), pieces=pieces, norms=norms, strands=strands)
