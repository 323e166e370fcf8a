"""Learning rate and largest gradients of the weights of a search that starts from a pretrained network."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor

from ..nni_adapter.choices import arch_parameters
from ..warm_start.report import TransferReport

RATE = 0.2
"""Learning rate, as a share of the evaluator's. See benchmarks/NOTES.md."""

CLIP = 5.0
"""Largest norm of the gradients, unless the strategy has one; NNI's strategies clip nothing by default."""


class InheritedRate(Callback):
    """Lets the weights of a search that started from a pretrained network learn at a smaller rate than the evaluator's.

    A rate for searches from scratch ruins pretrained weights, and at it the classifier and added blocks, too, make a network
    with held statistics of batch norm diverge. After each step of an optimizer, whichever it is, weights are moved back by
    the rest of the way, which is the same as a smaller rate in all its parameter groups, schedules and weight decay
    included. Gradients are clipped, since large ones make such a network diverge.

    Attributes
    ----------
    names
        Names of the weights; empty for a search that did not start from a network.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.inherited_rate'

    def __init__(self) -> None:
        self.names: list[str] = []
        self._hooks = ExitStack()

    def slow_down(self, report: TransferReport) -> None:
        """Slow down all weights, of which some were mapped from a network."""
        self.names = [origin.target for origin in report.origins if origin.parameter]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.names and pl_module.gradient_clip_val is None:
            pl_module.gradient_clip_val = CLIP
        parameters = dict(pl_module.model.named_parameters())
        alphas = set(map(id, arch_parameters(pl_module.model)))
        weights = [parameters[name] for name in self.names if id(parameters[name]) not in alphas]
        for optimizer in trainer.optimizers:
            own = {id(parameter) for group in optimizer.param_groups for parameter in group['params']}
            self._watch(optimizer, [weight for weight in weights if id(weight) in own])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._hooks.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._hooks.close()

    def state_dict(self) -> dict[str, Any]:
        return {'names': self.names} if self.names else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.names = list(state_dict['names'])

    def _watch(self, optimizer: Any, weights: list[Tensor]) -> None:
        before: list[Tensor] = []

        def remember(*_: Any) -> None:
            before[:] = [weight.detach().clone() for weight in weights]

        def move_back(*_: Any) -> None:
            with torch.no_grad():
                for weight, old in zip(weights, before, strict=True):
                    weight.lerp_(old, 1 - RATE)
            before.clear()  # no second copy of the weights between steps

        if weights:
            self._hooks.callback(optimizer.register_step_pre_hook(remember).remove)
            self._hooks.callback(optimizer.register_step_post_hook(move_back).remove)
