"""Compatibility of a source with a target: the same space, a share of its weights in common, or none."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from ..errors import ConfigError, TransferError
from ..mapping.correspondence import match_modules
from ..nni_adapter.choices import choices, kind_of
from ..nni_adapter.classifier import find_head
from ..nni_adapter.model_spaces import describe, input_of, resolve
from ..nni_adapter.mutation import first_names
from ..nni_adapter.paths import best_path
from ..supernets.supernet import Supernet
from ..tracing.structure import Structure, ancestors, guess_shape
from ..utils.random import quiet_randomness
from .heads.base import head_tensors
from .heads.registry import HEADS
from .match import Target
from .network_match import align_network


def body_of(target: nn.Module, head_name: str | None, rows: Collection[str] = ()) -> dict[str, nn.Parameter]:
    """Return the weights of a target, without alphas and classifier, to which ``rows`` belong where it has no path."""
    alpha = {id(choice.alpha) for choice in choices(target).values()}
    weights = dict(target.named_parameters())
    head = {*head_tensors(head_name, weights), *rows}
    return {name: p for name, p in weights.items() if id(p) not in alpha and name not in head}


def same_space(source: Supernet, target: nn.Module, head_name: str | None, rows: Collection[str] = ()) -> bool:
    """Check whether the source has the target's weights and choices and no others, in the same shapes and order.

    Classifiers may differ; ``rows`` belong to the target's where it has no path.
    """
    state, (tensors, _) = source.state_dict(), first_names(target)
    if not all(name in state and state[name].shape == p.shape for name, p in body_of(target, head_name, rows).items()):
        return False
    if source.tensors.keys() - source.alphas.values() - tensors.keys() - {*head_tensors(head_name, tensors)}:
        return False  # a deeper one, say
    found = choices(target)
    if any(source.candidates.get(label) != list(choice.candidates) for label, choice in found.items()):
        return False
    return not _reordered(source, target)


def _reordered(source: Supernet, target: nn.Module) -> bool:
    """Check whether candidates that have numbers for names compute something else in the source, as far as is known."""
    structure = source.structure
    if structure is None:
        return False
    sites = structure.sites.items()
    numbered = {f'{path}.{child}' for path, (_, names) in sites for name, child in names.items() if name.isdigit()}
    modules = target.named_modules() if numbered else ()
    return any(_is_other(structure, path, m) for path, m in modules if not numbered.isdisjoint(ancestors(path)))


def _is_other(structure: Structure, path: str, module: nn.Module) -> bool:
    """Check whether a module is of another kind than the source's, or has another stride, dilation or pooling window."""
    if structure.kinds.get(path) not in (None, kind_of(module)):
        return True
    if isinstance(module, nn.Conv2d):
        own = module.stride, module.dilation
        others = [(op.stride, op.dilation) for op in structure.channels.ops.get(path, ())]
    elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        own = module.kernel_size, module.stride
        others = [(op.kernel, op.stride) for op in structure.channels.ops.get(path, ())]
    else:
        return False
    first = tuple(each[0] if isinstance(each, tuple) else each for each in own)
    return any(other != first for other in others)


def share_of_partners(source: Supernet, target: Target) -> float:
    """Return the share of the target's weights (tensors) with a partner in the source.

    Partners of a network without choices are found by the order of its layers, those of supernets by their modules. Weights
    of blocks and cells that a network lacks count half: they hand on their input, which keeps what it computes and adds
    nothing.

    Raises
    ------
    TransferError
        If hardly a layer of a network has a place in the target.
    """
    body, lacking = body_of(target.model, target.head_name), []
    if source.is_network:
        _, found, _ = align_network(source, target.model, target.structure, target.layers)
        partners = found.correspondence.tensors
        idle = [path for each in found.idle for path in (*(layer.path for layer in each.handing_on), *each.silenced)]
        lacking = [f'{path}.' for path in (*found.added, *idle)]
    else:
        partners = match_modules(target.structure, source.traced()).tensors
    shares = (1.0 if name in partners else 0.5 * name.startswith(tuple(lacking)) for name in body)
    return sum(shares) / max(len(body), 1)


def input_shape(target: nn.Module, images: Any, source: Supernet) -> tuple[int, ...]:
    """Return the shape of a target's input, batch first: that of its images if there are any, else that of its space."""
    if isinstance(images, Tensor):
        return (2, *images.shape[1:])
    space = describe(target) if isinstance(target, ModelSpace) else {}
    form = input_of(resolve(space['name']), space['arguments']) if 'name' in space else (0, source.pictures[1])
    return guess_shape(target, form)


def name_of_head(model: nn.Module, source: Supernet, images: Tensor | None = None) -> str | None:
    """Return the name of the classifier; None for a model without one.

    Among several linear layers it is the one whose output is the model's output, for an input like ``images`` or the
    source's; if the model does not take such an input, the last linear layer in the order of construction.
    """
    try:
        if sum(isinstance(module, nn.Linear) for module in model.modules()) > 1:
            device = next(model.parameters()).device
            with quiet_randomness(), best_path(model):
                return find_head(model, torch.zeros(input_shape(model, images, source), device=device))
    except (RuntimeError, TypeError, AttributeError, IndexError):
        pass
    except TransferError:
        return None
    try:
        return find_head(model)
    except TransferError:
        return None


def share_in_common(
    sources: Sequence[Supernet],
    target: nn.Module,
    head: str = 'random',
    untraceable: str = 'error',
    images: Tensor | None = None,
    class_names: Sequence[str] = (),
) -> list[float]:
    """Return the share of the target's weights (tensors) that have a partner in each of ``sources``.

    The share is 0 for a source that does not support the head, that diverged, or whose space cannot be mapped. A few
    ``images`` of the target determine the shape of its input; ``class_names`` are those of its classes, if they are known.
    """
    in_shape = functools.cache(lambda head_name, shape: Target(target, head_name, shape))
    state = target.state_dict()

    def share(source: Supernet) -> float:
        if source.diverged:
            return 0.0
        head_name = name_of_head(target, source, images)
        same = same_space(source, target, head_name)
        rows = {name: len(state[name]) for name in head_tensors(head_name) if name in state}
        if not HEADS[head].suits(source, rows, same, class_names):
            return 0.0
        if same:
            return 1.0
        try:
            of_source, of_target = source.traced(), in_shape(head_name, input_shape(target, images, source))
            if untraceable == 'error' and (of_source.channels.opaque or of_target.structure.channels.opaque):
                return 0.0
            return share_of_partners(source, of_target)
        except (TransferError, ConfigError):  # a space that this installation does not know
            return 0.0

    return [share(source) for source in sources]


def is_same(source: Supernet, target: nn.Module, images: Tensor | None = None) -> bool:
    """Check whether the source has the target's space and shape, apart from the classifier."""
    return same_space(source, target, name_of_head(target, source, images))
