"""The end of a search: its final weights and figures, and the final report to NNI."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import nni

from ..errors import REFUSALS, reason
from ..utils.copies import FAILURES
from .evaluation import Evaluation
from .held_out import HeldOutImages
from .random_state import RandomState
from .record import Curve, reports_to_nni

_logger = logging.getLogger(__name__)


class Ending:
    """Replaces the weights by their averages, has the results kept, tests them, and reports to NNI.

    Parameters
    ----------
    evaluation, randomness, curve
        Other callbacks of the search.
    held_out
        Test images.

    Attributes
    ----------
    keep
        Functions that write the results; they are called before anything is measured that may fail.
    figures
        Figures of the last epoch, and ``test_accuracy`` where there are test images; empty before the end.
    """

    def __init__(self, evaluation: Evaluation, randomness: RandomState, curve: Curve, held_out: HeldOutImages) -> None:
        self.evaluation, self.randomness, self.curve, self.held_out = evaluation, randomness, curve, held_out
        self.figures: dict[str, float] = {}
        self.keep: list[Callable[[], None]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), 'keep': []}  # a copy of a module writes no results

    def begin(self, pl_module: Any) -> None:
        """Replace the weights, before the last hook of the evaluator."""
        pl_module.to(pl_module.trainer.strategy.root_device)  # Lightning has moved it to the CPU before this hook
        self.randomness.catch_up()  # an export may draw random numbers
        self.evaluation.keep_averaged(pl_module)

    def finish(self, pl_module: Any) -> None:
        """Estimate what belongs to these weights, keep the results, test the weights, and report."""
        trainer = pl_module.trainer
        self.evaluation.fit_averaged(pl_module)
        self.figures = dict(self.curve.figures[-1]) if self.curve.figures else {}
        pl_module.cpu()
        try:
            for keep in self.keep:
                keep()
        finally:
            pl_module.to(trainer.strategy.root_device)
            self._test(pl_module)
            self.figures = trainer.strategy.broadcast(self.figures)
            pl_module.cpu()
            if 'default' in self.figures and reports_to_nni(trainer):
                default = self.figures.pop('default')  # the last: its short name fits on NNI's page at the right edge
                self.figures['default'] = default
                nni.report_final_result(self.figures)

    def _test(self, pl_module: Any) -> None:
        try:
            accuracy = self.evaluation.test_accuracy(pl_module, self.held_out)
        except (*REFUSALS, *FAILURES) as error:
            _logger.warning('The test accuracy cannot be measured: %s', reason(error)[:200])
        else:
            if accuracy is not None:
                self.figures['test_accuracy'] = accuracy
