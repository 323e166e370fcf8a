"""Match of a pretrained network without choices with a model space: the path that is the network, and what it asks for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import TransferError
from ..mapping.adjustments import Adjustments, adjustments
from ..mapping.complete_layers import HANDING_ON, completed, with_layer_before
from ..mapping.layer_alignment import Alignment, align
from ..mapping.nearest_numbers import nearest_candidates
from ..mapping.network_mapper import extents_of
from ..nni_adapter.searched import KERNEL, WIDTH, searched_numbers
from ..supernets.supernet import Supernet
from ..tracing.layers import Layer
from ..tracing.structure import Structure
from .new_state import NewState

MARGIN_OF_NUMBERS = 7.0
"""Logit of the width or kernel that the network has. NNI mixes such candidates by one layer, each weight multiplied by the
probability of the candidates that have it, so that others with a share of a few percent would weaken the network layer by
layer: of 0.633, the accuracy of the path, mixtures by 3, 5 and 7 kept 0.58, 0.62 and 0.63 (MobileNetV3Space)."""

LEAST = 0.25
"""Smallest share of a network's layers, the classifier aside, that must have a place in the space."""


def _completed(source: Supernet) -> Supernet:
    """Return a network with a bias and a norm for every convolution."""
    state, structure, layers = completed(source.state_dict(), source.traced(), source.layers)
    history = {**source.history, 'layers': {path: list(layer) for path, layer in layers.items()}}
    return replace(source, tensors=state, aliases={}, structure=structure, history=history)


def align_network(
    source: Supernet, model: nn.Module, of_target: Structure, layers: dict[str, Layer]
) -> tuple[Supernet, Alignment, Adjustments]:
    """Align a network with a model space, gates and numbers that are searched included.

    A layer of the space between the pool and the classifier, as MobileNetV3 has, gets a partner that hands on the features.

    Parameters
    ----------
    source
        Network without choices.
    model, of_target, layers
        Mutated model space, its structure, and the facts about its layers.

    Raises
    ------
    TransferError
        If hardly a layer of the network has a place in the space.
    """
    source = _completed(source)
    found = _aligned(source, of_target)
    head = found.pairs[-1] if found.pairs else None
    plain = [layer for layer in found.open if head is not None and layer.made == head[0].read and not layer.norm]
    if head is not None and plain:
        features = next((other for _, other in reversed(found.pairs[:-1])), head[1])
        made = source.layers.get(features.norm or features.path, Layer()).activation
        activations = made, layers.get(plain[0].path, Layer()).activation
        completing = with_layer_before(head[1].path, source.state_dict(), source.traced(), *activations)
        if completing is not None:
            layers_known = {**source.history['layers'], f'{head[1].path}.{HANDING_ON}': list(Layer())}
            history = {**source.history, 'layers': layers_known}
            source = replace(source, tensors=completing[0], structure=completing[1], history=history)
            found = _aligned(source, of_target)
    placed = [other for _, other in found.pairs if other.kind != 'linear']
    count = len(placed) + len(found.dropped)
    if len(placed) < max(LEAST * count, 1):
        raise TransferError(
            f'network {source.name!r} ({source.space.get("class")}) and the target have {len(placed)} of {count} layers in '
            'common; choose a network of blocks such as the target has, or another model space.'
        )
    beside = adjustments(found, of_target, layers, source.state_dict(), source.layers)
    widths, kernels = searched_numbers(model, WIDTH), searched_numbers(model, KERNEL)
    wanted = [(widths[own.path], other.width) for own, other in found.pairs if own.path in widths]
    wanted += [(kernels[own.path], other.kernels[-1]) for own, other in found.pairs if own.path in kernels]
    idle = [layer for each in found.idle if not each.block for layer in each.handing_on]  # a narrow one would lose channels
    spare = nearest_candidates((widths[layer.path], layer.width) for layer in idle if layer.path in widths)
    numbers = {**spare, **nearest_candidates(wanted)}
    return source, replace(found, path={**found.path, **beside.path, **numbers}, sharing=frozenset(numbers)), beside


def _aligned(source: Supernet, of_target: Structure) -> Alignment:
    shortcuts = {path: facts.shortcut for path, facts in source.layers.items()}
    return align(of_target, source.traced(), extents_of(source.layers, source.traced()), shortcuts)


def path_logits(alignment: Alignment, target: Structure, new: NewState, margin: float) -> dict[str, Tensor]:
    """Return the logits of all choices that the network decides: at least ``margin`` for what it has, 0 for all others."""
    preferred = dict(alignment.path)
    for path, depth in alignment.depths.items():
        preferred |= {label: str(depth) for label in target.values.get(path, ())}
    margins = dict.fromkeys(alignment.sharing, max(margin, MARGIN_OF_NUMBERS))
    return {
        label: torch.tensor([margins.get(label, margin) * (each == name) for each in new.choices[label]])
        for label, name in preferred.items() if name in new.choices.get(label, ())
    }  # fmt: skip
