"""What an alignment asks for besides copies: gates of one side only, layers that hand on their input, other activations."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..tracing.layers import PRELU
from ..tracing.layers import Layer as Facts
from ..tracing.structure import Structure, ancestors
from .gates import ACTIVATIONS, SHARPENED, SHARPNESS, constant_gate, mean_after_norm, mean_gate
from .layer_alignment import Alignment
from .network_layers import Layer, in_a_choice, is_residual, layers_of, residual_runs


@dataclass(frozen=True)
class Adjustments:
    """Adjustments of a network's weights, and tensors that start without it.

    Attributes
    ----------
    factors
        Target tensor -> factor on its partner in the network, by input channel where it has several.
    constants
        Target tensor without a partner -> its value.
    blocks
        Path of a block without a partner -> values by which its layers hand on their input.
    path
        Label of the choice of a gate -> candidate that the network has.
    notes
        What is only approximately the same, as a sentence with a place for a number -> layers that it is about.
    """

    factors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    blocks: dict[str, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    path: dict[str, str] = field(default_factory=dict)
    notes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes with the numbers and the first layers."""
        found = []
        for note, paths in self.notes.items():
            some = ', '.join(sorted(paths)[:3]) + (', ...' if len(paths) > 3 else '')
            found.append(f'{len(paths)} {note.format(some)}: what the network computes is kept approximately.')
        return tuple(found)


def adjustments(
    alignment: Alignment,
    target: Structure,
    of_target: Mapping[str, Facts],
    state: Mapping[str, Tensor],
    of_source: Mapping[str, Facts],
) -> Adjustments:
    """Find what an alignment asks for besides copies of the network's weights.

    Parameters
    ----------
    alignment
        Alignment of a network with a model space.
    target
        Structure of the space.
    of_target, of_source
        Facts about the layers of the space and of the network by path.
    state
        Tensors of the network.
    """
    found = Adjustments()
    sharpened: dict[str, list[str]] = {}
    of_source, of_target = (defaultdict(Facts, each) for each in (of_source, of_target))  # not all layers are modules
    following = {own.path: after for (own, _), (after, _) in itertools.pairwise(alignment.pairs)}
    for chosen in alignment.chosen:
        for candidate in chosen.place.candidates:
            if len(candidate.layers) == len(chosen.run) > 0:
                nexts = (*candidate.layers[1:], None)
                for own, other, after in zip(candidate.layers, chosen.run, nexts, strict=True):
                    reader = after or following.get(own.path)
                    _gate(found, own, other, reader, target, of_target, state, of_source)
                    _activation(found, own, other, reader, sharpened, of_target, of_source)
    for norm, readers in sharpened.items():
        scales = {
            f'{norm}.weight': SHARPNESS,
            f'{norm}.bias': SHARPNESS,
            **{f'{path}.weight': 1 / SHARPNESS for path in readers},
        }
        found.factors.update({name: found.factors.get(name, torch.tensor(1.0)) * scale for name, scale in scales.items()})
    paired = {name for pairs in alignment.rounds for name in pairs}
    for layer in (layer for each in alignment.chosen for layer in each.candidate.handing_on):
        if f'{layer.path}.weight' not in paired:
            found.constants.update(_handing_on(layer, target, of_target))
    for idle in alignment.idle:
        for layer in idle.handing_on:
            if layer.stride > 1:
                found.notes['layers of the target ({}) have no partner in the network and hand on every second pixel'].add(
                    layer.path
                )
            (found.blocks[idle.block] if idle.block else found.constants).update(_handing_on(layer, target, of_target))
        for norm in idle.silenced:
            found.constants.update({f'{norm}.{each}': _like(target, f'{norm}.{each}', 0.0) for each in ('weight', 'bias')})
    owned = {layer.norm for layer in _with_sides(layers_of(target))}
    for name in target.channels.tensors:
        path = name.rpartition('.')[0]
        if name.endswith('.running_mean') and path not in owned and not in_a_choice(target, path):
            found.constants.update(_unit_norm(path, target, of_target))
    for begin, end in residual_runs([other for _, other in alignment.pairs]).items():
        owns, others = zip(*alignment.pairs[begin:end], strict=True)
        if not is_residual(list(owns)):
            found.notes['blocks of the network ({}) have a shortcut that the target has not'].add(others[0].path)
    for own, other in alignment.pairs:
        if own.side is not None and other.side is not None and own.side.stride != other.side.stride:
            found.notes['layers on shortcuts ({}) read pooled images where the network strides, or vice versa'].add(
                own.side.path
            )
    for own, other in alignment.pairs:
        if own.kind == 'linear' and 'bias' not in target.locals[own.path] and f'{other.path}.bias' in state:
            found.notes['linear layers ({}) lack the bias that the network has'].add(own.path)
    if alignment.dropped:
        found.notes['layers of the network have no place in the target ({})'].update(alignment.dropped)
    return found


def _activation(
    found: Adjustments,
    own: Layer,
    other: Layer,
    reader: Layer | None,
    sharpened: dict[str, list[str]],
    of_target: Mapping[str, Facts],
    of_source: Mapping[str, Facts],
) -> None:
    """Note another activation after a layer, and the layers to scale where that brings both nearer to each other."""
    before, now = of_source[other.norm or other.path].activation, of_target[own.norm or own.path].activation
    if before == now == PRELU:
        found.notes['weights of PReLU after layers ({}) start afresh'].add(own.path)
    if before and now and before != now:
        found.notes[f'layers ({{}}) are followed by {now} where the network has {before}'].add(own.path)
        if (before, now) in SHARPENED and reader is not None and reader.read == own.made and own.norm:
            sharpened[own.norm] = [reader.path, *own.gate[:1]]


def _gate(
    found: Adjustments,
    own: Layer,
    other: Layer,
    reader: Layer | None,
    target: Structure,
    of_target: Mapping[str, Facts],
    state: Mapping[str, Tensor],
    of_source: Mapping[str, Facts],
) -> None:
    """Adjust one layer with a gate on either side; ``reader`` is the layer of the target that reads the gated output."""
    if not own.gate and not other.gate:
        return
    label, optional, names = _choice_of_gate(own, target) if own.gate else ('', False, (None, None))
    if label:
        name = names[0] if other.gate else names[1]
        if name is not None:
            found.path[label] = name
    scaled = [f'{reader.path}.weight'] if reader is not None and reader.read == own.made else []
    scaled = scaled or [f'{own.norm or own.path}.{each}' for each in ('weight', 'bias')]
    kinds = tuple(of_source[path].activation for path in other.gate)
    if own.gate and other.gate:
        now = of_target[own.gate[1]].activation
        if now != kinds[1]:
            found.notes[f'gates ({{}}) are a {now} where the network has a {kinds[1]}'].add(own.path)
    elif own.gate:
        constant = constant_gate(of_target[own.gate[1]].activation, optional)
        if constant is None:
            found.notes['gates ({}) have no partner in the network and start afresh'].add(own.path)
            return
        found.constants[f'{own.gate[1]}.weight'] = _like(target, f'{own.gate[1]}.weight', 0.0)
        found.constants[f'{own.gate[1]}.bias'] = _like(target, f'{own.gate[1]}.bias', constant[0])
        if constant[1] != 1:
            found.factors.update(dict.fromkeys(scaled, torch.tensor(1 / constant[1])))
    else:
        activation = of_source[other.norm or other.path].activation
        if other.norm and {activation, *kinds} <= ACTIVATIONS.keys():
            layers = [(state[f'{path}.weight'], state[f'{path}.bias']) for path in other.gate]
            means = mean_after_norm(state[f'{other.norm}.weight'], state[f'{other.norm}.bias'], activation)
            factor = mean_gate(means, layers[0], layers[1], (kinds[0], kinds[1]))
            found.factors.update(dict.fromkeys(scaled, factor))
            found.notes['gates of the network have no place, and their means are used ({})'].add(other.path)
        else:
            found.notes['gates of the network have no place and are left out ({})'].add(other.path)


def _choice_of_gate(layer: Layer, target: Structure) -> tuple[str, bool, tuple[str | None, str | None]]:
    """Return the label of the choice that a gate is in, whether there is one, and the candidates with and without it."""
    sites = [path for path in ancestors(layer.gate[0]) if path in target.sites and not layer.path.startswith(f'{path}.')]
    if not sites:
        return '', False, (None, None)
    label, names = target.sites[sites[0]]
    inside = layer.gate[0][len(sites[0]) + 1 :].partition('.')[0]
    having = next(name for name, child in names.items() if child == inside)
    lacking = next((name for name, child in names.items() if not target.ops.get(f'{sites[0]}.{child}')), None)
    return label, True, (having, lacking)


def _handing_on(layer: Layer, target: Structure, of_target: Mapping[str, Facts]) -> dict[str, Tensor]:
    """Return the values by which a convolution and the norm after it hand on their input, in turn to more channels."""
    if layer.kind not in ('full', 'depthwise'):
        return {}
    weight, bias = f'{layer.path}.weight', f'{layer.path}.bias'
    shape = target.channels.tensors[weight].shape
    turns = [nn.init.dirac_(torch.empty(len(part), *shape[1:])) for part in torch.arange(shape[0]).split(shape[1])]
    found: dict[str, Tensor] = {weight: torch.cat(turns)}
    if 'bias' in target.locals[layer.path]:
        found[bias] = _like(target, bias, 0.0)
    return {**found, **(_unit_norm(layer.norm, target, of_target) if layer.norm else {})}


def _unit_norm(path: str, target: Structure, of_target: Mapping[str, Facts]) -> dict[str, Tensor]:
    """Return the values by which a batch norm in evaluation mode hands on its input."""
    eps, scaled = of_target[path].eps, 'weight' in target.locals[path]
    values = {'weight': (1 + eps) ** 0.5, 'bias': 0.0, 'running_mean': 0.0, 'running_var': 1.0 if scaled else 1.0 - eps}
    names = [each for each in target.locals[path] if each in values]
    return {f'{path}.{each}': _like(target, f'{path}.{each}', values[each]) for each in names}


def _like(target: Structure, name: str, value: float) -> Tensor:
    return torch.full(target.channels.tensors[name].shape, value)


def _with_sides(layers: list[Layer]) -> Iterator[Layer]:
    for layer in layers:
        yield from (layer,) if layer.side is None else (layer, layer.side)
