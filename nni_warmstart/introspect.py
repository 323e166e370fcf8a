"""Reads NNI's supernets: alphas, candidates, parameter-free ops. The only module that knows NNI's private attributes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import nni.trial
import torch

with warnings.catch_warnings():  # NNI 3.0 wraps all of torch.nn, and says at length what newer torch has in it
    warnings.filterwarnings('ignore', message='.*is found to be not a nn.Module.*')
    from nni.nas.nn.pytorch import ModelSpace, Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.differentiable import (
    DifferentiableMixedCell,
    DifferentiableMixedInput,
    DifferentiableMixedLayer,
    GumbelSoftmax,
)
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedInput, ProxylessMixedLayer, ProxylessMixedRepeat
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from torch import Tensor, nn

_WIDTHS = ('in_channels', 'out_channels', 'in_features', 'out_features', 'num_features')

_ZEROS = ('Zero', 'Zeroize')
"""Classes of the operation that gives zeros. Its name does not tell: an identity may be called none, too."""

NOT_CHOSEN = '(not chosen)'
"""The extra slot that NNI's differentiable cell adds to every edge: the edge is left out."""

STRATEGIES: dict[str, type[DARTS]] = {'DARTS': DARTS, 'GumbelDARTS': GumbelDARTS, 'Proxyless': Proxyless}
"""NNI's strategies whose supernets can be remembered, by the name kept in a card."""


@dataclass(frozen=True)
class Choice:
    """One decision of the model space, with its alphas.

    Attributes
    ----------
    label
        NNI's label; for a cell the label of one edge, ``cell/i_j``.
    alpha
        Architecture parameters (logits), shape ``(n_candidates,)``.
    candidates
        Names of the candidates, in the order of ``alpha``.
    """

    label: str
    alpha: nn.Parameter
    candidates: tuple[str, ...]


def choices(model: nn.Module) -> dict[str, Choice]:
    """Every choice of a supernet, once, in the order of its label.

    NNI's own order (``list(set(...))`` in ``DartsLightningModule.arch_parameters``) changes from process to process, so
    that Adam's moments belong to other alphas after a resume.
    """
    found: dict[str, Choice] = {}
    for module in model.modules():
        if not isinstance(module, BaseSuperNetModule):
            continue
        for choice in _choices_of(module):
            known = found.get(choice.label)
            if known is not None and known.alpha is not choice.alpha:  # a cell's edge named like a choice outside
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
    else:  # mutable depth, and mixed operations: one alpha per value choice in their arguments
        mutables = cast(Any, module).depth_choice.simplify() if hasattr(module, 'depth_choice') else module.simplify()
        for label, alpha in alphas.items():
            yield Choice(label, alpha, tuple(str(value) for value in cast(Any, mutables[label]).values))


def widths(model: nn.Module) -> dict[str, list[int]]:
    """Path of a layer of mutable width -> all numbers of channels that it may choose, read or made."""
    found: dict[str, list[int]] = {}
    for path, width in _mutable_widths(model):
        found.setdefault(path, []).extend(map(int, width.grid()))
    return found


def width_labels(model: nn.Module) -> frozenset[str]:
    """Labels of the choices that widths depend on."""
    return frozenset(label for _, width in _mutable_widths(model) for label in width.simplify())


def _mutable_widths(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        for name, argument in getattr(module, 'mutable_arguments', {}).items():
            if name in _WIDTHS:
                yield path, argument


def sites(model: nn.Module) -> tuple[dict[str, tuple[str, dict[str, str]]], dict[str, list[str]]]:
    """Where the choices of a supernet are.

    Returns
    -------
    sites
        Path of a choice among modules -> its label and, by candidate, the name of the child. A cell has one per edge.
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
    """Labels of the choices among inputs, whose candidates are numbered and not nested."""
    return frozenset(str(m.label) for m in model.modules() if isinstance(m, DifferentiableMixedInput))


def places(model: nn.Module) -> dict[str, tuple[str, str]]:
    """State by name -> path of its cell or block, and name of the candidate op that it is part of ('' for none).

    A cell or block is the outermost member of a sequence that is no sequence itself; what is in none goes by its first name.
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
    for name in model.state_dict():
        cell, op = place[name.rpartition('.')[0]]
        result[name] = cell or name.partition('.')[0], op
    return result


def kind_of(module: nn.Module) -> str:
    """What a module is: the name of its class, NNI's by what they stand for; '' for parts that do nothing."""
    if isinstance(module, nn.ParameterDict | nn.Softmax):
        return ''
    for cls, kind in ((DifferentiableMixedCell, 'Cell'), (DifferentiableMixedLayer, 'LayerChoice'), (Repeat, 'Repeat')):
        if isinstance(module, cls):
            return kind
    if isinstance(module, MixedOperation):
        return module.bound_type.__name__.removeprefix('Mutable')
    return type(module).__name__.removeprefix('Mutable')


def arch_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Alphas in the order of their labels: the same in every process."""
    return [choice.alpha for choice in choices(model).values()]


def alpha_entropy(model: nn.Module) -> float:
    """Mean over choices of the entropy of their probabilities, divided by its maximum: 1 undecided, 0 decided."""
    entropies = []
    for choice in choices(model).values():
        if len(choice.alpha) > 1:
            probability = torch.softmax(choice.alpha.detach().double(), -1)
            entropies.append(torch.special.entr(probability).sum().item() / math.log(len(choice.alpha)))
    return sum(entropies) / len(entropies) if entropies else 0.0


@dataclass(frozen=True)
class Option:
    """A candidate operation: its probability, whether it has no parameters (skip, pooling, none), and whether it is none."""

    probability: float
    parameter_free: bool
    zero: bool


def operations(model: nn.Module, sample: dict[str, Any]) -> dict[str, dict[str, Option]]:
    """Choices among operations (not of inputs, widths or depths) by the label that ``sample`` has for them.

    In a cell these are the operations on the edges that ``sample`` keeps.
    """
    found: dict[str, dict[str, Option]] = {}
    repeats = [module for module in model.modules() if isinstance(module, ProxylessMixedRepeat)]
    depths = {id(block) for module in repeats for block in _optional(module)}
    for module in model.modules():
        if id(module) in depths:
            continue
        if isinstance(module, DifferentiableMixedCell):
            for node, edges in enumerate(cast(Any, module.ops), start=module.num_predecessors):
                for k in range(module.num_ops_per_node):
                    edge = sample[f'{module.label}/input_{node}_{k}'][0]
                    alpha = module._arch_alpha[f'{module.label}/{node}_{edge}']
                    found[f'{module.label}/op_{node}_{k}'] = _options(alpha, module.op_names, edges[edge])
        elif isinstance(module, DifferentiableMixedLayer):
            found[str(module.label)] = _options(module._arch_alpha, module.names, module)
    return found


def cell_of(model: nn.Module, label: str) -> str:
    """What the choices of a cell have in common: their label up to the last slash, without the space's ``label_prefix``."""
    label = label.removeprefix(f'{getattr(model, "_label_prefix", None)}/')
    return label.rpartition('/')[0] or label


def _options(alpha: Tensor, names: Any, candidates: Any) -> dict[str, Option]:
    probabilities = torch.softmax(alpha.detach(), -1).tolist()
    return {
        name: Option(
            probability,
            next(candidates[name].parameters(), None) is None,
            type(candidates[name]).__name__ in _ZEROS,
        )
        for name, probability in zip(names, probabilities, strict=False)  # a cell's edge may also be left out
    }


def skip_share(model: nn.Module, sample: dict[str, Any]) -> float:
    """Share of ops without parameters (skip, pooling, none) among the ops chosen in ``sample``.

    A high share is the known way in which DARTS collapses. Choices of inputs, widths or depths do not count.
    """
    free = [options[sample[label]].parameter_free for label, options in operations(model, sample).items()]
    return sum(free) / len(free) if free else 0.0


def best_sample(model: nn.Module) -> dict[str, Any]:
    """The best architecture so far: of every choice the candidate with the largest alpha.

    It is what NNI's ``export`` gives, except for Proxyless, whose export draws a random path and leaves it selected.
    """
    sample: dict[str, Any] = {}
    for module in model.modules():
        if isinstance(module, ProxylessMixedLayer):
            sample[str(module.label)] = module.names[int(module._arch_alpha.argmax())]
        elif isinstance(module, ProxylessMixedInput):
            sample[str(module.label)] = _best_inputs(module)
        elif isinstance(module, ProxylessMixedRepeat):
            sample[str(module.depth_choice.label)] = _best_depth(module)
        elif isinstance(module, BaseSuperNetModule):
            sample.update(module.export(memo=sample))
    return sample


@contextmanager
def best_path(model: nn.Module) -> Iterator[None]:
    """Evaluate without chance: Proxyless runs the best path, GumbelDARTS weighs without noise; all is put back."""
    paths = [m for m in model.modules() if isinstance(m, ProxylessMixedLayer | ProxylessMixedInput)]
    saved = [{key: getattr(m, key) for key in ('_sampled', '_sample_idx') if hasattr(m, key)} for m in paths]
    try:
        for module in paths:
            if isinstance(module, ProxylessMixedLayer):
                module._sample_idx = int(module._arch_alpha.argmax())
                module._sampled = module.names[module._sample_idx]
            else:
                module._sampled = _best_inputs(module)
        with _without_noise(model):
            yield
    finally:
        for module, values in zip(paths, saved, strict=True):
            for key, value in values.items():
                setattr(module, key, value)


def _optional(module: ProxylessMixedRepeat) -> list[ProxylessMixedLayer]:
    """Blocks of a mutable depth that may be left out: choices between an identity, '0', and the block, '1'."""
    return cast(list[ProxylessMixedLayer], list(module.blocks)[module.min_depth :])


def _best_depth(module: ProxylessMixedRepeat) -> int:
    """That of the most probable path, or, where the space does not have it, the most probable one that it has."""
    depth = module.min_depth + sum(int(block.names[int(block._arch_alpha.argmax())]) for block in _optional(module))
    if depth in module.depth_choice.values:
        return depth
    (found,) = module.export_probs({}).values()
    return max(module.depth_choice.values, key=lambda value: float(found.get(value, 0.0)))


def draw_path(model: nn.Module) -> None:
    """Select a path at random where NNI's RandomOneShot runs one at a time; before its first step it has none."""
    drawn: dict[str, Any] = {}
    for module in model.modules():
        if isinstance(module, BaseSuperNetModule) and getattr(module, '_arch_alpha', None) is None:
            drawn.update(module.resample(memo=drawn))


@contextmanager
def every_path(model: nn.Module) -> Iterator[None]:
    """Run every candidate of every choice, weighted without noise: Proxyless as DARTS would."""
    plain = {ProxylessMixedLayer: DifferentiableMixedLayer, ProxylessMixedInput: DifferentiableMixedInput}
    changed = [m for m in model.modules() if type(m) in plain]
    try:
        for module in changed:
            module.forward = partial(plain[type(module)].forward, module)
        with _without_noise(model):
            yield
    finally:
        for module in changed:
            del module.forward


@contextmanager
def _without_noise(model: nn.Module) -> Iterator[None]:
    """Weigh the candidates of GumbelDARTS as DARTS does."""
    noisy = [(m, m._softmax) for m in model.modules() if isinstance(getattr(m, '_softmax', None), GumbelSoftmax)]
    for module, _ in noisy:
        module._softmax = nn.Softmax(-1)
    try:
        yield
    finally:
        for module, softmax in noisy:
            module._softmax = softmax


def _best_inputs(module: ProxylessMixedInput) -> list[int]:
    return sorted(module._arch_alpha.argsort(descending=True)[: module.n_chosen or 1].tolist())


def strategy_kind(model: nn.Module) -> str:
    """Which of NNI's strategies (a key of :data:`STRATEGIES`) mutated ``model``."""
    kinds = (ProxylessMixedLayer, ProxylessMixedInput, ProxylessMixedRepeat)
    if any(isinstance(module, kinds) for module in model.modules()):
        return 'Proxyless'
    if any(isinstance(getattr(module, '_softmax', None), GumbelSoftmax) for module in model.modules()):
        return 'GumbelDARTS'
    return 'DARTS'


def mutate(space: ModelSpace, kind: str) -> ModelSpace:
    """Turn ``space`` into a supernet in place, leaving the global random generator as it was."""
    with torch.random.fork_rng(devices=[]):
        return STRATEGIES[kind]().mutate_model(space)


def first_names(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state of ``model`` with every shared tensor once, and the other names of those.

    Returns
    -------
    tensors
        State by name, the first name of each tensor only (safetensors refuses shared storages).
    aliases
        Further name -> first name. Shared alphas have many: 1,963 names for 1,949 tensors in the hub's DARTS space.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,)
        if key in seen:
            aliases[name] = seen[key]
        else:
            seen[key] = name
            tensors[name] = tensor.detach()
    return tensors, aliases


def trial_parameter_id() -> int | None:
    """Identity of the parameters that NNI's manager gave to this trial."""
    record = nni.trial._params
    return None if record is None else record['parameter_id']
