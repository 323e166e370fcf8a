"""Names of NNI's one-shot package that the other folders use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import nni
from nni.nas.evaluator.pytorch import SupervisedLearningModule
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule, GumbelDartsLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, is_supernet

__all__ = [
    'DartsLightningModule',
    'GumbelDartsLightningModule',
    'OneShotStrategy',
    'has_nnis',
    'is_supernet',
    'reporting_training',
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
def reporting_training(training_module: Any) -> Iterator[None]:
    """Have NNI's final report tell the metrics of training, as it does without validation, or nothing if none is logged."""
    if not isinstance(training_module, SupervisedLearningModule):
        yield
        return

    def report() -> None:
        logged = training_module.trainer.callback_metrics
        values = {name: float(logged[f'train_{name}']) for name in training_module.metrics if f'train_{name}' in logged}
        if values and nni.get_current_parameter() is not None:
            nni.report_final_result(values if len(training_module.metrics) > 1 else next(iter(values.values())))

    own = vars(training_module)
    own['_final_report'] = report
    try:
        yield
    finally:
        del own['_final_report']


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
