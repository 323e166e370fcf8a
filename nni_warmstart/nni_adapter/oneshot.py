"""Names of NNI's one-shot package that the rest of this package builds on."""

from nni.nas.evaluator.pytorch.lightning import SupervisedLearningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule, GumbelDartsLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, is_supernet

__all__ = [
    'DartsLightningModule',
    'GumbelDartsLightningModule',
    'OneShotStrategy',
    'SupervisedLearningModule',
    'is_supernet',
]
