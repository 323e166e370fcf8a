"""What a target takes over from one source: weights and alphas in its own shapes, written into a draft of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import TransferError, WarmStartError
from ..mapping import alphas
from ..mapping.correspondence import Correspondence, handed_on, match_modules
from ..mapping.identity_blocks import start_as_identity
from ..mapping.mapper import Mapping, map_tensors, misfit, pair_tensors
from ..mapping.narrowing import is_narrower, narrow, regressing, selecting, weight_covariances
from ..nni_adapter.choices import NOT_CHOSEN, Choice
from ..nni_adapter.paths import best_path, every_path
from ..supernets.supernet import Supernet
from ..tracing.axes import Axes
from ..tracing.channel_spaces import Couple
from ..tracing.structure import Structure, structure_of
from ..utils.modules import modes_kept
from .compatibility import same_space
from .report import TensorOrigin
from .writer import Settings, Writer, head_tensors

_logger = logging.getLogger(__name__)

LEAST = 0.1
"""Share of a target's weights that must have a partner in the source; with less the two have nothing in common."""

_FITTED = 512  # pictures on which fewer channels are fitted

_FITTED_BYTES = 2**29  # memory for what the source's layers make of them


@dataclass
class Inheritance:
    """What was inherited.

    Attributes
    ----------
    origins
        By target tensor.
    correspondence
        Of blocks, choices and candidates.
    couplings
        By the first source tensor in which a channel space occurs: its coupling, shape ``(n_source, n_target)``.
    candidates
        By target label: candidates of the target and of the source.
    repeated
        Target tensors in which channels are repeated.
    """

    origins: dict[str, TensorOrigin] = field(default_factory=dict)
    correspondence: Correspondence = field(default_factory=Correspondence)
    couplings: dict[str, Tensor] = field(default_factory=dict)
    candidates: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)


def inherit(
    source: Supernet,
    draft: nn.Module,
    head_name: str | None,
    shape: tuple[int, ...],
    settings: Settings,
    pictures: Tensor | None = None,
    couple: Couple | None = None,
) -> Inheritance:
    """Fill ``draft`` with what ``source`` has for it. A source of the same space is copied to the bit, any other is mapped.

    Parameters
    ----------
    source
        The supernet to start from.
    draft
        The target, freshly initialised; changed in place (the caller puts it back if anything fails).
    head_name
        Path of its classifier, which is left alone unless ``settings.head`` is 'copy'.
    shape
        Of its input, batch first.
    settings
        How.
    pictures
        Some of the target's pictures, on which fewer channels are fitted; by the weights alone when None.
    couple
        Gives the couplings of channel spaces, and has even the same space mapped; see
        :class:`~nni_warmstart.mapping.mapper.Mapping`.

    Raises
    ------
    TransferError
        If the two have (nearly) nothing in common, or one of them cannot be traced.
    """
    result = Inheritance()
    writer = Writer(draft, settings, result.origins)
    skip = frozenset(head_tensors(head_name)) if settings.head != 'copy' else frozenset()
    if couple is None and same_space(source, draft, head_name):
        state = source.state_dict()
        for name in writer.tensors:
            if name not in skip and name in state and state[name].shape == writer.tensors[name].shape:
                writer.write(name, state[name], 'copied', name)
        for label, choice in writer.choices.items():
            result.correspondence.choices[label] = (label, {name: name for name in choice.candidates})
        _inherit_alphas(source, result, writer)
    else:
        _map(source, draft, skip, shape, settings, pictures, couple, writer, result)
    if settings.head == 'copy':
        _check_head(source, draft, head_name, result.origins)
    return result


def _map(
    source: Supernet,
    draft: nn.Module,
    skip: frozenset[str],
    shape: tuple[int, ...],
    settings: Settings,
    pictures: Tensor | None,
    couple: Couple | None,
    writer: Writer,
    result: Inheritance,
) -> None:
    theirs, mine = source.traced(), structure_of(draft, shape)
    if settings.untraceable == 'error':
        _check_opaque(theirs, f'supernet {source.name!r}')
        _check_opaque(mine, 'the target')
    found = result.correspondence = match_modules(mine, theirs)
    state = source.state_dict()
    body = [name for name in writer.tensors if name in writer.parameters and name not in skip]
    partners = [name for name in body if found.tensors.get(name) in state]
    if len(partners) < max(LEAST * len(body), 1):
        raise TransferError(
            f'supernet {source.name!r} (space {source.space.get("name") or source.space.get("class")}) and the target have '
            f'{len(partners)} of {len(body)} weights in common; choose a source of a similar space.'
        )
    for name in body:
        if found.tensors.get(name) not in state:
            writer.left(name, 'no partner in the source')
    _leave_unlearnt(found, mine, theirs)
    _inherit_alphas(source, result, writer)
    zeroed = set()
    with every_path(draft):
        identities = start_as_identity(draft, found.added, mine, shape)
    for names in identities.values():
        for name in names:
            writer.zero(name, found.tensors.get(name, ''), 'an added block')
        zeroed.update(names)
    for name, origin in handed_on(found, mine, theirs).items():
        kernel = nn.init.dirac_(torch.empty_like(writer.tensors[name]), groups=len(writer.tensors[name]))
        writer.write(name, kernel, 'identity', origin, 'a kernel that hands on its input')
        bias = f'{name.removesuffix("weight")}bias'
        if bias in writer.tensors:
            writer.zero(bias, origin, 'of that kernel')
    skip |= zeroed
    if couple is None and is_narrower(mine, theirs, pair_tensors(found, state, skip)):
        mapping = _narrower(source, theirs, draft, mine, skip, skip - zeroed, pictures, found)
    else:
        mapping = map_tensors(state, theirs, mine, couple=couple, skip=skip, correspondence=found)
    for name, tensor in mapping.tensors.items():
        origin = mapping.pairs[name]
        by = _by(mine.channels.tensors[name], theirs.channels.tensors[origin])
        writer.write(name, tensor, mapping.kinds[name], origin, by, repeated=name in mapping.repeated)
    for name, why in mapping.unmapped.items():
        writer.left(name, why)
    for name, tensor in writer.tensors.items():
        if not tensor.is_floating_point():  # counts of batches go with their batch norm
            path, _, local = name.rpartition('.')
            origin = f'{mapping.pairs.get(f"{path}.running_mean", "").rpartition(".")[0]}.{local}'
            if origin in state and state[origin].shape == tensor.shape:
                writer.write(name, state[origin], 'copied', origin)
    result.repeated = set(mapping.repeated)
    spaces = mapping.couplings.source_spaces.spaces
    for (_, other), coupling in mapping.couplings.found.items():
        result.couplings[min(spaces[other].places)[0]] = coupling


def _narrower(
    source: Supernet,
    theirs: Structure,
    draft: nn.Module,
    mine: Structure,
    skip: frozenset[str],
    head: frozenset[str],
    pictures: Tensor | None,
    found: Correspondence,
) -> Mapping:
    """Fewer channels: fitted on pictures where the source can be rebuilt and takes them, else by its weights alone."""
    model = None if pictures is None else rebuilt(source, pictures)
    if pictures is not None and model is not None:
        made = sum(axes.shape[0] for axes in theirs.channels.tensors.values() if len(axes.shape) > 1)
        rows = max(256, min(8192, _FITTED_BYTES // (4 * max(made, 1))))
        with every_path(model), every_path(draft):
            return narrow(
                model, theirs, draft, mine, pictures[:_FITTED], correspondence=found, rows=rows, skip=skip - head, head=head
            )
    state = source.state_dict()
    covariances = weight_covariances(state, theirs)
    couple, share = selecting(state, theirs, covariances), regressing(covariances)
    return map_tensors(state, theirs, mine, couple=couple, share=share, skip=skip, correspondence=found)


def rebuilt(source: Supernet, pictures: Tensor) -> nn.Module | None:
    """A source as a network, if its space is known here and takes such pictures."""
    if 'name' not in source.space:
        return None
    try:
        if pictures.shape[1] != source.pictures[0]:
            return None
        model = source.build().to(pictures.device)
        with best_path(model), modes_kept(model), torch.no_grad():
            model.eval()(pictures[:2])
    except WarmStartError as error:  # a space that this installation does not know
        _logger.warning('%s is mapped by its weights alone: %s', source.name, error)
        return None
    except RuntimeError:  # too small for all its pooling, say
        return None
    return model


def _check_opaque(structure: Structure, owner: str) -> None:
    for path, reason in structure.channels.opaque.items():
        raise TransferError(
            f'module {path!r} ({structure.kinds.get(path, "?")}) of {owner} cannot be mapped: {reason}; pass '
            "untraceable='fresh' to start such modules afresh."
        )


def _leave_unlearnt(found: Correspondence, mine: Structure, theirs: Structure) -> None:
    """Candidates of whose weights no layer can be made of their partner's lose it: they are new, and so is their logit."""
    learnt: dict[tuple[str, str], bool] = {}
    for path, (label, names) in mine.sites.items():
        for name in names.keys() & found.choices.get(label, ('', {}))[1].keys():
            inside = f'{path}.{names[name]}'
            tensors = [f'{inside}.{each}' for each in mine.inside.get(inside, ())]
            layers = [each for each in tensors if len(mine.channels.tensors[each].shape) > 1]
            pairs = [(each, found.tensors[each]) for each in layers if each in found.tensors]
            fits = any(misfit(mine.channels.tensors[a], theirs.channels.tensors[b]) is None for a, b in pairs)
            learnt[label, name] = learnt.get((label, name), False) or fits or not layers
    for label, name in (key for key, is_learnt in learnt.items() if not is_learnt):
        del found.choices[label][1][name]


def _by(mine: Axes, theirs: Axes) -> str:
    """The couplings of a tensor in words: 'out 8 -> 16, in 8 -> 16, kernel 3 -> 5'."""
    parts = []
    for axis, (role, after) in enumerate(zip(mine.roles, mine.shape, strict=True)):
        before = theirs.shape[axis]
        if before != after:
            parts.append(f'{role or "kernel"} {before} -> {after}')
    return ', '.join(dict.fromkeys(parts))


def _inherit_alphas(source: Supernet, result: Inheritance, writer: Writer) -> None:
    for label, choice in writer.choices.items():
        _inherit_alpha(source, label, choice, result, writer)


def _inherit_alpha(source: Supernet, label: str, choice: Choice, result: Inheritance, writer: Writer) -> None:
    found = result.correspondence
    other, partners = found.choices.get(label, (found.values.get(label, ''), {}))
    if other not in source.alphas:
        return
    theirs, mine = source.candidates[other], list(choice.candidates)
    result.candidates[label] = (mine, theirs)
    if not writer.settings.alpha:
        return
    origin = source.alphas[other]
    inputs = label in writer.inputs
    if theirs == mine and (label not in found.choices or partners == dict(zip(mine, mine, strict=True))):
        writer.write_alpha(label, source.alpha(other), 'copied', origin)
    elif label in found.choices or inputs:
        both = {**(dict(zip(mine, mine, strict=True)) if inputs else partners), NOT_CHOSEN: NOT_CHOSEN}
        writer.write_alpha(label, alphas.by_candidate(source.alpha(other), theirs, mine, both), 'op-mapped', origin, 'ops')
    elif alphas.is_number(theirs) and alphas.is_number(mine):
        mapped = alphas.by_rank if label in writer.widths and len(mine) == len(theirs) else alphas.by_value
        writer.write_alpha(label, mapped(source.alpha(other), theirs, mine), 'op-mapped', origin, 'values')


def _check_head(source: Supernet, draft: nn.Module, head_name: str | None, origins: dict[str, TensorOrigin]) -> None:
    state, mine = source.state_dict(), draft.state_dict()
    for name in head_tensors(head_name):
        if name in mine and (origins[name].how == 'fresh' or len(state[origins[name].source or name]) != len(mine[name])):
            raise TransferError(
                f"head 'copy' needs equal classifiers: {name} has shape "
                f'{tuple(state[name].shape) if name in state else None} in {source.name!r} and {tuple(mine[name].shape)} in '
                "the target; use head='ridge'."
            )
