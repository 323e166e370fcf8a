"""Names of NNI's one-shot package that the rest of this package builds on."""

from __future__ import annotations

from typing import Any

from nni.nas.evaluator.pytorch import SupervisedLearningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule, GumbelDartsLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, is_supernet

__all__ = [
    'DartsLightningModule',
    'GumbelDartsLightningModule',
    'OneShotStrategy',
    'has_nnis',
    'is_supernet',
]


def has_nnis(training_module: Any, method: str) -> bool:
    """Whether an evaluator has this method from the supervised learning of NNI: no override of the user."""
    own = getattr(type(training_module), method, None)
    return own is not None and own is getattr(SupervisedLearningModule, method)
