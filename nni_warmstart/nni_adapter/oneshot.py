"""Names of NNI's one-shot package that the other folders use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
    'undo_patches',
    'without_onnx_export',
]


def has_nnis(training_module: Any, method: str) -> bool:
    """Check whether an evaluator has this method from NNI's supervised learning, without an override of the user."""
    own = getattr(type(training_module), method, None)
    return own is not None and own is getattr(SupervisedLearningModule, method)


def undo_patches(datamodule: Any) -> None:
    """Give a data module its own methods back, where a strategy of an earlier search has put others in their place.

    ``OneShotStrategy.mutate_evaluator`` patches the object, and takes what it finds there for the loaders of the user.
    """
    for name in ('train_dataloader', 'val_dataloader', 'setup'):
        patch = vars(datamodule).get(name) if datamodule is not None else None
        if isinstance(patch, partial) and isinstance(getattr(patch.func, '__self__', None), OneShotStrategy):
            delattr(datamodule, name)


@contextmanager
def without_onnx_export(training_module: Any) -> Iterator[None]:
    """Keep an evaluator from writing a supernet as ONNX in its first validation.

    That is the default of ``SupervisedLearningModule``, which in a one-shot search of NNI never validates.
    """
    wanted = getattr(training_module, 'export_onnx', None)
    if wanted is None:
        yield
        return
    training_module.export_onnx = None
    try:
        yield
    finally:
        training_module.export_onnx = wanted
