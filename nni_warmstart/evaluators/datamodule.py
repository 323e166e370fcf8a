"""Data loaders over the splits of a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nni.nas.evaluator.pytorch import DataLoader
from pytorch_lightning import LightningDataModule
from torch.utils.data import Sampler

from ..data.splits import Images, Splits


class TaskData(LightningDataModule):
    """Loaders over the splits of a task, with a test loader if the task has test images.

    Parameters
    ----------
    splits
        Parts of the task.
    batch_size
        Images per batch.
    seed
        Seed of the order of the training images in every epoch; None draws it from torch's global generator.
    """

    def __init__(self, splits: Splits, batch_size: int, seed: int | None = None) -> None:
        super().__init__()
        self.splits, self.batch_size, self.seed = splits, batch_size, seed

    def _loader(self, images: Images, shuffle: bool) -> Any:
        # The last, smaller batch of an epoch is dropped unless it is the only one: batch norm needs several images.
        drop_last = shuffle and len(images) > self.batch_size
        if shuffle and self.seed is not None:
            return DataLoader(images, self.batch_size, sampler=OrderByEpoch(len(images), self.seed), drop_last=drop_last)
        return DataLoader(images, self.batch_size, shuffle=shuffle, drop_last=drop_last)

    def train_dataloader(self) -> Any:
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> Any:
        return self._loader(self.splits.val, shuffle=False)

    def arc_dataloader(self) -> Any:
        """Return the loader of the alphas under our strategies.

        It is the validation loader, without a last batch of a single image, on which batch norm cannot train.
        """
        images = self.splits.val
        alone = len(images) % self.batch_size == 1 and len(images) > self.batch_size
        return DataLoader(images, self.batch_size, drop_last=alone)

    def test_dataloader(self) -> Any:
        return [] if self.splits.test is None else self._loader(self.splits.test, shuffle=False)


class OrderByEpoch(Sampler[int]):
    """Random order that depends on seed and epoch alone; Lightning sets the epoch."""

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
    """Return the seed of one epoch of a run."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
