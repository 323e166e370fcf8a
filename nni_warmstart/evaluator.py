"""The evaluator that ``search.yml`` describes: classification with DARTS's own optimiser and schedule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import nni
import numpy as np
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, LightningModule, Trainer
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import CSVLogger
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import Sampler

from .augment import Augmentation
from .checkpoint import AtomicCheckpoints
from .data import Images, Splits
from .errors import ConfigError, reason

SAFE_LOADING = {'weights_only': True}
"""Arguments of ``Trainer.fit``: a resumed checkpoint is read as data, never unpickled."""


@nni.trace
class CosineClassification(ClassificationModule):
    """NNI's classification with SGD, momentum 0.9, and a cosine rate over the whole run, as in DARTS.

    Parameters
    ----------
    num_classes
        Of the task.
    learning_rate, weight_decay
        Of SGD; the rate is the first one.
    jitter, crop, cutout
        Of the pictures that weights and alphas learn from, see :class:`~nni_warmstart.augment.Augmentation`.
    flip
        Whether they may be mirrored.
    """

    def __init__(
        self,
        num_classes: int,
        learning_rate: float = 0.025,
        weight_decay: float = 3e-4,
        jitter: float = 0.0,
        crop: float = 0.0,
        cutout: float = 0.0,
        flip: bool = False,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, num_classes=num_classes)
        self.augmentation, self.flip = Augmentation(jitter, crop, cutout), flip

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return super().training_step((self.augmentation(x, flip=self.flip), y), batch_idx)

    def configure_optimizers(self) -> Any:
        return sgd_with_cosine(self, self.hparams['learning_rate'], self.hparams['weight_decay'])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop('hyper_parameters', None)  # NNI's hold classes, which are not read as data


def sgd_with_cosine(module: LightningModule, learning_rate: float, weight_decay: float) -> dict[str, Any]:
    """SGD with momentum 0.9 and a rate that falls to 0 along a cosine, epoch by epoch, over the trainer's run."""
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    return {'optimizer': optimizer, 'lr_scheduler': Cosine(optimizer, max(1, module.trainer.max_epochs or 1))}


class Cosine(CosineAnnealingLR):
    """torch's, but a run that is resumed with another number of epochs goes on along the curve of that length."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        epochs = self.T_max
        super().load_state_dict(state_dict)
        if self.T_max != epochs:  # torch computes each rate from the one before, which lies on the other curve
            self.T_max = epochs
            self._last_lr = self._get_closed_form_lr()
            for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
                group['lr'] = rate


class TaskData(LightningDataModule):
    """Loaders over the splits of a task; test pictures are there where the task has some.

    Parameters
    ----------
    splits
        Of the task.
    batch_size
        Pictures per batch.
    seed
        Decides the order of the training pictures in every epoch; None to draw it from torch's global generator.
    """

    def __init__(self, splits: Splits, batch_size: int, seed: int | None = None) -> None:
        super().__init__()
        self.splits, self.batch_size, self.seed = splits, batch_size, seed

    def _loader(self, images: Images, shuffle: bool) -> Any:
        # The last, smaller batch of an epoch is left out, unless it is the only one: batch norm needs some pictures.
        drop_last = shuffle and len(images) > self.batch_size
        if shuffle and self.seed is not None:
            return DataLoader(images, self.batch_size, sampler=OrderByEpoch(len(images), self.seed), drop_last=drop_last)
        return DataLoader(images, self.batch_size, shuffle=shuffle, drop_last=drop_last)

    def train_dataloader(self) -> Any:
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> Any:
        return self._loader(self.splits.val, shuffle=False)

    def arc_dataloader(self) -> Any:
        """What the alphas learn from under our strategies: as validation, but for a last picture that is alone in its batch,
        which batch norm cannot learn from."""
        images = self.splits.val
        alone = len(images) % self.batch_size == 1 and len(images) > self.batch_size
        return DataLoader(images, self.batch_size, drop_last=alone)

    def test_dataloader(self) -> Any:
        return [] if self.splits.test is None else self._loader(self.splits.test, shuffle=False)


class OrderByEpoch(Sampler[int]):
    """A random order that depends on seed and epoch alone; Lightning tells it the epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        return iter(torch.randperm(self.size, generator=generator).tolist())


def seed_of(seed: int, epoch: int) -> int:
    """Seed of one epoch of a run."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def make_trainer(
    max_epochs: int,
    out: str | Path,
    *,
    progress: bool = True,
    callbacks: list[Any] | None = None,
    max_seconds: float = 0.0,
    devices: int = 1,
    **settings: Any,
) -> Any:
    """A Lightning trainer that writes its CSV log under ``out``.

    It stops after ``max_epochs``, or after the epoch in which ``max_seconds`` have passed (0 for no limit; what was spent
    before a resume counts). On several devices it starts this script again for each, and gradients are averaged.

    Raises
    ------
    ConfigError
        If there are fewer devices.
    """
    clock = [Timer(timedelta(seconds=max_seconds), interval='epoch')] if max_seconds else []
    try:
        return Trainer(
            max_epochs=max_epochs,
            devices=devices,
            strategy='auto' if devices == 1 else 'ddp_find_unused_parameters_true',  # Proxyless trains one path a step
            logger=CSVLogger(str(out), name='logs', version=''),
            callbacks=[*(callbacks or []), *clock],
            plugins=[AtomicCheckpoints()],
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            **settings,
        )
    except MisconfigurationException as error:
        raise ConfigError(f'evaluator.devices = {devices}: {reason(error)}') from error


def classification(splits: Splits, num_classes: int, trainer: Any, **settings: Any) -> Lightning:
    """Evaluator over ``splits``.

    ``settings`` are batch_size and (optional) seed of :class:`TaskData`, and those of :class:`CosineClassification`.
    """
    data = TaskData(splits, settings.pop('batch_size'), settings.pop('seed', None))
    module = CosineClassification(num_classes, **settings)
    return Lightning(module, trainer, datamodule=data, fit_kwargs=dict(SAFE_LOADING))
