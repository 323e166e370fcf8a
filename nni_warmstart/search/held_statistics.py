"""Batch-norm statistics of a pretrained network, which a training that starts from it holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytorch_lightning import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..nni_adapter.batchnorm import batch_norms
from ..warm_start.report import INHERITED, TransferReport


class HeldStatistics(Callback):
    """Holds inherited batch-norm statistics while a search or a network trains; scales and shifts learn as ever.

    The statistics of a pretrained network describe millions of images. Those of a batch of a search describe a few hundred
    pixels in the last stages, and normalising by them loses most of what was inherited (benchmarks/NOTES.md). Detectors are
    fine-tuned with held statistics for the same reason (He et al., *Deep Residual Learning*, CVPR 2016, appendix A).

    Attributes
    ----------
    names
        Paths of the batch norms; empty for a training that did not start from a network.
    """

    @property
    def state_key(self) -> str:
        return 'nni_warmstart.held_statistics'

    def __init__(self) -> None:
        self.names: list[str] = []

    def hold(self, report: TransferReport) -> None:
        """Hold what a warm start from a network has inherited."""
        statistics = (origin.target.rpartition('.') for origin in report.origins if origin.how in INHERITED)
        self.names = [path for path, _, local in statistics if local == 'running_mean']

    def hold_all(self, model: nn.Module) -> None:
        """Hold the statistics of all batch norms of a model."""
        norms = set(map(id, batch_norms(model)))
        self.names = [path for path, module in model.named_modules() if id(module) in norms]

    def others(self, model: nn.Module) -> list[_BatchNorm]:
        """Return the batch norms of a model whose statistics are not held."""
        held = set(map(id, self._of(model)))
        return [norm for norm in batch_norms(model) if id(norm) not in held]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        for norm in self._of(pl_module.model):
            norm.eval()

    def state_dict(self) -> dict[str, Any]:
        return {'names': self.names} if self.names else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.names = list(state_dict['names'])

    def _of(self, model: nn.Module) -> Iterable[nn.Module]:
        return [model.get_submodule(name) for name in self.names]
