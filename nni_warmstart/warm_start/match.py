"""Match of a source and a target of another space or shape, and all of the new state that follows without images."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ..errors import TransferError
from ..mapping import alphas
from ..mapping.adjustments import Adjustments
from ..mapping.correspondence import Correspondence, handed_on, match_modules, why_opaque
from ..mapping.identity_blocks import start_as_identity
from ..mapping.layer_alignment import Alignment
from ..mapping.mapper import misfit, pair_tensors
from ..mapping.narrowing import is_narrower
from ..nni_adapter.choices import NOT_CHOSEN
from ..nni_adapter.classifier import find_head
from ..nni_adapter.paths import every_path
from ..supernets.plain_network import CHANGES_IMAGES
from ..supernets.supernet import Supernet
from ..tracing.axes import IN, OUT
from ..tracing.layers import Layer, layers_of
from ..tracing.structure import Structure, structure_of
from .heads.base import head_tensors
from .heads.registry import HEADS
from .network_match import align_network, path_logits
from .new_state import NewState, load
from .settings import TransferSettings

LEAST = 0.1
"""Smallest share of a target's weights that must have a partner in the source."""

MARGIN = 3.0
"""Logit of candidates and depths that the network has; that of all others is 0."""

Candidates = dict[str, tuple[list[str], list[str]]]
"""Label of a choice -> candidates of the target and of the source."""


@dataclass(frozen=True)
class Target:
    """Target of a warm start.

    Attributes
    ----------
    model
        Mutated model space, freshly initialised; it is not changed.
    head_name
        Path of its classifier; None for a model without one.
    shape
        Shape of its input, batch first.
    """

    model: nn.Module
    head_name: str | None
    shape: tuple[int, ...]

    @cached_property
    def structure(self) -> Structure:
        """Channels, modules and choices, found by one run without data."""
        return structure_of(self.model, self.shape)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Facts about its layers by path, found by one run on zeros."""
        with every_path(self.model):
            return layers_of(self.model, self.shape)

    @cached_property
    def classifier(self) -> frozenset[str]:
        """Names of the tensors of its classifier, also where no linear layer gives the output; none for a model of features.

        These are the ones with a row for each output, or else the last linear layer in the order of construction.
        """
        tensors = self.model.state_dict()
        if self.head_name is not None:
            return frozenset(head_tensors(self.head_name, tensors))
        try:
            channels = self.structure.channels
            rows, readers = channels.of_outputs(OUT), channels.of_outputs(IN)
            return frozenset(() if readers else rows or head_tensors(find_head(self.model), tensors))
        except TransferError:  # it has no linear layer, or cannot be traced
            return frozenset()

    def left_out(self, settings: TransferSettings) -> frozenset[str]:
        """Return the tensors of the classifier, unless the head inherits them."""
        return frozenset() if HEADS[settings.head].is_inherited else self.classifier


@dataclass(frozen=True)
class Match:
    """Match of a source and a target.

    Attributes
    ----------
    source, target
        Source and target.
    source_structure
        Structure of the source.
    correspondence
        Correspondence of tensors, blocks, choices and candidates.
    candidates
        Label in the target -> candidates of the target and of the source.
    left_out
        Tensors of the target's classifier that are not mapped.
    zeroed
        Tensors of added blocks, which are set to zero and not mapped either.
    started
        New state with the alphas and with everything that starts as the identity, without mapped weights yet.
    alignment
        Alignment of a network without choices; None for supernets.
    adjustments
        What that asks for besides copies of weights; None for supernets.
    notes
        What else is to be said about the match, in sentences.
    """

    source: Supernet
    target: Target
    source_structure: Structure
    correspondence: Correspondence
    candidates: Candidates
    left_out: frozenset[str]
    zeroed: frozenset[str]
    started: NewState
    alignment: Alignment | None = None
    adjustments: Adjustments | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_narrower(self) -> bool:
        """Whether some channels have to be dropped, which images help to choose."""
        pairs = pair_tensors(self.correspondence, self.source.state_dict(), self.left_out | self.zeroed)
        return is_narrower(self.target.structure, self.source_structure, pairs)


def match_source(source: Supernet, target: Target, settings: TransferSettings) -> Match:
    """Find what a source and a target have in common.

    Raises
    ------
    TransferError
        If the two have (nearly) nothing in common, or one of them cannot be traced.
    """
    # Trace both, and match their modules.
    of_source, of_target = source.traced(), target.structure
    if settings.untraceable == 'error':
        _check_opaque(of_source, f'supernet {source.name!r}')
        _check_opaque(of_target, 'the target')
    alignment = beside = None
    if source.is_network:
        source, alignment, beside = align_network(source, target.model, of_target, target.layers)
        of_source = source.traced()
    found = match_modules(of_target, of_source) if alignment is None else alignment.correspondence
    state, new, left_out = source.state_dict(), NewState(target.model, settings), target.left_out(settings)
    body = [name for name in new.weights if name in new.parameters and name not in left_out]
    partners = [name for name in body if found.tensors.get(name) in state]
    if alignment is None and len(partners) < max(LEAST * len(body), 1):
        raise TransferError(
            f'supernet {source.name!r} (space {source.space.get("name") or source.space.get("class")}) and the target have '
            f'{len(partners)} of {len(body)} weights in common; choose a source of a similar space.'
        )
    for name in body:
        if found.tensors.get(name) not in state:
            new.leave(name, why_opaque(of_target, name) or 'no partner in the source')
    # Write all that needs no images: alphas, and blocks and kernels that start as the identity.
    found = _without_unlearnt(found, of_target, of_source)
    candidates = inherit_alphas(source, found, new)
    if alignment is not None and settings.strength:
        for label, logits in path_logits(alignment, of_target, new, MARGIN).items():
            new.write_alpha(label, logits, 'op-mapped', alignment.path.get(label, label), 'the path that is the network')
    if beside is not None:
        for name, value in beside.constants.items():
            new.start(name, value, 'a gate or layer beside the network')
    zeroed = _start_added_blocks(target, found, new)
    for block, values in beside.blocks.items() if beside is not None else ():
        if not any(name.startswith(f'{block}.') for name in zeroed):
            for name, value in values.items():
                new.start(name, value, 'an added block')
    _start_handing_on(found, of_target, of_source, new)
    notes = tuple(
        f'What {path or "forward"} of {owner} does with channels is not followed: {reason}.'
        for structure, owner in ((of_target, 'the target'), (of_source, repr(source.name)))
        for path, reason in structure.channels.opaque.items()
    )
    notes += beside.sentences if beside is not None else ()
    if source.history.get(CHANGES_IMAGES):
        notes += (
            f'{source.name!r} changes its images before its first layer (it normalises them, say), which is not inherited: '
            'the images of the search must be as that layer reads them.',
        )
    return Match(source, target, of_source, found, candidates, left_out - zeroed, zeroed, new, alignment, beside, notes)


def _check_opaque(structure: Structure, owner: str) -> None:
    for path, reason in structure.channels.opaque.items():
        place = f'module {path!r} ({structure.kinds.get(path, "?")})' if path in structure.kinds or not path else path
        raise TransferError(
            f"{place} of {owner} cannot be mapped: {reason}; pass untraceable='fresh' to start such modules afresh."
        )


def _without_unlearnt(found: Correspondence, target: Structure, source: Structure) -> Correspondence:
    """Remove the partners of candidates without a layer that can be mapped: such candidates and their logits are new."""
    learnt: dict[tuple[str, str], bool] = {}
    for path, (label, names) in target.sites.items():
        for name in names.keys() & found.choices.get(label, ('', {}))[1].keys():
            inside = f'{path}.{names[name]}'
            tensors = [f'{inside}.{each}' for each in target.inside.get(inside, ())]
            layers = [each for each in tensors if len(target.channels.tensors[each].shape) > 1]
            pairs = [(each, found.tensors[each]) for each in layers if each in found.tensors]
            fits = any(misfit(target.channels.tensors[a], source.channels.tensors[b]) is None for a, b in pairs)
            learnt[label, name] = learnt.get((label, name), False) or fits or not layers
    choices = {
        label: (other, {name: partner for name, partner in partners.items() if learnt.get((label, name), True)})
        for label, (other, partners) in found.choices.items()
    }
    return replace(found, choices=choices)


def inherit_alphas(source: Supernet, found: Correspondence, new: NewState) -> Candidates:
    """Set the alphas of every choice that has a partner; return the candidates of these choices."""
    candidates: Candidates = {}
    for label in new.choices:
        other, partners = found.choices.get(label, (found.values.get(label, ''), {}))
        if other in source.alphas:
            candidates[label] = (new.choices[label], source.candidates[other])
            if new.settings.strength:
                _inherit_alpha(source, label, other, partners if label in found.choices else None, new)
    return candidates


def _inherit_alpha(source: Supernet, label: str, other: str, partners: dict[str, str] | None, new: NewState) -> None:
    """Set the alphas of one choice; ``partners`` maps its candidates to the source's, None for choices of numbers."""
    target_names, source_names = new.choices[label], source.candidates[other]
    identical = dict(zip(target_names, target_names, strict=True))
    alpha, origin = source.alpha(other), source.alphas[other]
    inputs = label in new.inputs
    if source_names == target_names and (partners is None or partners == identical):
        new.write_alpha(label, alpha, 'copied', origin)
    elif partners is not None or inputs:
        both = {**(identical if inputs else partners or {}), NOT_CHOSEN: NOT_CHOSEN}
        new.write_alpha(label, alphas.by_candidate(alpha, source_names, target_names, both), 'op-mapped', origin, 'ops')
    elif alphas.is_number(source_names) and alphas.is_number(target_names):
        by_rank = label in new.widths and len(target_names) == len(source_names)
        mapped = (alphas.by_rank if by_rank else alphas.by_value)(alpha, source_names, target_names)
        new.write_alpha(label, mapped, 'op-mapped', origin, 'values')


def _start_added_blocks(target: Target, found: Correspondence, new: NewState) -> frozenset[str]:
    """Start added blocks as the identity where possible; return the tensors that were set to zero for it."""
    if not found.added:
        return frozenset()
    draft = load(copy.deepcopy(target.model), new.inherited)  # whether a block can depends on its alphas
    with every_path(draft):
        identities = start_as_identity(draft, found.added, target.structure, target.shape)
    zeroed = [name for names in identities.values() for name in names]
    for name in zeroed:
        new.zero(name, found.tensors.get(name, ''), 'an added block')
    return frozenset(zeroed)


def _start_handing_on(found: Correspondence, target: Structure, source: Structure, new: NewState) -> None:
    """Start depthwise kernels as the identity where the partner of a separable candidate is an ordinary convolution."""
    for name, origin in handed_on(found, target, source).items():
        kernel: Tensor = nn.init.dirac_(torch.empty_like(new.tensors[name]), groups=len(new.tensors[name]))
        new.write(name, kernel, 'identity', origin, 'a kernel that hands on its input')
        bias = f'{name.removesuffix("weight")}bias'
        if bias in new.tensors:
            new.zero(bias, origin, 'of that kernel')
