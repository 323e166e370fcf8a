"""JointClassification: one supernet body trained on many datasets at once, one head per dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nni
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
from torch import Tensor, nn

from .augment import Augmentation
from .data import Task, labelled, split
from .drop_path import drop_paths
from .errors import DataError
from .evaluator import SAFE_LOADING, sgd_with_cosine
from .joint_data import JointData
from .mapping import batchnorm
from .mapping.head import resize_head
from .norm_bank import NormBank

BATCH_NORMS = ('shared', 'per_dataset')

_STATE = 'nni_warmstart_joint'  # our key in a Lightning checkpoint


@nni.trace
class JointModule(LightningModule):
    """Training on classes of several datasets, numbered one dataset after the other in one wide classifier.

    A head per dataset is a range of rows: each picture competes among the classes of its own dataset only. Batches hold
    pictures of one dataset, so that batch norm sees in training what it will see on a target.

    Parameters
    ----------
    heads
        Dataset -> (first row, row after the last) of the classifier.
    learning_rate, weight_decay
        Of SGD with momentum and a cosine schedule.
    augmentation
        What happens to training pictures.
    flip
        Datasets whose pictures may be mirrored.
    label_smoothing
        Share of the label that is spread over the classes of its dataset (Szegedy et al., CVPR 2016).
    drop_path
        Probability with which candidate ops are dropped at the end of training; it grows linearly from 0.
    batch_norm
        'shared', or 'per_dataset': scales, shifts and statistics of its own for each, averaged at the end.
    classifier
        Name of the linear layer that becomes the heads; None for the last one of the space.

    Attributes
    ----------
    accuracy
        Validation accuracy of every dataset after the last epoch.
    """

    def __init__(
        self,
        heads: dict[str, tuple[int, int]],
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
        self.heads = heads
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.augmentation, self.flip = augmentation or Augmentation(), frozenset(flip)
        self.label_smoothing, self.drop_path = label_smoothing, drop_path
        self.batch_norm, self.classifier = batch_norm, classifier
        self.bank: NormBank | None = None
        self.accuracy: dict[str, float] = {}
        self._right: dict[str, list[float]] = {}
        self._hooks: list[Any] = []

    def set_model(self, model: nn.Module) -> None:
        """Take a model space, and give its classifier a row per class of every dataset."""
        if model is not getattr(self, '_model', None):
            resize_head(model, max(stop for _, stop in self.heads.values()), self.classifier)
            self.bank = NormBank(model, list(self.heads)) if self.batch_norm == 'per_dataset' else None
        super().set_model(model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def history(self) -> dict[str, Any]:
        """What a supernet's card remembers of its datasets."""
        return {'datasets': {name: {'classes': stop - start} for name, (start, stop) in self.heads.items()}}

    def head_of(self, y: Tensor) -> tuple[str, int, int]:
        """Dataset of a batch, its first row, and the row after its last."""
        label = int(y[0])
        return next((name, start, stop) for name, (start, stop) in self.heads.items() if start <= label < stop)

    def joint_loss(self, x: Tensor, y: Tensor) -> tuple[str, Tensor, Tensor]:
        """Dataset, cross-entropy among its own classes, and what is classified right, shape ``(n,)``."""
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
        with batchnorm.by_batch(self.model):  # running statistics are a mixture of all datasets, right for none
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
            bar.print(f'epoch {self.trainer.current_epoch + 1}: mean {mean:.3f}  {each}')

    def on_train_start(self) -> None:
        if self.drop_path:
            epochs = max(1, (self.trainer.max_epochs or 1) - 1)
            self._hooks = drop_paths(self.model, lambda: self.drop_path * min(1.0, self.trainer.current_epoch / epochs))

    def on_train_end(self) -> None:
        for hook in self._hooks:
            hook.remove()
        if self.bank is not None:
            self.bank.merge()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_STATE] = {'heads': {name: list(rows) for name, rows in self.heads.items()}, 'accuracy': self.accuracy}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get(_STATE, {})
        held = {name: tuple(rows) for name, rows in state.get('heads', {}).items()}
        if held != self.heads:
            theirs, mine = ', '.join(held) or 'no datasets', ', '.join(self.heads)
            raise DataError(f'the checkpoint has heads for {theirs} and this run for {mine}; give it the same datasets.')
        self.accuracy = dict(state['accuracy'])

    def configure_optimizers(self) -> Any:
        return sgd_with_cosine(self, self.learning_rate, self.weight_decay)


@nni.trace
class JointClassification(Lightning):
    """Evaluator for NNI's one-shot strategies over several datasets.

    ``NasExperiment(space, JointClassification({'a': a, 'b': b}), WarmStartDARTS()).run()`` trains one supernet with shared
    alphas. The classifier of the space is replaced by one with the classes of all datasets, in the order given; their
    number is :attr:`num_classes`. Validation accuracies of every dataset (``val_acc/NAME``) and their mean are curves in
    NNI's page.

    Parameters
    ----------
    datasets
        Name -> labelled pictures: a :class:`~nni_warmstart.data.Task`, a torch dataset of ``(picture, class)`` or two
        arrays; or a list of tasks. Of any sizes, channels (1 or 3) and numbers of classes.
    trainer
        NNI's traced Lightning trainer; None for one of ``epochs`` epochs.
    epochs
        Of the trainer that is made where none is given.
    batch_size
        Pictures per batch, all of one dataset.
    steps_per_epoch
        Training batches that make an epoch (at least; Lightning goes on until every validation picture has served the
        alphas once); None for one per validation batch.
    learning_rate, weight_decay
        Of SGD with momentum and a cosine schedule.
    temperature
        Datasets are drawn with probability proportional to ``n ** (1 / temperature)``.
    jitter, crop, cutout
        See :class:`~nni_warmstart.augment.Augmentation`.
    flip, label_smoothing, drop_path, batch_norm, classifier
        See :class:`JointModule`.
    val_share
        Share of the training pictures that train the alphas and validate.
    channels, image_size
        What the pictures of all datasets are brought to: channels, and pixels a side. None for 3 channels where any dataset
        has colour (else 1), and for the largest side.

    Raises
    ------
    DataError
        If there are no datasets, two of one name, one that is empty, has a single class or cannot be split, a setting is
        out of its range, or ``flip`` names an unknown dataset.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any] | Iterable[Task],
        trainer: Any = None,
        *,
        epochs: int = 40,
        batch_size: int = 64,
        steps_per_epoch: int | None = None,
        learning_rate: float = 0.05,
        weight_decay: float = 3e-4,
        temperature: float = 2.0,
        jitter: float = 0.15,
        crop: float = 0.0,
        cutout: float = 0.0,
        flip: Sequence[str] = (),
        label_smoothing: float = 0.0,
        drop_path: float = 0.0,
        batch_norm: str = 'shared',
        val_share: float = 0.25,
        channels: int | None = None,
        image_size: int | None = None,
        classifier: str | None = None,
    ) -> None:
        check_joint_settings(
            temperature=temperature, label_smoothing=label_smoothing, drop_path=drop_path, batch_norm=batch_norm
        )
        tasks = _tasks(datasets)
        for name in flip:
            if name not in tasks:
                raise DataError(f'flip names {name!r}, which is none of the datasets {", ".join(tasks)}.')
        channels = channels or max(task.train_x.shape[1] for task in tasks.values())
        side = image_size or max(task.train_x.shape[-1] for task in tasks.values())
        self.num_classes, heads = 0, {}
        for name, task in tasks.items():
            heads[name] = (self.num_classes, self.num_classes + task.num_classes)
            self.num_classes += task.num_classes
        self.tasks = {name: task.adapted(channels, side) for name, task in tasks.items()}
        splits = {name: split(task, val_share=val_share) for name, task in self.tasks.items()}
        module = JointModule(
            heads,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            augmentation=Augmentation(jitter, crop, cutout),
            flip=flip,
            label_smoothing=label_smoothing,
            drop_path=drop_path,
            batch_norm=batch_norm,
            classifier=classifier,
        )
        data = JointData(splits, batch_size, steps_per_epoch, temperature)
        super().__init__(module, trainer or Trainer(max_epochs=epochs), datamodule=data, fit_kwargs=dict(SAFE_LOADING))


def check_joint_settings(*, temperature: float, label_smoothing: float, drop_path: float, batch_norm: str) -> None:
    """Refuse settings out of their range, naming the argument, its value and the range."""
    if batch_norm not in BATCH_NORMS:
        raise DataError(f'batch_norm = {batch_norm!r} is unknown; choose one of {", ".join(BATCH_NORMS)}.')
    if not temperature > 0:
        raise DataError(f'temperature = {temperature}, but it must be positive.')
    for name, value in (('label_smoothing', label_smoothing), ('drop_path', drop_path)):
        if not 0 <= value < 1:
            raise DataError(f'{name} = {value}, but it must be from 0 to below 1.')


def _tasks(datasets: Mapping[str, Any] | Iterable[Task]) -> dict[str, Task]:
    named: Any = datasets.items() if isinstance(datasets, Mapping) else [(task.name, task) for task in datasets]
    tasks: dict[str, Task] = {}
    for name, dataset in named:
        if name in tasks:
            raise DataError(f'dataset {name!r} is there twice; each needs a name of its own.')
        tasks[name] = labelled(name, dataset)
    if not tasks:
        raise DataError('joint training needs at least one dataset, and there are none.')
    return tasks
