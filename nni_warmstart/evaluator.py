"""The evaluator that ``search.yml`` describes: classification with DARTS's own optimiser and schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nni
import torch
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, LightningModule, Trainer
from pytorch_lightning import LightningDataModule
from pytorch_lightning.loggers import CSVLogger

from .data import Images, Splits

SAFE_LOADING = {'weights_only': True}
"""Arguments of ``Trainer.fit``: a resumed checkpoint is read as data, never unpickled."""


@nni.trace
class CosineClassification(ClassificationModule):
    """NNI's classification with SGD, momentum 0.9, and a cosine rate over the whole run, as in DARTS."""

    def __init__(self, num_classes: int, learning_rate: float = 0.025, weight_decay: float = 3e-4) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, num_classes=num_classes)

    def configure_optimizers(self) -> Any:
        return sgd_with_cosine(self, self.hparams['learning_rate'], self.hparams['weight_decay'])


def sgd_with_cosine(module: LightningModule, learning_rate: float, weight_decay: float) -> dict[str, Any]:
    """SGD with momentum 0.9 and a rate that falls to 0 along a cosine, epoch by epoch, over the trainer's run."""
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    epochs = max(1, module.trainer.max_epochs or 1)
    return {'optimizer': optimizer, 'lr_scheduler': torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)}


class TaskData(LightningDataModule):
    """Loaders over the splits of a task; test pictures are there where the task has some."""

    def __init__(self, splits: Splits, batch_size: int) -> None:
        super().__init__()
        self.splits, self.batch_size = splits, batch_size

    def _loader(self, images: Images, shuffle: bool) -> Any:
        # The last, smaller batch of an epoch is left out, unless it is the only one: batch norm needs some pictures.
        return DataLoader(images, self.batch_size, shuffle=shuffle, drop_last=shuffle and len(images) > self.batch_size)

    def train_dataloader(self) -> Any:
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> Any:
        return self._loader(self.splits.val, shuffle=False)

    def test_dataloader(self) -> Any:
        return [] if self.splits.test is None else self._loader(self.splits.test, shuffle=False)


def make_trainer(max_epochs: int, out: str | Path, *, progress: bool = True, callbacks: list[Any] | None = None) -> Any:
    """A Lightning trainer that writes its CSV log under ``out``."""
    return Trainer(
        max_epochs=max_epochs,
        logger=CSVLogger(str(out), name='logs', version=''),
        callbacks=callbacks or [],
        enable_progress_bar=progress,
        enable_model_summary=False,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
    )


def classification(splits: Splits, num_classes: int, trainer: Any, **settings: Any) -> Lightning:
    """Evaluator over ``splits``; ``settings`` are batch_size, learning_rate and weight_decay."""
    module = CosineClassification(num_classes, settings['learning_rate'], settings['weight_decay'])
    data = TaskData(splits, settings['batch_size'])
    return Lightning(module, trainer, datamodule=data, fit_kwargs=dict(SAFE_LOADING))
