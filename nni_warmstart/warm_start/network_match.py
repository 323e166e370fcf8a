"""Match of a pretrained network without choices with a model space: the path that is the network, and what it asks for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import TransferError
from ..mapping.adjustments import Adjustments, adjustments
from ..mapping.complete_layers import completed
from ..mapping.layer_alignment import Alignment, align
from ..mapping.nearest_numbers import nearest_candidates
from ..mapping.network_mapper import extents_of
from ..nni_adapter.searched import searched_kernels, searched_widths
from ..supernets.supernet import Supernet
from ..tracing.layers import Layer
from ..tracing.structure import Structure
from .new_state import NewState

LEAST = 0.25
"""Smallest share of a network's layers, the classifier aside, that must have a place in the space."""

MARGIN = 3.0
"""Logit of candidates and depths that the network has; that of all others is 0."""


def complete_network(source: Supernet) -> Supernet:
    """Return a network with a bias and a norm for every convolution."""
    state, structure, layers = completed(source.state_dict(), source.traced(), source.layers)
    history = {**source.history, 'layers': {path: list(layer) for path, layer in layers.items()}}
    return replace(source, tensors=state, aliases={}, structure=structure, history=history)


def align_network(
    source: Supernet, of_source: Structure, model: nn.Module, of_target: Structure, layers: dict[str, Layer]
) -> tuple[Alignment, Adjustments]:
    """Align a network with a model space, gates and numbers that are searched included.

    Parameters
    ----------
    source, of_source
        Network, as :func:`complete_network` returns it, and its structure.
    model, of_target, layers
        Mutated model space, its structure, and the facts about its layers.

    Raises
    ------
    TransferError
        If hardly a layer of the network has a place in the space.
    """
    shortcuts = {path: facts.shortcut for path, facts in source.layers.items()}
    found = align(of_target, of_source, extents_of(source.layers, of_source), shortcuts)
    placed = [other for _, other in found.pairs if other.kind != 'linear']
    count = len(placed) + len(found.dropped)
    if len(placed) < max(LEAST * count, 1):
        raise TransferError(
            f'network {source.name!r} ({source.space.get("class")}) and the target have {len(placed)} of {count} layers in '
            'common; choose a network of blocks such as the target has, or another model space.'
        )
    beside = adjustments(found, of_target, layers, source.state_dict(), source.layers)
    widths, kernels = searched_widths(model), searched_kernels(model)
    wanted = [(widths[own.path], other.width) for own, other in found.pairs if own.path in widths]
    wanted += [(kernels[own.path], other.kernels[-1]) for own, other in found.pairs if own.path in kernels]
    return replace(found, path={**found.path, **beside.path, **nearest_candidates(wanted)}), beside


def path_logits(alignment: Alignment, target: Structure, new: NewState, margin: float = MARGIN) -> dict[str, Tensor]:
    """Return the logits of all choices that the network decides: ``margin`` for its candidate or depth, 0 for others."""
    preferred = dict(alignment.path)
    for path, depth in alignment.depths.items():
        preferred |= {label: str(depth) for label in target.values.get(path, ())}
    return {
        label: torch.tensor([margin * (each == name) for each in new.choices[label]])
        for label, name in preferred.items() if name in new.choices.get(label, ())
    }  # fmt: skip
