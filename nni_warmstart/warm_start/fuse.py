"""Fusion of several sources: each is aligned to the first by optimal transport, then their weights are averaged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import TransferError
from ..mapping.alignment import align
from ..mapping.repair import activations, noise, repair
from ..nni_adapter.mutation import first_names
from ..nni_adapter.paths import every_path
from ..supernets.supernet import Supernet
from ..tracing.channel_spaces import Couple
from ..utils.text import enumerated
from .inherit import Inherit, Inheritance, mapped, prepare_one, rebuilt
from .match import Match, Target, match_source
from .new_state import NewState, load
from .settings import TransferSettings

_NUM_IMAGES = 256  # images on which channels are compared and averages repaired


def prepare_fusion(
    sources: Sequence[tuple[Supernet, float]], target: Target, settings: TransferSettings, images: Tensor | None
) -> Inherit:
    """Prepare the inheritance from several sources as far as possible without images, by matching them with the target.

    Parameters
    ----------
    sources
        Supernets with weights that sum to one.
    target, settings, images
        Same as in :func:`~nni_warmstart.warm_start.inherit.prepare_one`.

    Raises
    ------
    TransferError
        If a source and the target have nothing in common, or a source is a network without choices.
    """
    networks = [source.name for source, _ in sources if source.is_network]
    if networks:
        raise TransferError(
            f'{enumerated(networks)} cannot be fused with other sources: a network without choices is one path of the '
            'space, which an average with others would not keep; name it alone.'
        )
    strength = float(settings.strength > 0)
    plain = replace(settings, keep=1.0, noise=0.0, alpha=strength)  # the average is shrunk and perturbed
    (first, _), *others = sources
    inherit_first = prepare_one(first, target, plain, images)
    if images is None:
        images = _noise(target.shape, target.model)
    matches = [(match_source(source, target, plain), rebuilt(source, images)) for source, _ in others]
    names, shares = [source.name for source, _ in sources], [weight for _, weight in sources]
    return _Fusion(names, shares, target, inherit_first, matches, NewState(target.model, settings))


@dataclass(frozen=True)
class _Fusion:
    """Weighted average of several sources, prepared as far as possible without images.

    The first source is mapped to the target's shapes. The channels of every other source are coupled to it, by their weights
    and, if the source can be rebuilt and takes images of the target's size, by its activations on them (on noise, if there
    are no images). A tensor that some sources lack is averaged over the others. Alphas are averaged as logits. With images,
    the layers of the average are then fitted to the average activations of the sources
    (:func:`~nni_warmstart.mapping.repair.repair`).

    Attributes
    ----------
    names, shares
        Names and weights of the sources.
    target
        Target of the warm start.
    first
        Inheritance from the first source.
    others
        Matches of the other sources, with their networks if these can be rebuilt.
    started
        New state to which nothing is written yet.
    """

    names: list[str]
    shares: list[float]
    target: Target
    first: Inherit
    others: list[tuple[Match, nn.Module | None]]
    started: NewState

    def __call__(self, model: nn.Module, images: Tensor | None) -> Inheritance:
        # Map the first source, and align every other one to it.
        images = None if images is None else images[:_NUM_IMAGES]
        found = [self.first(model, images)]
        reference = load(copy.deepcopy(model), found[0].tensors)
        found += [mapped(match, self._aligned(match, network, reference, images)) for match, network in self.others]
        # Average every tensor over the sources that have it.
        new = self.started.copy()
        held = {name: [k for k, each in enumerate(found) if each.origins[name].how != 'fresh'] for name in new.origins}
        average = {
            name: _average([found[k].tensors[name] for k in at], [self.shares[k] for k in at])
            for name, at in held.items()
            if at
        }
        # Write the alphas first: they decide what the layers compute on images.
        for label, name in new.alpha_names.items():
            if name in average:
                new.write_alpha(label, average.pop(name), 'fused', found[held[name][0]].origins[name].source or '')
        if images is not None:
            parents = [reference, *(load(copy.deepcopy(model), each.tensors) for each in found[1:])]
            average = _repaired(load(copy.deepcopy(model), new.inherited), average, parents, self.shares, images)
        for name, value in average.items():
            _write_average(new, name, value, [found[k] for k in held[name]])
        couplings = {
            f'{name}: {tensor}': coupling
            for name, each in zip(self.names, found, strict=True)
            for tensor, coupling in each.couplings.items()
        }
        return replace(found[0], tensors=new.inherited, origins=new.origins, couplings=couplings)

    def _aligned(self, match: Match, network: nn.Module | None, reference: nn.Module, images: Tensor | None) -> Couple:
        """Return the couplings of another source's channels with those of the first source in the target's shapes."""
        both = None
        if network is not None:
            images = _noise(self.target.shape, reference) if images is None else images
            with every_path(network), every_path(reference), torch.no_grad():
                both = activations(network, images), activations(reference, images)
        mapping = align(
            match.source.state_dict(),
            match.source_structure,
            self.target.structure,
            reference.state_dict(),
            activations=both,
            weights=True,
            skip=self.target.classifier,
            correspondence=match.correspondence,
        )
        return mapping.couplings.couple


def _noise(shape: tuple[int, ...], model: nn.Module) -> Tensor:
    """Draw noise in place of images, on the device of a model."""
    return noise((_NUM_IMAGES, *shape[1:])).to(next(model.parameters()).device)


def _write_average(new: NewState, name: str, value: Tensor, found: list[Inheritance]) -> None:
    """Write a tensor that was averaged over some sources; ``found`` are their inheritances."""
    origins = [each.origins[name] for each in found]
    first = origins[0]
    if all(origin.how == 'identity' for origin in origins) and not value.any():
        new.zero(name, first.source or '', first.by)
        return
    is_fused = len(found) > 1 and value.is_floating_point()
    partners = ', '.join(dict.fromkeys(origin.source or '' for origin in origins))
    origin = partners if is_fused else first.source or ''
    new.write(name, value, 'fused' if is_fused else first.how, origin, first.by, repeated=name in found[0].repeated)


def _average(values: list[Tensor], shares: list[float]) -> Tensor:
    if len(values) == 1 or not values[0].is_floating_point():
        return values[0]
    return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0) / sum(shares)


def _repaired(
    draft: nn.Module, average: dict[str, Tensor], parents: list[nn.Module], shares: list[float], images: Tensor
) -> dict[str, Tensor]:
    """Return the average with its layers fitted to the parents' activations on some images; ``draft`` has its alphas."""
    _, aliases = first_names(draft)
    shared = {alias: average[first] for alias, first in aliases.items() if first in average}
    state = {**draft.state_dict(), **average, **shared}
    made = []
    for parent in parents:
        with every_path(parent):
            made.append(activations(parent, images))
    with every_path(draft):
        fitted = repair(draft, state, images, made, shares)
    return {name: fitted[name] for name in average}
