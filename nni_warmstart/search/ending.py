"""The end of a search: its final weights and figures, and the final report to NNI."""

from __future__ import annotations

from typing import Any

import nni
from pytorch_lightning import Callback

from .evaluation import Evaluation
from .random_state import RandomState
from .record import Curve, reports_to_nni


class Ending(Callback):
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

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU before this hook
        self.randomness.restore()  # resumed after the last epoch: an export may draw random numbers
        self.evaluation.keep_averaged(trainer, pl_module)
        figures = dict(self.curve.figures[-1]) if self.curve.figures else {}
        accuracy = self.evaluation.test_accuracy(trainer, pl_module)
        if accuracy is not None:
            figures['test_accuracy'] = accuracy
        self.figures = trainer.strategy.broadcast(figures)
        pl_module.cpu()
        if 'default' in self.figures and reports_to_nni(trainer):
            nni.report_final_result(self.figures)
