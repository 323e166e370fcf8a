"""Evaluator of ``search.yml``: classification with DARTS's own optimiser and schedule."""

from __future__ import annotations

from typing import Any

import nni
from nni.nas.evaluator.pytorch import ClassificationModule, Lightning
from torch import Tensor, nn

from ..data.augmentation import Augmentation
from ..data.splits import Splits
from .datamodule import TaskData
from .optimisation import sgd_with_cosine
from .trainer import SAFE_LOADING
from .workers import Workers


@nni.trace
class CosineClassification(ClassificationModule):
    """NNI's classification with SGD, momentum 0.9, and a cosine rate over the whole run, as in DARTS.

    Parameters
    ----------
    num_classes
        Classes of the task.
    learning_rate, weight_decay
        Settings of SGD; the learning rate is that of the first epoch.
    jitter, crop, cutout
        Augmentation of the images that train weights and alphas; see
        :class:`~nni_warmstart.data.augmentation.Augmentation`.
    flip
        Whether these images are mirrored at random.
    label_smoothing
        Share of the target distribution that is uniform while the network trains; None for 0.

    Attributes
    ----------
    stage
        Prefix of the figures that are measured after every epoch.
    """

    stage = 'val'

    def __init__(
        self,
        num_classes: int,
        learning_rate: float = 0.025,
        weight_decay: float = 3e-4,
        jitter: float = 0.0,
        crop: float = 0.0,
        cutout: float = 0.0,
        flip: bool = False,
        label_smoothing: float | None = None,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, num_classes=num_classes)
        if label_smoothing:
            self.criterion = _SmoothedInTraining(label_smoothing=label_smoothing)
        self.augmentation, self.flip = Augmentation(jitter, crop, cutout), flip

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return super().training_step((self.augmentation(x, flip=self.flip), y), batch_idx)

    def configure_optimizers(self) -> Any:
        return sgd_with_cosine(self, self.hparams['learning_rate'], self.hparams['weight_decay'])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop('hyper_parameters', None)  # NNI stores classes in them, which cannot be loaded as data only


class _SmoothedInTraining(nn.CrossEntropyLoss):
    """Cross-entropy with smoothed labels in training, and as it is in evaluation."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target) if self.training else nn.functional.cross_entropy(input, target)


@nni.trace
class ClassificationOnTest(CosineClassification):
    """Classification whose figures after every epoch are those of test images, and have their names: test_acc, test_loss."""

    stage = 'test'

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        return self.test_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:  # NNI's report is of val_acc
        if nni.get_current_parameter() is not None and not self.trainer.sanity_checking:
            nni.report_intermediate_result(self.trainer.callback_metrics['test_acc'].item())

    def on_fit_end(self) -> None:  # also of a run that is resumed after its last epoch, and measures nothing
        if nni.get_current_parameter() is not None and self.trainer.callback_metrics:
            nni.report_final_result(self.trainer.callback_metrics['test_acc'].item())


def classification(splits: Splits, num_classes: int, trainer: Any, *, tested: bool = False, **settings: Any) -> Lightning:
    """Make an evaluator over ``splits``.

    If it is ``tested``, the validation images are test images. ``settings`` are batch_size and (optional) seed and sampler
    of :class:`TaskData`, num_workers and prefetch of :class:`~nni_warmstart.evaluators.datamodule.Workers`, and arguments
    of :class:`CosineClassification`.
    """
    workers = Workers(settings.pop('num_workers', 0), settings.pop('prefetch', 2))
    data = TaskData(
        splits, settings.pop('batch_size'), settings.pop('seed', None), workers, settings.pop('sampler', 'shuffle')
    )
    module = (ClassificationOnTest if tested else CosineClassification)(num_classes, **settings)
    return Lightning(module, trainer, datamodule=data, fit_kwargs=dict(SAFE_LOADING))
