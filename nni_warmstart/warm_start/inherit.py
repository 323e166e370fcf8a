"""Inheritance from one source: weights and alphas in the target's shapes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import TransferError, WarmStartError
from ..mapping.candidate_fit import fit_candidates
from ..mapping.correspondence import Correspondence
from ..mapping.mapper import Mapping, map_tensors
from ..mapping.narrowing import narrow, regressing, selecting, weight_covariances
from ..mapping.network_mapper import map_network
from ..nni_adapter.paths import best_path, every_path
from ..supernets.supernet import Supernet
from ..tracing.axes import Axes
from ..tracing.channel_spaces import Couple
from ..utils.modules import holding, modes_kept
from .compatibility import same_space
from .heads.registry import HEADS
from .match import Candidates, Match, Target, inherit_alphas, match_source
from .network_match import path_logits
from .new_state import NewState, load
from .report import TensorOrigin
from .settings import TransferSettings

_logger = logging.getLogger(__name__)

FITTED = 512
"""Largest number of images on which a narrower network is fitted; no other mapping looks at more."""

_FITTED_ON = 128  # images on which the candidates of a supernet are fitted to the path that is a network

_FITTED_BYTES = 2**29  # memory for the activations of the source on them


@dataclass(frozen=True)
class Inheritance:
    """Tensors that a target inherits, before they are written, with their origins.

    Attributes
    ----------
    tensors
        New value of each target tensor that changes.
    origins
        Origin of each target tensor.
    correspondence
        Correspondence of blocks, choices and candidates.
    couplings
        Coupling of each channel space by the first source tensor in which it occurs, shape ``(n_source, n_target)``.
    candidates
        Label in the target -> candidates of the target and of the source.
    repeated
        Target tensors in which channels are repeated.
    notes
        What else is to be said about the mapping, in sentences.
    """

    tensors: dict[str, Tensor]
    origins: dict[str, TensorOrigin]
    correspondence: Correspondence
    couplings: dict[str, Tensor]
    candidates: Candidates
    repeated: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


Inherit = Callable[[nn.Module, Tensor | None], Inheritance]
"""Function that returns what a target inherits, given the target that it was prepared for, and its images or None."""


def prepare_one(source: Supernet, target: Target, settings: TransferSettings, images: Tensor | None) -> Inherit:
    """Prepare the inheritance from one source as far as possible without images: fully, unless the target is narrower.

    Parameters
    ----------
    source
        Supernet to start from. One of the same space is copied exactly, any other is mapped.
    target, settings
        Target, and settings of the warm start.
    images
        Some of the target's images, which show whether the source's network takes them; None if there are none.

    Raises
    ------
    TransferError
        If the two have (nearly) nothing in common, or one of them cannot be traced.
    """
    if same_space(source, target.model, target.head_name, target.left_out(settings)):
        done = _copied(source, target, settings)
        return lambda model, images: done
    match = match_source(source, target, settings)
    if match.alignment is not None:
        return partial(_from_network, match, _network(match))
    if match.is_narrower:
        return partial(_narrowed, match, None if images is None else rebuilt(source, images))
    done = mapped(match)
    return lambda model, images: done


def _copied(source: Supernet, target: Target, settings: TransferSettings) -> Inheritance:
    state, new, left_out = source.state_dict(), NewState(target.model, settings), target.left_out(settings)
    for name in new.weights:
        if name not in left_out and name in state and state[name].shape == new.tensors[name].shape:
            new.write(name, state[name], 'copied', name)
    choices = {label: (label, {name: name for name in candidates}) for label, candidates in new.choices.items()}
    found = Correspondence(choices=choices)
    candidates = inherit_alphas(source, found, new)
    _check_head(source, target, new)
    return Inheritance(new.inherited, new.origins, found, {}, candidates, notes=new.notes)


def mapped(match: Match, couple: Couple | None = None) -> Inheritance:
    """Map the source's weights by couplings of channel spaces; ``couple`` None takes couplings without data."""
    skip = match.left_out | match.zeroed
    structures = match.source_structure, match.target.structure
    return _inherited(
        match,
        map_tensors(match.source.state_dict(), *structures, couple=couple, skip=skip, correspondence=match.correspondence),
    )


def _from_network(match: Match, mapping: Mapping, model: nn.Module, images: Tensor | None) -> Inheritance:
    """Fit the candidates that cannot compute the same as the path that is the network, if there are images."""
    alignment, tensors = match.alignment, dict(mapping.tensors)
    if images is not None and alignment is not None:
        new = match.started
        only = path_logits(alignment, match.target.structure, new, 100.0)  # selects the path that is the network alone
        only = {new.alpha_names[label]: logits.to(new.tensors[new.alpha_names[label]]) for label, logits in only.items()}
        with holding(model, {**new.inherited, **tensors, **only}), every_path(model):
            fitted = fit_candidates(model, alignment.chosen, images[:_FITTED_ON])
        tensors.update({name: fitted[name].cpu() for name in fitted if name in tensors})
    return _inherited(match, replace(mapping, tensors=tensors))


def _network(match: Match) -> Mapping:
    """Map a network without choices, candidate by candidate."""
    source, target = match.source, match.target
    assert match.alignment is not None and match.adjustments is not None
    eps = {path: facts.eps for path, facts in target.layers.items() if facts.eps}
    return map_network(
        source.state_dict(), match.source_structure, target.structure, match.alignment, source.layers, eps,
        match.adjustments.factors, match.left_out | match.zeroed,
    )  # fmt: skip


def _narrowed(match: Match, network: nn.Module | None, model: nn.Module, images: Tensor | None) -> Inheritance:
    """Map to fewer channels: fitted on images if the source's network takes them, else by its weights alone."""
    source, target, found = match.source_structure, match.target.structure, match.correspondence
    if images is not None and network is not None:
        made = sum(axes.shape[0] for axes in source.channels.tensors.values() if len(axes.shape) > 1)
        rows = max(256, min(8192, _FITTED_BYTES // (4 * max(made, 1))))
        draft = load(copy.deepcopy(model), match.started.inherited)
        with every_path(network), every_path(draft):
            mapping = narrow(
                network, source, draft, target, images[:FITTED],
                correspondence=found, rows=rows, skip=match.zeroed, head=match.left_out,
            )  # fmt: skip
        return _inherited(match, mapping)
    state = match.source.state_dict()
    covariances = weight_covariances(state, source)
    couple, share = selecting(state, source, covariances), regressing(covariances)
    skip = match.left_out | match.zeroed
    mapping = map_tensors(state, source, target, couple=couple, share=share, skip=skip, correspondence=found)
    return _inherited(match, mapping)


def _inherited(match: Match, mapping: Mapping) -> Inheritance:
    """Add mapped weights to the state that was started without images."""
    new, state = match.started.copy(), match.source.state_dict()
    if new.settings.untraceable == 'error':
        for name in mapping.unfollowed:
            raise TransferError(
                f'{name} of the target cannot be mapped: {mapping.unmapped[name]}; pass '
                "untraceable='fresh' to start such tensors afresh."
            )
    of_target, of_source = match.target.structure.channels.tensors, match.source_structure.channels.tensors
    for name, tensor in mapping.tensors.items():
        origin = mapping.pairs[name]
        by = _in_words(of_target[name], of_source[origin])
        new.write(name, tensor, mapping.kinds[name], origin, by, repeated=name in mapping.repeated)
    for name, why in mapping.unmapped.items():
        new.leave(name, why)
    for name in new.weights:
        if not new.tensors[name].is_floating_point():  # integer buffers count the batches of a batch norm
            path, _, local = name.rpartition('.')
            origin = f'{mapping.pairs.get(f"{path}.running_mean", "").rpartition(".")[0]}.{local}'
            if origin in state and state[origin].shape == new.tensors[name].shape:
                new.write(name, state[origin], 'copied', origin)
    _check_head(match.source, match.target, new)
    spaces = mapping.couplings.source_spaces.spaces
    couplings = {min(spaces[other].places)[0]: coupling for (_, other), coupling in mapping.couplings.found.items()}
    notes = match.notes + new.notes
    if mapping.uneven:
        notes += (
            f'Means are taken over channels of which some have more copies than others ({mapping.uneven[0]}): what the '
            'source computes is kept approximately.',
        )
    if mapping.lacking:
        some = ', '.join(sorted(mapping.lacking)[:3]) + (', ...' if len(mapping.lacking) > 3 else '')
        notes += (
            f'{len(mapping.lacking)} layers of the network read channels that do not reach their places ({some}): what the '
            'network computes is kept approximately.',
        )
    return Inheritance(
        new.inherited, new.origins, match.correspondence, couplings, match.candidates, mapping.repeated, notes
    )


def rebuilt(source: Supernet, images: Tensor) -> nn.Module | None:
    """Rebuild a source on the device of some images, if its space is known to this installation and takes them."""
    if 'name' not in source.space:
        return None
    try:
        if images.shape[1] != source.pictures[0]:
            return None
        model = source.build().to(images.device)
        with best_path(model), modes_kept(model), torch.no_grad():
            model.eval()(images[:2])
    except WarmStartError as error:  # a space that this installation does not know
        _logger.warning('%s is mapped by its weights alone: %s', source.name, error)
        return None
    except RuntimeError:  # images too small for all its pooling, say
        return None
    return model


def _in_words(target: Axes, source: Axes) -> str:
    """Return the couplings of a tensor in words: 'out 8 -> 16, in 8 -> 16, kernel 3 -> 5'."""
    sizes = zip(target.roles, source.shape, target.shape, strict=False)  # a linear layer becomes a 1 x 1 convolution
    parts = [f'{role or "kernel"} {before} -> {after}' for role, before, after in sizes if before != after]
    return ', '.join(dict.fromkeys(parts))


def _check_head(source: Supernet, target: Target, new: NewState) -> None:
    check = HEADS[new.settings.head].check_inherited
    if check is not None:
        check(source, target.model, target.head_name, new.origins)
