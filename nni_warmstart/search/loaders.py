"""Loaders of a search: training gets those of the evaluator, and everything else reads copies of them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, IterableDataset

from ..data.labelled import name_and_classes
from ..errors import DataError, TransferError, reason
from ..utils.copies import FAILURES, copied
from ..utils.inputs import size_of
from ..utils.random import draw_again, quiet_randomness, random_state

MOST_OF_A_STREAM = 16384
"""Number of samples that are read of data without a length."""


@runtime_checkable
class AlphaLoader(Protocol):
    """Data module with a loader for the alphas that differs from that of validation."""

    def arc_dataloader(self) -> Any: ...

    def val_dataloader(self) -> Any: ...


@runtime_checkable
class SampleLoader(Protocol):
    """Data module whose loaders draw at random, with additional loaders that yield each sample once."""

    def sample_loader(self, part: str) -> Any: ...


class Loaders:
    """Loaders of a search.

    Samplers, generators and datasets may have a state of their own: what reads them anew changes the images of training. So
    each loader is made once, as NNI's strategies make it, iterated by training alone, and copied for all other uses.

    Parameters
    ----------
    data
        Data module of the evaluator, whose loaders no strategy has changed yet; None for an evaluator with loaders.

    Attributes
    ----------
    need_trainer
        Whether the trainer has to set up the data module, or to be known to it, before a loader can be made.
    """

    def __init__(self, data: Any = None) -> None:
        self.data = data
        set_up = any(is_overridden(hook, data, LightningDataModule) for hook in ('prepare_data', 'setup'))
        self.need_trainer = data is not None and (set_up or not isinstance(data, AlphaLoader))
        self._val: Callable[[], Any] | None = data.val_dataloader if isinstance(data, AlphaLoader) else None
        self._in_use: dict[str, Any] | None = None
        self._drawn: tuple[dict[str, Any], dict[str, Any]] | None = None  # random states around loaders made ahead

    def for_training(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the loaders that the trainer asks for, 'train' and 'val', which trains the alphas.

        Those that were made ahead are handed out as if they were made now.
        """
        if self._in_use is None or self._drawn is None:
            self._in_use = make()
        else:
            draw_again(*self._drawn)
            self._drawn = None
        return self._in_use

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that the data module has; empty where it has none."""
        return name_and_classes(self.data)[1]

    def __deepcopy__(self, memo: Any) -> Loaders:
        return self  # callbacks that average weights copy the module of a search, which has the data of these loaders

    def for_validation(self, trainer: Any) -> Any:
        """Return the loader that validates: a copy of that of the alphas, unless the data module has two.

        Raises
        ------
        TransferError
            If it cannot be read without changing the training.
        """
        loader = self._of('val')
        if isinstance(loader, list | tuple | dict | CombinedLoader):
            return loader  # the trainer takes several
        is_sized = isinstance(loader, DataLoader) and sized_len(loader) is not None
        return loader if is_sized else ValidationBatches(loader, trainer)

    def read(self, part: str) -> Any:
        """Return a loader of the samples of a half, 'train' or 'val', which can be read at any time.

        Raises
        ------
        TransferError
            If it cannot be read without changing the training.
        """
        if isinstance(self.data, SampleLoader):
            return self.data.sample_loader(part)
        loader = self._of(part)
        if isinstance(loader, CombinedLoader) or sized_len(loader) is None:
            loader = FirstSamples(loader)
        elif isinstance(loader, DataLoader) and loader.persistent_workers:
            loader = changed(loader, persistent_workers=False)
        hooks = 'on_before_batch_transfer', 'on_after_batch_transfer'
        has_own = any(is_overridden(hook, self.data, LightningDataModule) for hook in hooks)
        return through(loader, self._transferred) if has_own else loader

    def _transferred(self, batch: Any) -> Any:
        """Change a batch as the hooks of the data module do on its way to the device; they may normalise images."""
        return self.data.on_after_batch_transfer(self.data.on_before_batch_transfer(batch, 0), 0)

    def count(self, part: str) -> int:
        """Return the number of samples of a half in training; 0 before it, and where they would have to be read for it."""
        loader = (self._in_use or {}).get(part)
        return sized_len(loader.sampler) or 0 if isinstance(loader, DataLoader) else 0

    def _of(self, part: str) -> Any:
        if part == 'val' and self._val is not None:
            with quiet_randomness():
                return self._val()
        loaders = self._in_use
        if loaders is None:
            with quiet_randomness():
                before = random_state([])
                loaders = self._in_use = self.data.train_dataloader()  # NNI has put the strategy's in its place
                self._drawn = before, random_state([])
        try:
            return apart(loaders[part])
        except FAILURES as error:
            raise TransferError(f'the {part} data cannot be read without changing the training ({reason(error)})') from error


def apart(loader: Any) -> Any:
    """Return a copy of a loader, with the state of its sampler, its generators and its dataset.

    A dataset that is read by index and cannot be copied, such as one with an open file, is shared.

    Raises
    ------
    Exception
        One of :data:`~nni_warmstart.utils.copies.FAILURES` if there is no copy of what is read in sequence.
    """
    try:
        return copied(loader)
    except FAILURES:
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise
        return copied(loader, shared=[loader.dataset])


def pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield batches that are pairs of inputs and labels.

    Raises
    ------
    DataError
        If one is something else.
    """
    for batch in batches:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            size = f' of {len(batch)}' if isinstance(batch, list | tuple | dict) else ''
            raise DataError(f'batches are no pairs of inputs and labels, but each a {type(batch).__name__}{size}.')
        yield batch[0], batch[1]


def changed(loader: DataLoader, **attributes: Any) -> DataLoader:
    """Return a shallow copy of a loader with an iterator of its own and other attributes, which torch lets nobody assign."""
    twin = copy.copy(loader)
    vars(twin).update(attributes, _iterator=None)
    return twin


def through(loader: Any, change: Callable[[Any], Any]) -> Any:
    """Return a loader of the same samples, whose batches a function of this process has changed."""
    if not isinstance(loader, DataLoader):
        return _Through(loader, change)
    collate = loader.collate_fn
    # workers would have to have a copy of what the function knows
    alone = {'num_workers': 0, 'persistent_workers': False, 'prefetch_factor': None}
    return changed(loader, collate_fn=lambda samples: change(collate(samples)), **alone)


class _Through:
    """Iterable over the changed batches of another one."""

    def __init__(self, batches: Any, change: Callable[[Any], Any]) -> None:
        self.batches, self.change, self.dataset = batches, change, getattr(batches, 'dataset', None)

    def __iter__(self) -> Iterator[Any]:
        return map(self.change, self.batches)


class FirstSamples:
    """First batches of a loader without a length, which may be endless: those with :data:`MOST_OF_A_STREAM` samples."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.dataset = loader, getattr(loader, 'dataset', type(loader).__name__)

    def __iter__(self) -> Iterator[Any]:
        seen = 0
        for batch in self.loader:
            yield batch
            seen += max(1, size_of(batch))
            if seen >= MOST_OF_A_STREAM:
                return


class ValidationBatches:
    """Batches of a loader that is not one of torch, or that has no length and may be endless.

    Nothing is read before the first batch is asked for, since the trainer makes an iterator only to see whether it can. Of a
    loader without a length at most as many batches are read as are trained on, unless ``limit_val_batches`` is a number.

    Parameters
    ----------
    loader
        Any iterable of batches.
    trainer
        Lightning's trainer.
    """

    def __init__(self, loader: Any, trainer: Any) -> None:
        self.loader, self.trainer = loader, trainer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        most = math.inf
        if sized_len(self.loader) is None and isinstance(self.trainer.limit_val_batches, float):
            most = min(self.trainer.num_training_batches, self.trainer.val_check_batch or math.inf)
        yield from itertools.islice(self.loader, None if math.isinf(most) else int(most))
