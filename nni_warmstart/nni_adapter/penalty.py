"""Constraints on cost by NNI's profilers and penalties, which have no effect in NNI 3.0.

This works around two faults of NNI 3.0: ``DartsLightningModule`` passes probabilities to the penalty as plain numbers, so
that no gradient reaches the alphas; and if an operation costs nothing (a skip, say), the expectation ends with an error,
because it adds integers and floats.
"""

from __future__ import annotations

import copy
import logging
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from nni.mutable import MutableExpression
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import Tensor, nn

from .choices import choices
from .cost_penalty import EXCESS, CostPenalty

_logger = logging.getLogger(__name__)

Probabilities = Mapping[str, Mapping[Any, float]]
"""Label of a choice -> candidate -> probability."""


class DifferentiablePenalty(ExpectationProfilerPenalty):
    """NNI's penalty over probabilities with gradients; the given penalty and profiler are not changed.

    Parameters
    ----------
    penalty
        Penalty of NNI with a profiler that is an expression, such as ``FlopsProfiler`` and ``NumParamsProfiler``.
    model
        Function that returns the supernet.
    """

    def __init__(self, penalty: ExpectationProfilerPenalty, model: Callable[[], nn.Module]) -> None:
        profiler: Any = copy.copy(penalty.profiler)
        profiler.expression = _in_floats(profiler.expression)
        kinds: Any = {'nonlinear': penalty.nonlinear, 'aggregate': penalty.aggregate}
        super().__init__(profiler, penalty.baseline, penalty.scale, **kinds)
        self.given = (penalty,)  # which a user may change while the search runs; no submodule
        self.supernet = model

    def forward(self, loss: Tensor, sample: Probabilities) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss with the penalty, and details to log; ``sample`` has the form of NNI's ``export_probs``."""
        found = choices(self.supernet())
        live = {
            label: dict(zip(given, found[label].alpha.softmax(-1), strict=True)) if label in found else given
            for label, given in sample.items()
        }
        penalty = copy.copy(self.given[0])
        penalty.profiler = self.profiler
        return penalty(loss, live)

    def kept(self, sample: dict[str, Any], probabilities: Probabilities) -> dict[str, Any]:
        """Change ``sample`` until it respects the baseline, if the penalty punishes costs above it (and only these)."""
        (penalty,) = self.given
        if penalty.nonlinear not in ('positive', 'absolute'):
            return sample
        limit = (1 + EXCESS) * penalty.baseline
        found = affordable(sample, probabilities, self.profiler.profile, limit)
        if self.profiler.profile(found) > limit:
            _logger.warning('No architecture was found that costs at most %g.', limit)
        return found


def bound(penalty: ExpectationProfilerPenalty, model: Callable[[], nn.Module]) -> DifferentiablePenalty | CostPenalty:
    """Return a penalty that acts on the alphas of the supernet that ``model`` returns; the given one is not changed."""
    if isinstance(penalty, CostPenalty):
        return CostPenalty(penalty.profiler, penalty.baseline, penalty.scale, model=model)
    return DifferentiablePenalty(penalty, model)


def affordable(
    sample: dict[str, Any], probabilities: Probabilities, cost: Callable[[dict[str, Any]], float], limit: float
) -> dict[str, Any]:
    """Find a probable architecture that costs at most ``limit``.

    Changes are made one choice at a time, by the least loss of log-probability for the cost saved.

    Parameters
    ----------
    sample
        Most probable architecture: label of a choice -> chosen candidate or value.
    probabilities
        Probabilities of the candidates; choices without any are not changed.
    cost
        Function that returns the cost of an architecture.
    limit
        Largest cost.

    Returns
    -------
    dict
        Architecture; above the limit only if no change of a single choice saves anything.
    """
    spent = cost(sample)
    while spent > limit:
        best: tuple[float, float, dict[str, Any]] | None = None
        for label, candidates in probabilities.items():
            if not isinstance(sample.get(label), int | float | str) or sample[label] not in candidates:
                continue
            for candidate, probability in candidates.items():
                changed = {**sample, label: candidate}
                price = cost(changed)
                saved = spent - max(price, limit)  # savings beyond the limit do not count
                if saved > 0:
                    lost = math.log(max(candidates[sample[label]], 1e-12)) - math.log(max(probability, 1e-12))
                    if best is None or lost / saved < best[0]:
                        best = lost / saved, price, changed
        if best is None:
            break
        _, spent, sample = best
    return sample


def _in_floats(expression: Any) -> Any:
    """Return the same cost with every summand a float, which NNI's expectation needs."""
    if not isinstance(expression, MutableExpression):
        return float(expression)
    node: Any = expression  # NNI splits expectations only at sums and differences
    if getattr(node, 'function', None) in (operator.add, operator.sub):
        return node.function(*map(_in_floats, node.arguments))
    return node * 1.0
