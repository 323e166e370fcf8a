"""A search that draws random numbers wherever a user's may, to be resumed from checkpoints of any kind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.tiny import make_task
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Sampler

from nni_warmstart.data import split
from nni_warmstart.evaluators.workers import Loader


class Space(ModelSpace):
    """Draws numbers for its dropout, and scales its features by a number that the evaluator sets for every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.2))
        self.first = LayerChoice({'conv': nn.Conv2d(4, 4, 3, padding=1), 'skip': nn.Identity()}, label='first')
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.scale * self.first(torch.relu(self.stem(x))).mean((2, 3)))


class Module(ClassificationModule):
    """Changes weights after every batch, and draws numbers in hooks; notes the labels that it is trained on."""

    def on_train_epoch_start(self) -> None:
        self.model.scale = 1 + 0.1 * self.trainer.current_epoch
        torch.rand(3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append(y.tolist())
        return super().training_step((x + 0.1 * torch.randn_like(x) + 0.01 * random.random(), y), batch_idx)

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        with torch.no_grad():
            self.model.head.weight.mul_(0.99)
            self.model.head.bias.add_(0.01 * torch.rand(3).to(self.device))

    def on_train_epoch_end(self) -> None:
        torch.rand(2)

    def on_validation_epoch_start(self) -> None:
        torch.rand(5)

    def on_save_checkpoint(self, checkpoint) -> None:
        checkpoint.pop('hyper_parameters', None)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)
        return {'optimizer': optimizer, 'lr_scheduler': torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)}


class Augmented(Dataset):
    """Draws numbers of all three generators for every sample."""

    def __init__(self, images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        x, y = self.images[index]
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return x + 0.05 * noise, y


class Lazy(Sampler[int]):
    """Draws every index when it is asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        return (int(torch.randint(self.size, ())) for _ in range(self.size))


class ByEpoch(Lazy):
    """An order that depends on the epoch, as those of distributed samplers."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch)).tolist())


class Stream(IterableDataset):
    """Samples in a random order, whose number is not known."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __iter__(self):
        return (self.data[index] for index in torch.randperm(len(self.data)).tolist())


class Stateful(torch.utils.data.DataLoader):
    """Goes on by a state of its own."""

    given = left_out = 0

    def state_dict(self) -> dict[str, int]:
        return {'given': self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.left_out = state['given']

    def __iter__(self):
        left_out, self.left_out = self.left_out, 0
        return self._after(left_out, super().__iter__())

    def _after(self, left_out: int, batches):
        for number, batch in enumerate(batches, 1):
            if number > left_out:
                self.given = number
                yield batch


def loaders(kind: str, workers: int = 0, n: int = 40) -> list[Any]:
    """Two loaders, of which that of the alphas is the shorter one, so that it begins anew within an epoch."""
    splits = split(make_task(n=n))
    options: dict[str, Any] = {'num_workers': workers}
    samplers = {'lazy': Lazy, 'by epoch': ByEpoch}
    made = []
    for part, size in ((splits.train, 3), (splits.val, 4)):
        data = Augmented(part)
        if kind in samplers:
            made.append(DataLoader(data, size, sampler=samplers[kind](len(data)), **options))
        elif kind == 'stateful':
            made.append(Stateful(part, size, sampler=ByEpoch(len(part)), **options))
        elif kind == 'stream' and part is splits.train:
            made.append(DataLoader(Stream(data), size, **options))
        elif kind == 'of this package':
            made.append(Loader(data, size, shuffle=True, **options))
        elif kind == 'generator':
            made.append(DataLoader(data, size, shuffle=True, generator=torch.Generator().manual_seed(7), **options))
        else:
            made.append(DataLoader(data, size, shuffle=True, **options))
    return made


def search(
    strategy: Any,
    folder: Path,
    *callbacks: Callback,
    resume: Path | None = None,
    kind: str = 'shuffled',
    workers: int = 0,
    n: int = 40,
    **settings: Any,
) -> Any:
    """Search, or resume from a checkpoint; returns the strategy, whose module has noted what it was trained on."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the generator that datasets draw from
    module = Module(num_classes=3)
    module.seen = []
    settings = {'max_epochs': 2, 'num_sanity_val_steps': 1, 'logger': False, **settings}
    trainer = Trainer(
        callbacks=list(callbacks), default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks), **settings,
    )  # fmt: skip
    evaluator = Lightning(module, trainer, *loaders(kind, workers, n), fit_kwargs={'weights_only': True})
    space = RawFormatModelSpace(Space(), evaluator)
    if resume is not None:
        strategy.resume_from(resume)
    strategy(space, SequentialExecutionEngine())
    return strategy


def outcome(strategy: Any) -> dict[str, Any]:
    """What must be equal to the bit, whatever way led there."""
    module, trainer = strategy.oneshot_module, strategy.oneshot_module.trainer
    averaged = module.evaluation.averaged
    return {
        'curve': [{key: value for key, value in each.items() if key != 'epoch_seconds'} for each in strategy.curve],
        'samples': module.samples,
        'alphas': module.alphas,
        'final': {key: value for key, value in module.final.items() if key != 'epoch_seconds'},
        'tensors': dict(strategy.supernet.state_dict()),
        'averaged': [] if averaged is None else averaged.values,
        'optimizers': [optimizer.state_dict() for optimizer in trainer.optimizers],
        'schedulers': [each.scheduler.state_dict() for each in trainer.lr_scheduler_configs],
        'steps': (trainer.global_step, trainer.current_epoch, trainer.fit_loop.epoch_loop._batches_that_stepped),
        'random': (torch.get_rng_state(), random.getstate(), torch.from_numpy(np.random.get_state()[1].astype('int64'))),  # noqa: NPY002
    }


def differences(one: Any, other: Any, name: str = '') -> list[str]:
    """Names of what is not equal to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(f'{name}.{key}', one.get(key), other.get(key)) for key in one.keys() | other.keys()]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f'{name}: {len(one)} and {len(other)}']
        pairs = [(f'{name}[{i}]', a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor):
        return [] if isinstance(other, torch.Tensor) and torch.equal(one, other) else [name]
    else:
        return [] if one == other or (one != one and other != other) else [f'{name}: {one} and {other}']
    return [each for pair in pairs for each in differences(pair[1], pair[2], pair[0])]
