"""Module for joint training: a head per dataset, batch norm, drop path, accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nni
import torch
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import LightningModule
from pytorch_lightning.trainer.states import TrainerStatus
from torch import Tensor, nn

from ..data.augmentation import Augmentation
from ..errors import DataError, TransferError, reason
from ..nni_adapter import batchnorm
from ..nni_adapter.classifier import find_head, resize_head
from ..nni_adapter.paths import best_path, draw_path
from ..supernets.supernet import Supernet
from ..utils.modules import modes_kept
from ..utils.random import quiet_randomness
from ..utils.text import visible
from .drop_path import drop_paths
from .joint_supernet import joint_supernet
from .norm_bank import NormBank
from .optimisation import sgd_with_cosine

_STATE = 'nni_warmstart_joint'  # key of this module in a Lightning checkpoint


@nni.trace
class JointModule(LightningModule):
    """Training on classes of several datasets, numbered one dataset after the other in one wide classifier.

    The head of a dataset is a range of rows: each image is classified among the classes of its own dataset only. Batches
    hold images of one dataset, so that batch norm has the same kind of input in training as on a target.

    Parameters
    ----------
    heads
        Dataset -> (first row, row after the last) of the classifier.
    image_shape
        Channels, height and width.
    learning_rate, weight_decay
        Settings of SGD with momentum and a cosine schedule.
    augmentation
        Augmentation of training images.
    flip
        Datasets whose images may be mirrored.
    label_smoothing
        Share of the label that is distributed over the classes of its dataset (Szegedy et al., CVPR 2016).
    drop_path
        Probability with which candidate ops are dropped at the end of training; it grows linearly from 0.
    batch_norm
        'shared', or 'per_dataset' for separate scales, shifts and statistics of each dataset, averaged at the end.
    classifier
        Name of the linear layer that becomes the heads; None for the last one of the space.

    Attributes
    ----------
    accuracy
        Validation accuracy of every dataset after the last epoch.
    """

    normalises_by_batch = True
    """Whether validation normalises by batch, without running statistics of batch norms."""

    def __init__(
        self,
        heads: dict[str, tuple[int, int]],
        image_shape: tuple[int, int, int],
        *,
        learning_rate: float = 0.025,
        weight_decay: float = 3e-4,
        augmentation: Augmentation | None = None,
        flip: Sequence[str] = (),
        label_smoothing: float = 0.0,
        drop_path: float = 0.0,
        batch_norm: str = 'shared',
        classifier: str | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.image_shape = heads, image_shape
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.augmentation, self.flip = augmentation or Augmentation(), frozenset(flip)
        self.label_smoothing, self.drop_path = label_smoothing, drop_path
        self.batch_norm, self.classifier = batch_norm, classifier
        self.bank: NormBank | None = None
        self.accuracy: dict[str, float] = {}
        self._right: dict[str, list[float]] = {}
        self._hooks: list[Any] = []

    def set_model(self, model: nn.Module) -> None:
        """Set the model space, and give its classifier a row per class of every dataset.

        Raises
        ------
        TransferError
            If images do not go through it, or its classifier is not found or cannot be resized.
        """
        if model is not getattr(self, '_model', None):
            x = torch.zeros(2, *self.image_shape, device=next(model.parameters()).device)
            try:
                draw_path(model)
                with quiet_randomness(), best_path(model), modes_kept(model), torch.no_grad():
                    name = self.classifier or find_head(model, x)
                    resize_head(model, self.num_classes, name)
                    shape = tuple(getattr(model.eval()(x), 'shape', ()))
            except (RuntimeError, IndexError, AssertionError) as error:
                raise TransferError(
                    f'images of shape {self.image_shape} do not go through {type(model).__name__} '
                    f'({reason(error)}); set channels=, image_size= or classifier=.'
                ) from error
            if shape != (2, self.num_classes):
                raise TransferError(
                    f'{type(model).__name__} gives outputs of shape {shape} for two images, with {self.num_classes} rows '
                    f'in its classifier {name!r}; name the right one with classifier=.'
                )
        super().set_model(model)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.batch_norm == 'per_dataset':  # only now: a warm start may have changed the batch norms
            self.bank = NormBank(self.model, list(self.heads))
        for hook in self._hooks:
            hook.remove()
        self._hooks = drop_paths(self.model, self._drop_probability) if self.drop_path else []

    def _drop_probability(self) -> float:
        if not self.trainer.training or self.trainer.state.status != TrainerStatus.RUNNING:
            return 0.0
        return self.drop_path * min(1.0, self.trainer.current_epoch / max(1, (self.trainer.max_epochs or 1) - 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    @property
    def num_classes(self) -> int:
        """Number of classes of all datasets together."""
        return max(stop for _, stop in self.heads.values())

    def head_of(self, y: Tensor) -> tuple[str, int, int]:
        """Return the dataset of a batch, its first row, and the row after its last."""
        label = int(y[0])
        return next((name, start, stop) for name, (start, stop) in self.heads.items() if start <= label < stop)

    def joint_loss(self, x: Tensor, y: Tensor) -> tuple[str, Tensor, Tensor]:
        """Return dataset, cross-entropy among its own classes, and whether each image is classified correctly, ``(n,)``."""
        name, start, stop = self.head_of(y)
        logits = self.model(x) if self.bank is None else self.bank.run(self.model, name, x)
        own = logits[:, start:stop]
        smoothing = self.label_smoothing if self.model.training else 0.0
        return name, F.cross_entropy(own, y - start, label_smoothing=smoothing), own.argmax(1) == y - start

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        x = self.augmentation(x, flip=self.head_of(y)[0] in self.flip)
        _, loss, right = self.joint_loss(x, y)
        self.log('train_loss', loss)
        self.log('train_acc', right.float().mean(), prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        with batchnorm.by_batch(self.model):  # running statistics are a mixture of all datasets that fits none
            name, loss, right = self.joint_loss(x, y)
        self.log('val_loss', loss, batch_size=len(y))
        self._right.setdefault(name, []).extend(right.float().tolist())

    def on_validation_epoch_end(self) -> None:
        self.accuracy = {name: sum(right) / len(right) for name, right in self._right.items()}
        self._right = {}
        for name, value in self.accuracy.items():
            self.log(f'val_acc/{name}', value)
        mean = sum(self.accuracy.values()) / max(len(self.accuracy), 1)
        self.log('val_acc', mean, prog_bar=True)
        bar = getattr(self.trainer, 'progress_bar_callback', None)
        if bar is not None and bar.is_enabled and not self.trainer.sanity_checking:
            each = '  '.join(f'{name} {value:.3f}' for name, value in self.accuracy.items())
            bar.print(visible(f'epoch {self.trainer.current_epoch + 1}: mean {mean:.3f}  {each}', keep=''))

    def on_fit_end(self) -> None:  # also for a run that is resumed after its last epoch
        for hook in self._hooks:
            hook.remove()
        if self.bank is not None:
            self.bank.merge(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        heads = {name: list(rows) for name, rows in self.heads.items()}
        checkpoint[_STATE] = {'heads': heads, 'batch_norm': self.batch_norm, 'accuracy': self.accuracy}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get(_STATE, {})
        held = {name: tuple(rows) for name, rows in state.get('heads', {}).items()}
        if held != self.heads:
            raise DataError(
                f'the checkpoint has heads for {_in_words(held)}, and this run for {_in_words(self.heads)}; give it the '
                'same datasets in the same order.'
            )
        if state['batch_norm'] != self.batch_norm:
            raise DataError(f'the checkpoint has batch_norm = {state["batch_norm"]!r}, and this run {self.batch_norm!r}.')
        self.accuracy = dict(state['accuracy'])

    def remembered(self, model: nn.Module, *, name: str, history: dict[str, Any] | None = None) -> Supernet:
        """Return a supernet that this module has trained, as data.

        Parameters
        ----------
        model
            Trained supernet.
        name
            Name of the entry.
        history
            Additional entries of the record.
        """
        tasks = self.trainer.datamodule.tasks  # pyright: ignore[reportAttributeAccessIssue]
        size = self.image_shape[:2]
        return joint_supernet(model, tasks, name=name, image_shape=size, accuracy=self.accuracy, history=history)

    def configure_optimizers(self) -> Any:
        return sgd_with_cosine(self, self.learning_rate, self.weight_decay)


def _in_words(heads: Mapping[str, tuple[int, ...]]) -> str:
    return ', '.join(f'{name} ({rows[1] - rows[0]} classes)' for name, rows in heads.items()) or 'no datasets'
