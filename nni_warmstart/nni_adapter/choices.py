"""Choices of a supernet of NNI: alphas, candidates and places."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.differentiable import (
    DifferentiableMixedCell,
    DifferentiableMixedInput,
    DifferentiableMixedLayer,
)
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from torch import nn

from ..utils.modules import tensors_of

_WIDTHS = ('in_channels', 'out_channels', 'in_features', 'out_features', 'num_features')

NOT_CHOSEN = '(not chosen)'
"""Name of the extra slot that NNI's differentiable cell adds to every edge, for leaving the edge out."""


@dataclass(frozen=True)
class Choice:
    """Decision of a model space, with its alphas.

    Attributes
    ----------
    label
        NNI's label; in a cell the label of one edge, ``cell/i_j``.
    alpha
        Architecture parameters (logits), shape ``(n_candidates,)``.
    candidates
        Names of the candidates, in the order of ``alpha``.
    """

    label: str
    alpha: nn.Parameter
    candidates: tuple[str, ...]


def choices(model: nn.Module) -> dict[str, Choice]:
    """Return every choice of a supernet once, in the order of the labels.

    This works around ``DartsLightningModule.arch_parameters`` of NNI 3.0, whose order (``list(set(...))``) changes between
    processes, so that Adam's moments belong to other alphas after a search is resumed.
    """
    found: dict[str, Choice] = {}
    for module in model.modules():
        if not isinstance(module, BaseSuperNetModule):
            continue
        for choice in _choices_of(module):
            known = found.get(choice.label)
            if known is not None and known.alpha is not choice.alpha:  # an edge of a cell has the label of a choice outside
                choice = Choice(f'{choice.label}/in_cell', choice.alpha, choice.candidates)
            found[choice.label] = choice
    return {label: found[label] for label in sorted(found)}


def _choices_of(module: BaseSuperNetModule) -> Iterator[Choice]:
    alphas = getattr(module, '_arch_alpha', None)
    if alphas is None or (
        isinstance(alphas, nn.ParameterDict) and not alphas
    ):  # most mixed operations have nothing to choose
        return
    if isinstance(module, DifferentiableMixedCell):
        for label, alpha in module._arch_alpha.items():
            names = tuple(module.op_names) + (NOT_CHOSEN,) * (len(alpha) - len(module.op_names))
            yield Choice(label, cast(nn.Parameter, alpha), names)
    elif isinstance(module, DifferentiableMixedLayer):
        yield Choice(str(module.label), cast(nn.Parameter, alphas), tuple(map(str, module.names)))
    elif isinstance(module, DifferentiableMixedInput):
        yield Choice(str(module.label), cast(nn.Parameter, alphas), tuple(str(i) for i in range(module.n_candidates)))
    else:  # mutable depth, and mixed operations: one alpha for each value choice in their arguments
        mutables = cast(Any, module).depth_choice.simplify() if hasattr(module, 'depth_choice') else module.simplify()
        for label, alpha in alphas.items():
            yield Choice(label, alpha, tuple(str(value) for value in cast(Any, mutables[label]).values))


def widths(model: nn.Module) -> dict[str, list[int]]:
    """Return all numbers of input and output channels that a layer of mutable width may choose, by its path."""
    found: dict[str, list[int]] = {}
    for path, width in _mutable_widths(model):
        found.setdefault(path, []).extend(map(int, width.grid()))
    return found


def width_labels(model: nn.Module) -> frozenset[str]:
    """Return the labels of the choices that widths depend on."""
    return frozenset(label for _, width in _mutable_widths(model) for label in width.simplify())


def _mutable_widths(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        for name, argument in getattr(module, 'mutable_arguments', {}).items():
            if name in _WIDTHS:
                yield path, argument


def sites(model: nn.Module) -> tuple[dict[str, tuple[str, dict[str, str]]], dict[str, list[str]]]:
    """Find the modules in which the choices of a supernet are.

    Returns
    -------
    sites
        Path of a choice among modules -> its label, and candidate -> name of the child. A cell has one per edge.
    values
        Path of a module with choices among numbers (widths, kernels, depths, inputs) -> their labels.
    """
    found: dict[str, tuple[str, dict[str, str]]] = {}
    values: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, BaseSuperNetModule) or getattr(module, '_arch_alpha', None) is None:
            continue
        if isinstance(module, DifferentiableMixedCell):
            names = {name: name for name in module.op_names}
            for node, edges in enumerate(cast(Any, module.ops)):
                for edge in range(len(edges)):
                    label = f'{module.label}/{node + module.num_predecessors}_{edge}'
                    found[f'{path}.ops.{node}.{edge}'] = (label, names)
        elif isinstance(module, DifferentiableMixedLayer):
            found[path] = (str(module.label), {str(name): str(name) for name in module.names})
        elif labels := [choice.label for choice in _choices_of(module)]:
            values[path] = labels
    return found, values


def input_choices(model: nn.Module) -> frozenset[str]:
    """Return the labels of the choices among inputs, whose candidates are numbered but not nested."""
    return frozenset(str(m.label) for m in model.modules() if isinstance(m, DifferentiableMixedInput))


def places(model: nn.Module) -> dict[str, tuple[str, str]]:
    """Return the path of the cell or block, and the candidate op ('' for none), that contain each tensor of the state.

    A cell or block is the outermost member of a sequence that is not a sequence itself; for tensors outside of any, it is
    the first part of their name.
    """
    found, _ = sites(model)
    candidate = {f'{path}.{child}': name for path, (_, names) in found.items() for name, child in names.items()}
    sequences = ('Repeat', 'Sequential', 'ModuleList', 'ModuleDict')
    place: dict[str, tuple[str, str]] = {'': ('', '')}
    for path, module in model.named_modules(remove_duplicate=False):
        if path:
            cell, op = place[path.rpartition('.')[0]]
            member = path.rpartition('.')[2].isdigit() and kind_of(module) not in sequences
            if not cell and member and next(module.children(), None) is not None:
                cell = path
            place[path] = cell, op or candidate.get(path, '')
    result: dict[str, tuple[str, str]] = {}
    for name in tensors_of(model):
        cell, op = place[name.rpartition('.')[0]]
        result[name] = cell or name.partition('.')[0], op
    return result


def kind_of(module: nn.Module) -> str:
    """Return the kind of a module: the name of its class, for NNI's classes that of torch; '' for parts without effect."""
    if isinstance(module, nn.ParameterDict | nn.Softmax):
        return ''
    for cls, kind in ((DifferentiableMixedCell, 'Cell'), (DifferentiableMixedLayer, 'LayerChoice'), (Repeat, 'Repeat')):
        if isinstance(module, cls):
            return kind
    if isinstance(module, MixedOperation):
        return module.bound_type.__name__.removeprefix('Mutable')
    return type(module).__name__.removeprefix('Mutable')


def arch_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the alphas in the order of their labels, which is the same in every process."""
    return [choice.alpha for choice in choices(model).values()]


def alpha_entropy(model: nn.Module) -> float:
    """Return the mean over choices of the entropy of their probabilities divided by its maximum: 1 undecided, 0 decided."""
    entropies = []
    for choice in choices(model).values():
        if len(choice.alpha) > 1:
            probability = torch.softmax(choice.alpha.detach().double(), -1)
            entropies.append(torch.special.entr(probability).sum().item() / math.log(len(choice.alpha)))
    return sum(entropies) / len(entropies) if entropies else 0.0
