"""A network whose layers all have a bias and a batch norm: those that lack one get one without effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..tracing.axes import OUT, Axes
from ..tracing.layers import Layer
from ..tracing.structure import Structure
from .network_layers import layers_of

NORM = 'unit_norm'
"""Name of an added norm, in the layer before it."""

_EPS = 1e-5


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


def _vector(axes: Axes) -> Axes:
    """Return the axes of a tensor with one value for each output channel of a weight."""
    at = axes.roles.index(OUT)
    labels = {kind: (values[at],) if at < len(values) else () for kind, values in (
        ('pieces', axes.pieces), ('norms', axes.norms), ('strands', axes.strands))}  # fmt: skip
    return Axes((axes.shape[at],), (OUT,), (axes.channels[at],), ((),), **labels)
