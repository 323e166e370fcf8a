"""Names of NNI's one-shot package that the other folders use."""

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
    """Check whether an evaluator has this method from NNI's supervised learning, without an override of the user."""
    own = getattr(type(training_module), method, None)
    return own is not None and own is getattr(SupervisedLearningModule, method)
