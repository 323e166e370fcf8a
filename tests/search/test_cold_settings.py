"""A cold search is NNI's to the bit, with the same images in the same order, for many settings of trainer and loaders."""

from __future__ import annotations

import random
from datetime import timedelta

import numpy as np
import pytest
import torch
from helpers.tiny import make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning import Callback, LightningDataModule
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
    default_collate,
)

from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.search import evaluation
from nni_warmstart.utils.random import random_state

WORKERS = {'num_workers': 1, 'persistent_workers': True}


class Counting(Sampler):
    """Another order each time it is iterated, and each time anyone iterates it."""

    def __init__(self, size: int) -> None:
        self.size, self.times = size, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        self.times += 1
        return iter(np.random.RandomState(self.times).permutation(self.size).tolist())


class Numpy(Counting):
    """Draws from the generator of numpy, and from that of Python."""

    def __iter__(self):
        return iter(np.roll(np.random.permutation(self.size), random.randrange(self.size)).tolist())  # noqa: NPY002


class Batches:
    """A user's own batch sampler, whose batches grow with every iteration."""

    def __init__(self, size: int) -> None:
        self.size, self.batch_size = size, 3

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self):
        self.batch_size += 1
        return iter(BatchSampler(range(self.size), self.batch_size, False))


class Noisy(Dataset):
    """Has a generator and a cache of its own, and a transform that is a local function."""

    def __init__(self, images) -> None:
        self.images, self.generator, self.reads = images, np.random.default_rng(0), {}
        self.transform = lambda x, noise: x + noise

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        self.reads[index] = self.reads.get(index, 0) + 1
        x, y = self.images[index]
        return self.transform(x, 0.1 * float(self.generator.normal()) * self.reads[index]), y


class Stream(IterableDataset):
    """Goes on where it stopped."""

    def __init__(self, images, length: int = 24) -> None:
        self.images, self.position, self.length = images, 0, length

    def __iter__(self):
        for _ in range(self.length):
            self.position += 1
            yield self.images[self.position % len(self.images)]


class Batched(Noisy):
    """Gives batches."""

    def __len__(self) -> int:
        return len(self.images) // 4

    def __getitem__(self, index):
        return default_collate([Noisy.__getitem__(self, 4 * index + place) for place in range(4)])


class Endless(Stream):
    """Never ends."""

    def __init__(self, images) -> None:
        super().__init__(images, 10**9)


class Spent(IterableDataset):
    """Holds a Python generator, which cannot be copied: nobody but the training may touch it."""

    def __init__(self, images) -> None:
        self.images = (images[index % len(images)] for index in range(10**9))

    def __iter__(self):
        for _ in range(24):
            yield next(self.images)


class Plain:
    """A loader that is no loader of torch, and counts its epochs."""

    def __init__(self, images) -> None:
        self.inner, self.epoch = DataLoader(images, 4), 0

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self):
        self.epoch += 1
        return ((x * self.epoch, y) for x, y in self.inner)


class Module(LightningDataModule):
    """Makes new loaders, with an order of numpy's."""

    def __init__(self, splits) -> None:
        super().__init__()
        self.splits = splits

    def setup(self, stage):
        self.order = np.random.permutation(len(self.splits.train)).tolist()  # noqa: NPY002

    def train_dataloader(self):
        return DataLoader(self.splits.train, 4, sampler=self.order)

    def val_dataloader(self):
        return DataLoader(self.splits.val, 4, shuffle=True)


class Draws(Callback):
    """Draws random numbers in every hook that NNI runs as well."""

    def on_train_start(self, *_):
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002

    on_train_epoch_start = on_train_epoch_end = on_train_start


def both(**arguments):
    """Loaders with the same arguments for either half; a value that is a class is made of the size of the half."""

    def make(splits):
        halves = splits.train, splits.val
        return [DataLoader(half, **_made({'batch_size': 4, **arguments}, len(half))) for half in halves]

    return make


def _made(arguments, size):
    found = {key: value(size) if callable(value) and key != 'worker_init_fn' else value for key, value in arguments.items()}
    if 'batch_sampler' in found:
        del found['batch_size']
    return found


def of(dataset, batch_size=4, **arguments):
    return lambda splits: [DataLoader(dataset(half), batch_size, **arguments) for half in (splits.train, splits.val)]


def nothing(worker):
    pass


def seeded(_):
    return torch.Generator().manual_seed(5)


shuffled = both(shuffle=True)

SETTINGS = {
    'validation twice an epoch': ({'val_check_interval': 0.5}, shuffled),
    'validation every three batches': ({'val_check_interval': 3}, shuffled),
    'validation across epochs': ({'val_check_interval': 5, 'check_val_every_n_epoch': None}, shuffled),
    'validation every second epoch': ({'check_val_every_n_epoch': 2}, shuffled),
    'validation of no batch': ({'limit_val_batches': 0}, shuffled),
    'persistent workers': ({}, both(shuffle=True, **WORKERS)),
    'persistent workers, validation twice an epoch': ({'val_check_interval': 0.5}, both(shuffle=True, **WORKERS)),
    'few batches': ({'limit_train_batches': 3, 'limit_val_batches': 2}, shuffled),
    'a share of the batches': ({'limit_train_batches': 0.5, 'limit_val_batches': 0.5}, shuffled),
    'steps within an epoch': ({'max_steps': 6}, shuffled),
    'steps': ({'max_epochs': -1, 'max_steps': 14}, shuffled),
    'steps and epochs': ({'max_epochs': 5, 'max_steps': 14, 'min_epochs': 1}, shuffled),
    'time': ({'max_time': timedelta(hours=1)}, shuffled),
    'sanity check': ({'num_sanity_val_steps': 2}, shuffled),
    'sanity check of all': ({'num_sanity_val_steps': -1}, shuffled),
    'accumulated gradients': ({'accumulate_grad_batches': 2}, shuffled),
    'clipped gradients': ({'gradient_clip_val': 0.5}, shuffled),
    'half precision': ({'precision': 'bf16-mixed'}, shuffled),
    'true half precision': ({'precision': 'bf16-true'}, shuffled),
    'double precision': ({'precision': '64-true'}, shuffled),
    'deterministic': ({'deterministic': True}, shuffled),
    'without inference mode': ({'inference_mode': False}, shuffled),
    'development': ({'fast_dev_run': 2}, shuffled),
    'few images again and again': ({'overfit_batches': 2}, shuffled),
    'checkpoints and logs': ({'enable_checkpointing': True, 'logger': True, 'log_every_n_steps': 1}, shuffled),
    'early stopping': ({'max_epochs': 4, 'callbacks': lambda: EarlyStopping('train_loss', 9.0, patience=1)}, shuffled),
    'callbacks that draw': ({'callbacks': Draws}, shuffled),
    'new loaders every epoch': ({'reload_dataloaders_every_n_epochs': 1}, Module),
    'a data module with numpy': ({'val_check_interval': 0.5}, Module),
    'in order': ({}, both()),
    'last batch left out': ({}, both(shuffle=True, drop_last=True)),
    'batches of the dataset': ({}, of(Batched, batch_size=None)),
    'forked workers': ({}, both(shuffle=True, num_workers=1, multiprocessing_context='fork', worker_init_fn=nothing)),
    'workers': ({}, both(shuffle=True, num_workers=2)),
    'own generator': ({}, both(shuffle=True, generator=seeded)),
    'weighted samples': ({}, both(sampler=lambda size: WeightedRandomSampler([1.0] * size, size))),
    'samples again': ({}, both(sampler=lambda size: RandomSampler(range(size), replacement=True, num_samples=40))),
    'sampler that counts': ({'val_check_interval': 0.5}, both(sampler=Counting)),
    'sampler of numpy': ({'num_sanity_val_steps': 2}, both(sampler=Numpy)),
    'own batch sampler': ({}, both(batch_sampler=Batches)),
    'dataset with a state': ({'val_check_interval': 0.5}, of(Noisy, shuffle=True)),
    'stream that goes on': ({}, of(Stream)),
    'endless stream': ({'limit_train_batches': 4}, of(Endless)),
    'endless stream, validation within': ({'max_epochs': -1, 'max_steps': 16, 'val_check_interval': 3}, of(Endless)),
    'stream that has no copy': ({'limit_train_batches': 4}, of(Spent)),
    'loader of the user': ({'val_check_interval': 0.5}, lambda splits: [Plain(splits.train), Plain(splits.val)]),
}  # fmt: skip


class Noting(ClassificationModule):
    """Notes the images that it is trained on."""

    def __init__(self) -> None:
        super().__init__(num_classes=3)
        self.seen: list[float] = []

    def training_step(self, batch, batch_idx):
        self.seen += [float(image.double().sum()) for image in batch[0]]
        return super().training_step(batch, batch_idx)


def searched(strategy, tmp_path, settings: dict, loaders):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    module, data = Noting(), loaders(split(make_task(n=64)))
    defaults = {
        'max_epochs': 2, 'num_sanity_val_steps': 0, 'logger': False, 'enable_checkpointing': False,
        'enable_progress_bar': False, 'enable_model_summary': False,
    }  # fmt: skip
    settings = {**defaults, **settings, **({'callbacks': settings['callbacks']()} if 'callbacks' in settings else {})}
    given = {'datamodule': data} if isinstance(data, LightningDataModule) else {}
    try:
        evaluator = Lightning(module, Trainer(default_root_dir=tmp_path, **settings), *([] if given else data), **given)
        strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    except Exception as error:  # manual optimization of NNI has no accumulation, for instance
        return str(error), type(error)
    finally:
        torch.use_deterministic_algorithms(False)
    state = random_state([])
    return module.seen, {**strategy.supernet.state_dict(), 'random': state['torch']}, state['numpy'][2], state['python'][1]


@pytest.mark.slow
@pytest.mark.parametrize(('settings', 'loaders'), SETTINGS.values(), ids=SETTINGS.keys())
def test_images_weights_and_alphas_are_those_of_nni(tmp_path, monkeypatch, settings, loaders):
    monkeypatch.setattr(evaluation, 'MOST_SAMPLES', 64)  # of an endless stream
    (seen, expected, *states), (own, found, *others) = (
        searched(cls(), tmp_path, settings, loaders) for cls in (DARTS, WarmStartDARTS)
    )
    assert own == seen
    assert states == others
    if isinstance(expected, type):
        assert found is expected
    else:
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
