"""Loaders for joint training: every batch holds images of one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as distributed
from pytorch_lightning import LightningDataModule
from torch.utils.data import ConcatDataset, Sampler

from ..data.splits import Images, split
from ..data.stratified import stratified_part
from ..data.task import Task
from .workers import Loader, Workers


class JointData(LightningDataModule):
    """Loaders with batches of a single dataset over several tasks; classes are numbered one task after the other.

    Parameters
    ----------
    tasks
        Dataset -> task; all with images of one shape.
    val_share
        Share of the training images that is used for the alphas and for validation.
    batch_size, arc_batch_size
        Images per batch of the weights, and of the alphas.
    steps_per_epoch
        Training batches that make an epoch; None for one per validation batch.
    temperature
        Datasets are drawn with probability proportional to ``weight * n ** (1 / temperature)``.
    weights
        Dataset -> weight; 1 for datasets without one.
    workers
        Processes that read images; None to read in the process of the training.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        val_share: float,
        batch_size: int,
        steps_per_epoch: int | None,
        temperature: float,
        arc_batch_size: int | None = None,
        weights: Mapping[str, float] | None = None,
        workers: Workers | None = None,
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.splits = {name: split(task, val_share=val_share) for name, task in tasks.items()}
        self.batch_size, self.arc_batch_size = batch_size, arc_batch_size or batch_size
        self.steps_per_epoch, self.temperature = steps_per_epoch, temperature
        self.reading = (workers or Workers()).arguments()
        self.weights = [(weights or {}).get(name, 1.0) for name in tasks]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of all datasets, in the order of their numbers: 'dataset/class'."""
        return [f'{name}/{label}' for name, task in self.tasks.items() for label in task.class_names]

    def train_dataloader(self) -> Any:
        return self._random('train', self.batch_size)

    def arc_dataloader(self) -> Any:
        """Return the loader of the alphas under our strategies: validation images, in as many batches as the weights get."""
        return self._random('val', self.arc_batch_size)

    def _random(self, part: str, batch_size: int) -> Any:
        parts = self._parts(part)
        steps = self.steps_per_epoch or len(self._validation())
        batches = _RandomBatches([len(part) for part in parts], batch_size, steps, self.temperature, self.weights)
        return Loader(_numbered(parts), batch_sampler=batches, **self.reading)

    def val_dataloader(self) -> Any:
        return Loader(_numbered(self._parts('val')), batch_sampler=self._validation(), **self.reading)

    def sample_loader(self, part: str) -> Any:
        """Return a loader of a half, 'train' or 'val', with each image once and at most 1,024 of every dataset."""
        parts = [each.part(stratified_part(each.y, 1024, seed=0)) for each in self._parts(part)]
        batches = _EveryBatch([len(each) for each in parts], self.batch_size, all_first=True)
        return Loader(_numbered(parts), batch_sampler=batches)

    def _parts(self, part: str) -> list[Images]:
        return [getattr(splits, part) for splits in self.splits.values()]

    def _validation(self) -> _EveryBatch:
        return _EveryBatch([len(part) for part in self._parts('val')], self.batch_size)


class _RandomBatches(Sampler[list[int]]):
    """Random batches of one dataset each, with replacement between batches, from torch's global generator.

    On several devices all processes draw the same numbers, and each takes a part of equal length, so that they stay in step.
    """

    def __init__(self, sizes: list[int], batch_size: int, steps: int, temperature: float, weights: Sequence[float]) -> None:
        self.sizes, self.batch_size, self.steps = sizes, batch_size, steps
        shares = torch.tensor(weights).double().log() + torch.tensor(sizes).double().log() / temperature
        self.weights = torch.softmax(shares, 0)
        self.starts = torch.tensor([0, *sizes]).cumsum(0)[:-1].tolist()

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        devices, rank = (distributed.get_world_size(), distributed.get_rank()) if distributed.is_initialized() else (1, 0)
        for dataset in torch.multinomial(self.weights, self.steps, replacement=True).tolist():
            order = torch.randperm(self.sizes[dataset])
            even = order[: len(order) // devices * devices]
            part = even[rank::devices] if len(order) >= 2 * devices else order  # batch norm needs at least two images
            yield (part[: self.batch_size] + self.starts[dataset]).tolist()


class _EveryBatch(Sampler[list[int]]):
    """Every image once, in batches of one dataset each, in a fixed random order, by which NNI's strategies train alphas.

    With ``all_first`` it starts with a batch of each dataset, for callers that use the first batches only.
    """

    def __init__(self, sizes: list[int], batch_size: int, *, all_first: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        batches, firsts, start = [], [], 0
        for size in sizes:
            order = torch.randperm(size, generator=generator) + start
            parts = max(1, min(-(-size // batch_size), size // 2))  # batch norm cannot train on a single image
            firsts.append(len(batches))
            batches += order.tensor_split(parts)
            start += size
        mixed = torch.randperm(len(batches), generator=generator).tolist()
        if all_first:
            mixed.sort(key=lambda index: index not in firsts)
        self.batches = [batches[index] for index in mixed]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches)


def _numbered(parts: list[Images]) -> ConcatDataset:
    """Concatenate the datasets, classes numbered one dataset after the other."""
    numbered, first = [], 0
    for part in parts:
        numbered.append(Images(part.x, part.y + first, part.mean, part.std))
        first += int(part.y.max()) + 1
    return ConcatDataset(numbered)
