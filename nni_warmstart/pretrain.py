"""JointClassification: one supernet body trained on many datasets at once, one head per dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nni
import torch
import torch.nn.functional as F
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import LightningDataModule, seed_everything
from torch import Tensor
from torch.utils.data import ConcatDataset, Sampler

from . import spaces
from .config import PretrainConfig, make_strategy
from .data import Images, Splits, Task, split
from .distance.embedding import EMBEDDINGS
from .distance.sketch import sketches_of
from .errors import DataError
from .evaluator import SAFE_LOADING, make_trainer, sgd_with_cosine
from .mapping import batchnorm
from .supernet import Supernet


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
    jitter
        Strength of :func:`jittered` on training pictures.
    """

    def __init__(
        self,
        heads: dict[str, tuple[int, int]],
        learning_rate: float = 0.025,
        weight_decay: float = 3e-4,
        jitter: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.learning_rate, self.weight_decay, self.jitter = learning_rate, weight_decay, jitter
        sizes = torch.tensor([stop - start for start, stop in heads.values()])
        self.register_buffer('dataset_of_class', torch.repeat_interleave(torch.arange(len(sizes)), sizes), persistent=False)
        self._right: dict[str, list[float]] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def joint_loss(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy within each picture's own dataset, and whether it is classified right, shape ``(n,)``."""
        owner: Tensor = self.dataset_of_class  # type: ignore[assignment]
        own = logits.masked_fill(owner[y][:, None] != owner[None, :], float('-inf'))
        return F.cross_entropy(own, y), own.argmax(1) == y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss, right = self.joint_loss(self(jittered(x, self.jitter)), y)
        self.log('train_loss', loss)
        self.log('train_acc', right.float().mean(), prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        with batchnorm.by_batch(self.model):  # running statistics are a mixture of all datasets, right for none
            loss, right = self.joint_loss(self(x), y)
        self.log('val_loss', loss, batch_size=len(y))
        name = list(self.heads)[int(self.dataset_of_class[y[0]])]  # type: ignore[index]
        self._right.setdefault(name, []).extend(right.float().tolist())

    def on_validation_epoch_end(self) -> None:
        accuracy = {name: sum(right) / len(right) for name, right in self._right.items()}
        self._right = {}
        for name, value in accuracy.items():
            self.log(f'val_acc/{name}', value)
        self.log('val_acc', sum(accuracy.values()) / max(len(accuracy), 1), prog_bar=True)

    def configure_optimizers(self) -> Any:
        return sgd_with_cosine(self, self.learning_rate, self.weight_decay)


class JointData(LightningDataModule):
    """Loaders of one-dataset batches over the splits of several tasks.

    Parameters
    ----------
    splits
        Dataset -> splits.
    batch_size
        Pictures per batch.
    steps_per_epoch
        Training batches that make an epoch.
    temperature
        Datasets are drawn with probability proportional to ``n ** (1 / temperature)``.
    """

    def __init__(self, splits: Mapping[str, Splits], batch_size: int, steps_per_epoch: int, temperature: float) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size, self.steps_per_epoch, self.temperature = batch_size, steps_per_epoch, temperature

    def train_dataloader(self) -> Any:
        parts = [part.train for part in self.splits.values()]
        sizes = [len(part) for part in parts]
        return DataLoader(
            _numbered(parts), batch_sampler=_RandomBatches(sizes, self.batch_size, self.steps_per_epoch, self.temperature)
        )

    def val_dataloader(self) -> Any:
        parts = [part.val for part in self.splits.values()]
        return DataLoader(_numbered(parts), batch_sampler=_EveryBatch([len(part) for part in parts], self.batch_size))


class _RandomBatches(Sampler[list[int]]):
    """Batches of one dataset each, with replacement between batches, from torch's global generator."""

    def __init__(self, sizes: list[int], batch_size: int, steps: int, temperature: float) -> None:
        self.sizes, self.batch_size, self.steps = sizes, batch_size, steps
        self.weights = torch.tensor([float(size) ** (1 / temperature) for size in sizes])
        self.starts = torch.tensor([0, *sizes]).cumsum(0)[:-1].tolist()

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for dataset in torch.multinomial(self.weights, self.steps, replacement=True).tolist():
            chosen = torch.randperm(self.sizes[dataset])[: self.batch_size]
            yield (chosen + self.starts[dataset]).tolist()


class _EveryBatch(Sampler[list[int]]):
    """Every picture once, in batches of one dataset each, the batches in a fixed mixed order: alphas learn from them too."""

    def __init__(self, sizes: list[int], batch_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        batches, start = [], 0
        for size in sizes:
            order = torch.randperm(size, generator=generator) + start
            batches += [part.tolist() for part in order.split(batch_size)]
            start += size
        self.batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def _numbered(parts: list[Images]) -> ConcatDataset:
    """The datasets one after the other, their classes counted on."""
    numbered, first = [], 0
    for part in parts:
        numbered.append(Images(part.x, part.y + first, part.mean, part.std))
        first += int(part.y.max()) + 1
    return ConcatDataset(numbered)


def jittered(x: Tensor, strength: float) -> Tensor:
    """Pictures turned, scaled and moved at random, borders repeated; shape kept, ``(n, c, h, w)``.

    Angles are drawn from ``strength`` radians to either side, scales and shifts from ``strength`` of the side.
    """
    if strength == 0:
        return x
    angle, scale, right, down = strength * (2 * torch.rand(4, len(x), device=x.device) - 1)
    cosine, sine = torch.cos(angle) * (1 + scale), torch.sin(angle) * (1 + scale)
    matrix = torch.stack([torch.stack([cosine, -sine, 2 * right], 1), torch.stack([sine, cosine, 2 * down], 1)], 1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode='border', align_corners=False)


@nni.trace
class JointClassification(Lightning):
    """Evaluator for NNI's one-shot strategies over several datasets.

    ``NasExperiment(space, JointClassification(tasks, trainer=...), WarmStartDARTS())`` trains one supernet whose classifier
    has the classes of all tasks, in the order given; the number is :attr:`num_classes`.

    Parameters
    ----------
    tasks
        Dataset name -> task; pictures already of the space's size and channels.
    trainer
        NNI's traced Lightning trainer.
    batch_size
        Pictures per batch, all of one dataset.
    steps_per_epoch
        Training batches that make an epoch (at least; Lightning goes on until every validation picture has served the
        alphas once); None for one per validation batch.
    learning_rate, weight_decay
        Of SGD with momentum and a cosine schedule.
    temperature
        Datasets are drawn with probability proportional to ``n ** (1 / temperature)``.
    jitter
        Training pictures are turned, scaled and moved by up to this share; see :func:`jittered`.
    val_share
        Share of the training pictures that train the alphas and validate.

    Raises
    ------
    DataError
        If there are no tasks, or one cannot be split.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        trainer: Any,
        *,
        batch_size: int = 64,
        steps_per_epoch: int | None = None,
        learning_rate: float = 0.025,
        weight_decay: float = 3e-4,
        temperature: float = 2.0,
        jitter: float = 0.15,
        val_share: float = 0.25,
    ) -> None:
        if not tasks:
            raise DataError('joint training needs at least one dataset, and there are none.')
        self.num_classes, heads = 0, {}
        for name, task in tasks.items():
            heads[name] = (self.num_classes, self.num_classes + task.num_classes)
            self.num_classes += task.num_classes
        splits = {name: split(task, val_share=val_share) for name, task in tasks.items()}
        steps = steps_per_epoch or sum(-(-len(part.val) // batch_size) for part in splits.values())
        super().__init__(
            JointModule(heads, learning_rate, weight_decay, jitter),
            trainer,
            datamodule=JointData(splits, batch_size, steps, temperature),
            fit_kwargs=dict(SAFE_LOADING),
        )


def pretrain(
    config: PretrainConfig, *, name: str, seed: int, out: str | Path, command: str = '', progress: bool = True
) -> Supernet:
    """Train one supernet jointly on the datasets of ``pretrain.yml``.

    Parameters
    ----------
    config
        Checked settings.
    name
        Name of the supernet.
    seed
        Of everything random.
    out
        Folder for the log.
    command
        How to do it again, for the card.
    progress
        Whether to show progress bars.

    Returns
    -------
    Supernet
        Its card names the datasets, their licences, the settings and the accuracies.

    Raises
    ------
    WarmStartError
        If data, space or settings do not work.
    """
    cls = spaces.resolve(config.space.name, allow_import=True)
    channels, side = spaces.input_of(cls, config.space.arguments)
    tasks: dict[str, Task] = {}
    for item in config.data:
        task = item.load(config.base, side)
        if task.name in tasks:
            raise DataError(f'dataset {task.name!r} is named twice in data; each may appear once.')
        tasks[task.name] = task.adapted(channels, side)
    settings = asdict(config.evaluator)
    seed_everything(seed, workers=True, verbose=False)
    evaluator = JointClassification(tasks, make_trainer(settings.pop('max_epochs'), out, progress=progress), **settings)
    space = spaces.create(config.space.name, config.space.arguments, evaluator.num_classes, allow_import=True)
    spaces.check_input(space, channels, side, evaluator.num_classes)
    strategy = make_strategy(config.strategy, config.base)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    metrics = evaluator.trainer.callback_metrics
    supernet = Supernet.from_strategy(
        strategy,
        name=name,
        class_names=[f'{task.name}/{label}' for task in tasks.values() for label in task.class_names],
        history={
            'datasets': {
                task.name: {
                    'classes': task.num_classes,
                    'pictures': len(task.train_x),
                    'licence': item.licence,
                    'accuracy': round(float(metrics[f'val_acc/{task.name}']), 4),
                }
                for item, task in zip(config.data, tasks.values(), strict=True)
            },
            'pictures': [channels, side],
            'evaluator': asdict(config.evaluator),
            'strategy': {'name': config.strategy.name, **config.strategy.arguments},
            'seed': seed,
            'command': command,
        },
    )
    embeddings = (*EMBEDDINGS, supernet.features(strategy.supernet))
    return supernet.with_sketches(sketches_of(tasks.values(), embeddings, name))
