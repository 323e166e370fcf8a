"""CostPenalty: a target for the cost of the found network, which works for cells as well."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import nn

from ..errors import ConfigError
from .cost_profiler import CostProfiler

_logger = logging.getLogger(__name__)

EXCESS = 0.05
"""Share of the target by which an exported architecture may cost more, and one that was changed for it less."""


class CostPenalty(ExpectationProfilerPenalty):
    """Penalty on the expected cost above a target: ``weight * max(0, expected / target - 1)`` is added to the alphas' loss.

    The architecture that is exported costs at most 5 % more than the target. If the most probable one costs more than that,
    it is the most probable one from 5 % less to 5 % more than the target, or the nearest one that the space has. It has no
    candidates that give zeros then, and the cap on operations without parameters does not hold for it.

    Parameters
    ----------
    profiler
        Costs of the networks of the space.
    target
        Cost, in the unit of the profiler.
    weight
        Factor of the penalty.
    model
        Function that returns the supernet; the strategy supplies it.

    Raises
    ------
    ConfigError
        If the target is not greater than 0.
    """

    profiler: CostProfiler

    def __init__(
        self, profiler: CostProfiler, target: float, weight: float = 1.0, *, model: Callable[[], nn.Module] | None = None
    ) -> None:
        if not target > 0:
            raise ConfigError(f'target = {target!r}, but it must be greater than 0.')
        super().__init__(profiler, float(target), float(weight), nonlinear='positive')
        self._model = model

    def profile(self, sample: Any = None) -> Any:
        """Return the expected cost under the alphas of the supernet; probabilities are not needed."""
        if self._model is None:
            raise ConfigError('the penalty has no supernet; give it to a strategy: WarmStartDARTS(penalty=...).')
        return self.profiler.expectation(self._model())

    def kept(self, sample: dict[str, Any], probabilities: Any = None) -> dict[str, Any]:
        """Return an architecture that keeps to the target; ``sample`` if that does."""
        low, high = ((1 + share) * self.baseline for share in (-EXCESS, EXCESS))
        if self._model is None or self.profiler.profile(sample) <= high:
            return sample
        found = {**sample, **self.profiler.within(self._model(), low, high, self.baseline)}
        cost = self.profiler.profile(found)
        if cost > high:
            _logger.warning(
                'No architecture was found that costs at most %g; the cheapest one costs %g (%s).',
                high, cost, self.profiler.kind,
            )  # fmt: skip
        return found

    def get_extra_state(self) -> dict[str, Any]:
        """Return the measured costs, with which a resumed search goes on: times differ from those measured anew."""
        return self.profiler.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.profiler = self.profiler.with_state(state)
