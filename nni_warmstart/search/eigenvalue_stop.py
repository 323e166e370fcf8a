"""Early stop by the curvature of the alphas' loss, as in RobustDARTS; see :mod:`nni_warmstart.search.collapse`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor

from ..nni_adapter.choices import arch_parameters
from ..nni_adapter.paths import every_path
from ..utils.derivatives import twice_differentiable
from ..utils.modules import state_kept
from ..utils.random import quiet_randomness
from . import collapse
from .evaluation import Evaluation, on_device
from .loaders import Loaders
from .record import Curve

_logger = logging.getLogger(__name__)

FIGURE = 'alpha_eigenvalue'
"""Name of the eigenvalue in the curve."""


class EigenvalueStop(Callback):
    """Stops a search when the curvature of the alphas' loss grows.

    Parameters
    ----------
    evaluation
        Callback that applies the weights with which the loss is computed.
    loaders
        Loaders of validation samples.
    curve
        Callback that records the eigenvalue of every epoch.
    """

    def __init__(self, evaluation: Evaluation, loaders: Loaders, curve: Curve) -> None:
        self.evaluation, self.loaders, self.curve = evaluation, loaders, curve

    @property
    def collapsing(self) -> bool:
        """Whether the eigenvalues have grown enough to stop the search."""
        return collapse.collapsing([figures[FIGURE] for figures in self.curve.figures if FIGURE in figures])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.collapsing:  # resumed after the stop
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking and self.collapsing:
            _logger.warning('The curvature of the alphas grows: stopped after epoch %d.', len(self.curve.figures))
            trainer.should_stop = True

    def measure(self, pl_module: Any) -> dict[str, float]:
        """Return a figure of the epoch: the dominant eigenvalue of the Hessian of the loss on one validation batch."""
        with quiet_randomness():
            batch = on_device(pl_module, next(iter(self.loaders.read('val'))))
        training_module, alphas = pl_module.training_module, arch_parameters(pl_module.model)
        learning = [alpha.requires_grad for alpha in alphas]  # NNI freezes the alphas in its warm-up epochs
        try:
            with (
                quiet_randomness(),
                self.evaluation.evaluating(pl_module, every_path, calibrate=True),
                _silent(training_module),
                state_kept(training_module),
                twice_differentiable(training_module),
                torch.enable_grad(),
            ):
                for alpha in alphas:
                    alpha.requires_grad_(True)
                return {FIGURE: collapse.dominant_eigenvalue(lambda: _loss(training_module, batch), alphas)}
        finally:
            for alpha, learns in zip(alphas, learning, strict=True):
                alpha.requires_grad_(learns)


def _loss(training_module: Any, batch: Any) -> Tensor:
    result: Any = training_module.training_step(batch, 0)
    return result['loss'] if isinstance(result, dict) else result


@contextmanager
def _silent(training_module: Any) -> Iterator[None]:
    """Disable the logging of an evaluator's step, since Lightning raises an error for ``self.log`` outside its own loops."""
    own = vars(training_module)
    kept = {name: own[name] for name in ('log', 'log_dict') if name in own}  # set by NNI on the instance
    own.update(log=_nothing, log_dict=_nothing)
    try:
        yield
    finally:
        for name in ('log', 'log_dict'):
            del own[name]
        own.update(kept)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass
