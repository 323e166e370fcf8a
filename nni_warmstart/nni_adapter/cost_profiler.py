"""CostProfiler: costs of the networks of a space, cells included, as sums over the candidates that they consist of."""

from __future__ import annotations

import copy
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedCell, DifferentiableMixedLayer
from nni.nas.profiler import Profiler
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils import costs
from ..utils.checks import suggestion
from ..utils.knapsack import choose
from ..utils.random import quiet_randomness
from .architectures import is_zero
from .choices import Choice, choices
from .decisions import Decision, Option, cheapest, dearest
from .freezing import freeze
from .mutation import mutate

KINDS = ('parameters', 'multiply_adds', 'latency')
"""Costs that can be profiled; latency in milliseconds for the given image on one thread of this CPU."""

_DRAWN = 4
"""Networks, besides the cheapest and the dearest, on which latencies of candidates are calibrated."""


class CostProfiler(Profiler):
    """Costs of the networks of a space, measured candidate by candidate on the inputs that they get.

    Unlike NNI's profilers it measures instead of computing formulas, and knows cells. A network costs the sum of its
    candidates and of what all networks share, exactly so for parameters and multiply-adds; see
    :mod:`nni_warmstart.utils.costs`.

    Parameters
    ----------
    model_space
        Model space whose choices are all among operations: cells of NNI and ``LayerChoice``. It is not changed.
    image
        Image to measure with, shape ``(1, channels, height, width)``.
    kind
        One of :data:`KINDS`.

    Attributes
    ----------
    shared
        Cost that all networks have.
    decisions
        Decisions between candidates, with the cost of each.

    Raises
    ------
    ConfigError
        If the kind is unknown, or the space has choices of other kinds, such as widths and depths.
    """

    def __init__(self, model_space: ModelSpace, image: Tensor, kind: str) -> None:
        super().__init__(cast(Any, model_space))
        if kind not in KINDS:
            raise ConfigError(f'cost = {kind!r} is unknown; choose one of {", ".join(KINDS)}.{suggestion(kind, KINDS)}')
        self.kind = kind
        with quiet_randomness():
            model = mutate(copy.deepcopy(model_space), 'DARTS').eval()
            self.shared, self.decisions = 0.0, _decisions(model, image, kind)
            samples = [self.picked(cheapest)]
            if kind == 'latency':  # by itself a candidate finds other things in the cache than in a network
                samples += [self.picked(dearest), *(self.picked(random.Random(seed).choice) for seed in range(_DRAWN))]
            sums = [self.profile(sample) for sample in samples]
            networks = (freeze(copy.deepcopy(model_space), sample) for sample in samples)
            wholes = [_cost(network, (image,), kind) for network in networks]
            if kind == 'latency':
                self._scale(max(0.0, statistics.linear_regression(sums, wholes).slope) if max(sums) > min(sums) else 1.0)
            shared = statistics.fmean(wholes) - statistics.fmean(map(self.profile, samples))
            self.shared = max(0.0, shared)

    def profile(self, sample: Mapping[str, Any]) -> float:
        """Return the cost of an architecture: label of a choice -> chosen candidate."""
        return self.shared + sum(decision.cost_of(sample) for decision in self.decisions)

    def expectation(self, model: nn.Module) -> Tensor:
        """Return the expected cost, with gradients to the alphas of a supernet; see :meth:`.Decision.expected`."""
        total: Any = self.shared
        for decision, alphas in self._with_alphas(model):
            total = total + decision.expected(alphas)
        return total

    def picked(self, pick: Callable[[list[Option]], Option]) -> dict[str, Any]:
        """Return the architecture of which ``pick`` takes every part, from options without candidates that give zeros."""
        found: dict[str, Any] = {}
        for decision in self.decisions:
            flat = [torch.zeros(len(decision.candidates))] * len(decision.alphas)
            found.update(pick(decision.options(flat)).part)
        return found

    def _scale(self, factor: float) -> None:
        self.decisions = [
            replace(each, costs=tuple(tuple(factor * cost for cost in edge) for edge in each.costs))
            for each in self.decisions
        ]

    def within(self, model: nn.Module, low: float, high: float, aim: float) -> dict[str, Any]:
        """Return the most probable architecture with a cost from ``low`` to ``high``, else the one nearest to ``aim``.

        Candidates that give zeros are left out.
        """
        options = [decision.options([alpha.detach() for alpha in alphas]) for decision, alphas in self._with_alphas(model)]
        bounds = (value - self.shared for value in (low, high, aim))
        chosen = choose([[option[:2] for option in group] for group in options], *bounds)
        return {label: value for group, i in zip(options, chosen, strict=True) for label, value in group[i].part.items()}

    def state(self) -> dict[str, Any]:
        """Return the measured costs as plain data."""
        return {'shared': self.shared, 'costs': [[list(edge) for edge in decision.costs] for decision in self.decisions]}

    def with_state(self, state: Mapping[str, Any]) -> CostProfiler:
        """Return a profiler with the costs of :meth:`state`, which differ from those measured now where they are times."""
        twin = copy.copy(self)
        twin.shared = state['shared']
        twin.decisions = [
            replace(decision, costs=tuple(map(tuple, given)))
            for decision, given in zip(self.decisions, state['costs'], strict=True)
        ]
        return twin

    def _with_alphas(self, model: nn.Module) -> Iterator[tuple[Decision, list[Tensor]]]:
        found = choices(model)
        for decision in self.decisions:
            yield decision, [_logits(found[label], decision.candidates) for label in decision.alphas]


def _logits(choice: Choice, candidates: tuple[str, ...]) -> Tensor:
    """Return the alphas of the candidates, without the slot that NNI's cell has for leaving an edge out."""
    if choice.candidates[: len(candidates)] == candidates:
        return choice.alpha[: len(candidates)]
    return choice.alpha[[choice.candidates.index(name) for name in candidates]]


@dataclass
class _Calls:
    """Candidates of one name on one edge, in all copies of a cell, with the inputs that each gets."""

    modules: list[nn.Module]
    inputs: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]


def _decisions(model: nn.Module, image: Tensor, kind: str) -> list[Decision]:
    """Measure the candidates of a supernet, which runs once."""
    edges, nodes = _edges(model)
    _check(model, edges)
    hooks = []
    for candidates in edges.values():
        for calls in candidates.values():
            for module in calls.modules:

                def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], calls: _Calls = calls) -> None:
                    calls.inputs.append((module, given, named))

                hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    known: dict[Any, float] = {}
    measured = {
        label: {name: _cost_of(calls, kind, known) for name, calls in candidates.items()}
        for label, candidates in edges.items()
    }
    found = []
    for labels, kept, node in nodes:
        names = tuple(edges[labels[0]])
        zeros = [any(map(is_zero, edges[labels[0]][name].modules)) for name in names]
        usable = tuple(not zero or all(zeros) for zero in zeros)
        table = tuple(tuple(measured[label][name] for name in names) for label in labels)
        found.append(Decision(labels, names, table, usable, kept, node))
    return found


def _edges(model: nn.Module) -> tuple[dict[str, dict[str, _Calls]], list[Any]]:
    """Return the candidates by label and name, and the nodes: labels of their edges, number that is kept, cell and node."""
    edges: dict[str, dict[str, _Calls]] = defaultdict(dict)
    nodes: dict[tuple[str, ...], Any] = {}
    for module in model.modules():
        if isinstance(module, DifferentiableMixedCell):
            for node, ends in enumerate(cast(Any, module.ops), start=module.num_predecessors):
                labels = tuple(f'{module.label}/{node}_{edge}' for edge in range(node))
                if module.num_ops_per_node > node:
                    raise ConfigError(
                        f'the costs of {type(model).__name__} are not known by candidate: node {node} of its cell '
                        f'{module.label} has {node} edges, of which {module.num_ops_per_node} are kept.'
                    )
                nodes[labels] = labels, module.num_ops_per_node, (module.label, node)
                for label, end in zip(labels, ends, strict=False):
                    _add(edges[label], end.items())
        elif isinstance(module, DifferentiableMixedLayer):
            label = str(module.label)
            nodes[(label,)] = (label,), 1, None
            _add(edges[label], ((str(name), cast(Any, module)[name]) for name in module.names))
    return dict(edges), list(nodes.values())


def _add(candidates: dict[str, _Calls], named: Any) -> None:
    for name, module in named:
        candidates.setdefault(name, _Calls([], [])).modules.append(module)


def _check(model: nn.Module, edges: Mapping[str, Mapping[str, _Calls]]) -> None:
    """Raise an error for choices whose costs are no sums over candidates."""
    name = type(model).__name__
    others = sorted(choices(model).keys() - edges.keys())
    if others:
        raise ConfigError(
            f'the costs of {name} are not known by candidate: {others[0]} is no choice among operations; give a penalty '
            "with one of NNI's profilers to the strategy in Python."
        )
    for label, candidates in edges.items():
        inner = [each for calls in candidates.values() for module in calls.modules for each in choices(module)]
        if inner:
            raise ConfigError(
                f'the costs of {name} are not known by candidate: {label} has the choice {inner[0]} in a candidate; give a '
                "penalty with one of NNI's profilers to the strategy in Python."
            )


def _cost_of(calls: _Calls, kind: str, known: dict[Any, float]) -> float:
    """Return the cost of a candidate on an edge: of its copies together, each measured once for all that are alike."""
    if kind == 'parameters':
        return float(sum(map(costs.parameters, calls.modules)))
    total = 0.0
    for module, given, named in calls.inputs:
        key = _likeness(module, given, named)
        if key not in known:
            known[key] = _cost(module, given, kind, named)
        total += known[key]
    return total


def _likeness(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return what modules have in common that do the same work: classes, settings, and shapes of weights and inputs."""
    parts = []
    for each in module.modules():
        settings = sorted((k, repr(v)) for k, v in vars(each).items() if isinstance(v, int | float | str | bool | tuple))
        parts.append((type(each), each.extra_repr(), tuple(settings)))
    shapes = [tuple(x.shape) for x in (*module.state_dict().values(), *given) if isinstance(x, Tensor)]
    others = [(key, tuple(x.shape) if isinstance(x, Tensor) else repr(x)) for key, x in sorted(named.items())]
    return tuple(parts), tuple(shapes), tuple(others)


def _cost(module: nn.Module, given: tuple[Any, ...], kind: str, named: Mapping[str, Any] = MappingProxyType({})) -> float:
    if kind == 'parameters':
        return float(costs.parameters(module))
    if kind == 'multiply_adds':
        return float(costs.multiply_adds(module, *given, named=named))
    return costs.latency(module, *given, named=named, seconds=0.2, most=20).median
