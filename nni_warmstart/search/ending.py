"""The end of a search: its final weights and figures, and the final report to NNI."""

from __future__ import annotations

from typing import Any

import nni

from .evaluation import Evaluation
from .random_state import RandomState
from .record import Curve, reports_to_nni


class Ending:
    """Replaces the weights by their averages, tests them, and reports to NNI.

    Parameters
    ----------
    evaluation, randomness, curve
        Other callbacks of the search.

    Attributes
    ----------
    figures
        Figures of the last epoch, and ``test_accuracy`` where there are test images; empty before the end.
    """

    def __init__(self, evaluation: Evaluation, randomness: RandomState, curve: Curve) -> None:
        self.evaluation, self.randomness, self.curve = evaluation, randomness, curve
        self.figures: dict[str, float] = {}

    def begin(self, pl_module: Any) -> None:
        """Replace the weights, before the last hook of the evaluator."""
        pl_module.to(pl_module.trainer.strategy.root_device)  # Lightning has moved it to the CPU before this hook
        self.randomness.catch_up()  # an export may draw random numbers
        self.evaluation.keep_averaged(pl_module)

    def finish(self, pl_module: Any) -> None:
        """Estimate what belongs to these weights, test them, and report."""
        trainer = pl_module.trainer
        self.evaluation.fit_averaged(pl_module)
        figures = dict(self.curve.figures[-1]) if self.curve.figures else {}
        accuracy = self.evaluation.test_accuracy(pl_module)
        if accuracy is not None:
            figures['test_accuracy'] = accuracy
        self.figures = trainer.strategy.broadcast(figures)
        pl_module.cpu()
        if 'default' in self.figures and reports_to_nni(trainer):
            nni.report_final_result(self.figures)
