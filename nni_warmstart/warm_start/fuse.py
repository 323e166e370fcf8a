"""Several sources at once: each is aligned to the first by optimal transport, then their weights are averaged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..mapping.alignment import align
from ..mapping.repair import activations, noise, repair
from ..nni_adapter.mutation import first_names
from ..nni_adapter.paths import every_path
from ..supernets.supernet import Supernet
from ..tracing.channel_spaces import Couple
from ..tracing.structure import structure_of
from .inherit import Inheritance, inherit, rebuilt
from .writer import Settings, Writer, head_tensors

_SEEN = 256  # pictures on which channels are compared and averages repaired


def inherit_fused(
    sources: Sequence[tuple[Supernet, float]],
    draft: nn.Module,
    head_name: str | None,
    shape: tuple[int, ...],
    settings: Settings,
    pictures: Tensor | None = None,
) -> Inheritance:
    """Fill ``draft`` with the weighted average of several sources.

    The first is mapped onto the target's shapes; the channels of every other one are coupled to it, by their weights and,
    where the source can be rebuilt and takes pictures of the target's size, by what its layers make of them (of noise, if
    there are none). A tensor that some sources have nothing for is averaged over the others. Alphas are averaged as logits.
    With pictures, the layers of the average are then fitted to what the sources' layers make on average
    (:func:`~nni_warmstart.mapping.repair.repair`).

    Parameters
    ----------
    sources
        With their weights, which sum to one.
    draft, head_name, shape, settings, pictures
        As :func:`~nni_warmstart.warm_start.inherit.inherit` takes them.

    Raises
    ------
    TransferError
        If the weights do not sum to one, or a source and the target have nothing in common.
    """
    shares = [weight for _, weight in sources]
    plain = replace(settings, keep=1.0, noise=0.0, alpha=float(settings.alpha > 0))  # the average is shrunk and perturbed
    pictures = None if pictures is None else pictures[:_SEEN]
    mapped: list[nn.Module] = []
    found: list[Inheritance] = []
    for source, _ in sources:
        mapped.append(copy.deepcopy(draft))
        couple = None if len(mapped) == 1 else _aligned(source, mapped[0], head_name, shape, pictures)
        found.append(inherit(source, mapped[-1], head_name, shape, plain, pictures, couple))
    states = [model.state_dict() for model in mapped]
    writer = Writer(draft, settings, {})
    held = {name: [k for k, each in enumerate(found) if each.origins[name].how != 'fresh'] for name in writer.origins}
    average = {name: _average([states[k][name] for k in at], [shares[k] for k in at]) for name, at in held.items() if at}
    for label, name in writer.alpha_names.items():
        if name in average:
            writer.write_alpha(label, average.pop(name), 'fused', found[held[name][0]].origins[name].source or '')
    if pictures is not None:
        average = _repaired(draft, average, mapped, shares, pictures)
    for name, value in average.items():
        first = found[held[name][0]].origins[name]
        if all(found[k].origins[name].how == 'identity' for k in held[name]) and not value.any():
            writer.zero(name, first.source or '', first.by)
            continue
        how = 'fused' if len(held[name]) > 1 and value.is_floating_point() else first.how
        partners = dict.fromkeys(found[k].origins[name].source or '' for k in held[name])
        origin = ', '.join(partners) if how == 'fused' else first.source or ''
        writer.write(name, value, how, origin, first.by, repeated=name in found[held[name][0]].repeated)
    couplings = {
        f'{source.name}: {tensor}': coupling
        for (source, _), each in zip(sources, found, strict=True)
        for tensor, coupling in each.couplings.items()
    }
    return replace(found[0], origins=writer.origins, couplings=couplings)


def _aligned(
    source: Supernet, reference: nn.Module, head_name: str | None, shape: tuple[int, ...], pictures: Tensor | None
) -> Couple:
    """Couplings of a further source's channels to those of the first in the target's shapes."""
    both = None
    if pictures is None:
        pictures = noise((_SEEN, *shape[1:])).to(next(reference.parameters()).device)
    model = rebuilt(source, pictures)
    if model is not None:
        with every_path(model), every_path(reference), torch.no_grad():
            both = activations(model, pictures), activations(reference, pictures)
    state = reference.state_dict()
    skip = frozenset(head_tensors(head_name))
    mapping = align(
        source.state_dict(),
        source.traced(),
        structure_of(reference, shape),
        state,
        activations=both,
        weights=True,
        skip=skip,
    )
    return mapping.couplings.couple


def _average(values: list[Tensor], shares: list[float]) -> Tensor:
    if len(values) == 1 or not values[0].is_floating_point():
        return values[0]
    return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0) / sum(shares)


def _repaired(
    draft: nn.Module, average: dict[str, Tensor], mapped: list[nn.Module], shares: list[float], pictures: Tensor
) -> dict[str, Tensor]:
    _, aliases = first_names(draft)
    shared = {alias: average[first] for alias, first in aliases.items() if first in average}
    state = {**draft.state_dict(), **average, **shared}
    parents = []
    for each in mapped:
        with every_path(each):
            parents.append(activations(each, pictures))
    with every_path(draft):
        fitted = repair(draft, state, pictures, parents, shares)
    return {name: fitted[name] for name in average}
