"""Batches of an unfinished epoch that are already trained, fetched again so that the loaders go on behind them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from lightning_fabric.utilities.data import _set_sampler_epoch
from lightning_fabric.utilities.types import _Stateful
from torch import Tensor
from torch.utils._pytree import tree_leaves


def are_restored(trainer: Any) -> bool:
    """Check whether Lightning has restored the loaders of a trainer by states of their own."""
    return any(isinstance(loader, _Stateful) for loader in trainer.fit_loop._combined_loader.flattened)


def fetch_again(
    pl_module: Any, number: int, iterator: Any, before: Mapping[int, Any], restore: Callable[[Any], None]
) -> Any:
    """Fetch the first batches of an epoch again, with the random numbers of then; return the last one, as it was trained.

    It is None where a loader ends too soon.

    Parameters
    ----------
    pl_module
        One-shot module, in the last hook of ``on_train_start``.
    number
        Number of batches.
    iterator
        Random state before the iterator of the epoch was created; not used in the first epoch, whose iterator is there.
    before
        Random states before some of the batches were fetched, by their index.
    restore
        Function that restores a random state.
    """
    trainer = pl_module.trainer
    loop = trainer.fit_loop
    fetcher, batch = loop._data_fetcher, None
    # Lightning says of all other loaders that they are not resumable
    warnings.filterwarnings('ignore', "You're resuming from a checkpoint that ended before the epoch ended")
    if trainer.current_epoch > 0:
        for loader in loop._combined_loader.flattened:
            _set_sampler_epoch(loader, trainer.current_epoch)
        restore(iterator)
        iter(fetcher)
    for index in range(number):
        if index in before:
            restore(before[index])
        batch, *_ = next(fetcher, (None,))
    fetcher.fetched = 0  # Lightning adds those of the checkpoint
    if batch is None:
        return None
    batch = trainer.precision_plugin.convert_input(batch)
    batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def checksum(batch: Any) -> str:
    """Return a checksum of the integers in a batch: labels and indices, which no augmentation changes; '' without any."""
    whole = [x for x in tree_leaves(batch) if isinstance(x, Tensor) and not x.is_floating_point() and not x.is_complex()]
    content = hashlib.sha256()
    for tensor in whole:
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest() if whole else ''
