"""Processes that read images, and a loader that gives the same batches with any number of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nni
import torch
from lightning_fabric.utilities.seed import pl_worker_init_function
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Workers:
    """Processes that read images.

    Attributes
    ----------
    num_workers
        Processes of each loader; 0 to read in the process of the training.
    prefetch
        Batches that each of them reads ahead.
    """

    num_workers: int = 0
    prefetch: int = 2

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a loader."""
        if not self.num_workers:
            return {}
        return {
            'num_workers': self.num_workers,
            'prefetch_factor': self.prefetch,
            'pin_memory': torch.cuda.is_available(),
            'worker_init_fn': start_worker,
        }


def start_worker(number: int) -> None:
    """Begin a worker: seeded as Lightning does it, and without collecting garbage in memory that processes share."""
    gc.freeze()
    if os.environ.get('PL_SEED_WORKERS') == '1':  # Lightning sets its own function only where there is none
        pl_worker_init_function(number)


@nni.trace
class Loader(DataLoader):
    """Loader that draws from torch's global generator as if it had no workers.

    With workers, torch draws the order of an epoch when an iterator is created, without them when its first batch is asked
    for, and between the two others draw: the orders would differ, and a search could not go on with another number of them.
    """

    def __iter__(self) -> Any:
        if not self.num_workers:
            return super().__iter__()
        return self._batches(int(torch.empty((), dtype=torch.int64).random_()))  # as torch draws the seed of its workers

    def _batches(self, seed: int) -> Iterator[Any]:
        before, self.generator = self.generator, torch.Generator().manual_seed(seed)
        batches = super().__iter__()
        self.generator = before
        yield from batches
