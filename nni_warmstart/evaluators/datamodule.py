"""Data loaders over the splits of a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..data.lazy import LazyImages
from ..data.splits import Images, Splits
from .workers import Loader, Workers


class TaskData(LightningDataModule):
    """Loaders over the splits of a task, with a test loader if the task has test images.

    Lazy images (see :class:`~nni_warmstart.data.lazy.LazyImages`) leave the loaders as they are, and are normalised by
    :meth:`on_after_batch_transfer`, a batch at a time on the device.

    Parameters
    ----------
    splits
        Parts of the task.
    batch_size
        Images per batch.
    seed
        Seed of the order of the training images in every epoch; None draws it from torch's global generator.
    workers
        Processes that read images; None to read in the process of the training.
    sampler
        'shuffle' for every training image once per epoch, or 'balanced' for as many draws with replacement, by which all
        classes are equally frequent.
    """

    def __init__(
        self,
        splits: Splits,
        batch_size: int,
        seed: int | None = None,
        workers: Workers | None = None,
        sampler: str = 'shuffle',
    ) -> None:
        super().__init__()
        self.splits, self.batch_size, self.seed = splits, batch_size, seed
        self.workers, self.sampler = workers or Workers(), sampler
        self.is_lazy = isinstance(splits.train.x, LazyImages)

    def _loader(self, images: Images, shuffle: bool, **arguments: Any) -> Any:
        # The last, smaller batch of an epoch is dropped unless it is the only one: batch norm needs several images.
        arguments.setdefault('drop_last', shuffle and len(images) > self.batch_size)
        if shuffle and self.sampler == 'balanced':
            arguments['sampler'] = BalancedClasses(images.y, self.seed)
        elif shuffle and self.seed is not None:
            arguments['sampler'] = OrderByEpoch(len(images), self.seed)
        else:
            arguments['shuffle'] = shuffle
        dataset = Unnormalised(images) if self.is_lazy else images
        return Loader(dataset, self.batch_size, **arguments, **self.workers.arguments())

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
        return self._loader(images, shuffle=False, drop_last=alone)

    def test_dataloader(self) -> Any:
        return [] if self.splits.test is None else self._loader(self.splits.test, shuffle=False)

    def sample_loader(self, part: str) -> Any:
        """Return a loader for looks at a half, 'train' or 'val': of all images, or of the sample that all looks share."""
        images: Images = getattr(self.splits, part)
        if not images.is_large:
            shuffle = part == 'train'
            return Loader(images, self.batch_size, shuffle=shuffle, drop_last=shuffle and len(images) > self.batch_size)
        title = f'sample of the {"training" if part == "train" else "validation"} images'
        return Loader(images.sample(title, 1.0 if part == 'train' else 0.5), self.batch_size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise lazy images, which are by now on the device of the model."""
        if not self.is_lazy:
            return batch
        if isinstance(batch, dict):  # NNI's strategies combine the loaders of weights and alphas
            return {key: self.on_after_batch_transfer(part, dataloader_idx) for key, part in batch.items()}
        x, y = batch
        return self.splits.train.normalised(x), y


class Unnormalised(Dataset):
    """Images as they are, without normalisation, so that a quarter of the bytes goes from a worker to the device."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images.x[index], self.images.y[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        index = torch.as_tensor(indices, dtype=torch.long)
        return list(zip(self.images.x[index], self.images.y[index], strict=True))


class OrderByEpoch(Sampler[int]):
    """Random order that depends on seed and epoch alone (without a seed, on torch's generator); Lightning sets the epoch."""

    def __init__(self, size: int, seed: int | None) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.size, generator=self.generator()).tolist())

    def generator(self) -> torch.Generator:
        """Return the generator of this epoch."""
        seed = int(torch.randint(2**62, ())) if self.seed is None else seed_of(self.seed, self.epoch)
        return torch.Generator().manual_seed(seed)


class BalancedClasses(OrderByEpoch):
    """Draws with replacement by which all classes are equally frequent, as many as there are images.

    Parameters
    ----------
    labels
        Classes of the images, shape ``(n,)``.
    seed
        Seed of the draws, together with the epoch; None draws it from torch's global generator.
    """

    def __init__(self, labels: Tensor, seed: int | None) -> None:
        super().__init__(len(labels), seed)
        self.order, counts = labels.argsort(stable=True), labels.bincount()
        present = counts > 0
        self.counts, self.starts = counts[present], (counts.cumsum(0) - counts)[present]

    def __iter__(self) -> Iterator[int]:
        generator = self.generator()
        drawn = torch.randint(len(self.counts), (self.size,), generator=generator)
        within = torch.rand(self.size, dtype=torch.float64, generator=generator) * self.counts[drawn]
        return iter(self.order[self.starts[drawn] + within.long()].tolist())


def seed_of(seed: int, epoch: int) -> int:
    """Return the seed of one epoch of a run."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
