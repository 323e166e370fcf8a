"""Loaders of a search: those of the evaluator, before NNI combines them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from nni.nas.evaluator.pytorch import Lightning
from torch.utils.data import DataLoader

from ..data.labelled import name_and_classes
from ..errors import TransferError
from ..utils.random import quiet_randomness


@runtime_checkable
class AlphaLoader(Protocol):
    """Data module with a loader for the alphas that differs from that of validation."""

    def arc_dataloader(self) -> Any: ...


@runtime_checkable
class SampleLoader(Protocol):
    """Data module whose loaders draw at random, with additional loaders that yield each sample once."""

    def sample_loader(self, part: str) -> Any: ...


@dataclass(frozen=True)
class Loaders:
    """Factories of loaders.

    Attributes
    ----------
    samples
        'train' and 'val' -> factory of a loader of the samples of a half.
    alphas
        Factory of the loader that trains the alphas; None for that of validation.
    datamodule
        Data module that has to be set up before a loader is made; None for loaders without one.
    owner
        Data module or other object that may have the names of the classes; None for loaders without one.
    """

    samples: dict[str, Callable[[], Any]] = field(default_factory=dict)
    alphas: Callable[[], Any] | None = None
    datamodule: Any = None
    owner: Any = None

    @classmethod
    def of(cls, evaluator: Lightning) -> Loaders:
        """Return the loaders of an evaluator that no strategy has changed yet."""
        data = evaluator.datamodule
        if data is None:
            loaders = {'train': evaluator.train_dataloaders, 'val': evaluator.val_dataloaders}
            samples = {part: partial(_itself, loader) for part, loader in loaders.items() if loader is not None}
            return cls(samples, partial(_itself, evaluator.val_dataloaders))
        alphas = data.arc_dataloader if isinstance(data, AlphaLoader) else data.val_dataloader
        if isinstance(data, SampleLoader):
            return cls({part: partial(data.sample_loader, part) for part in ('train', 'val')}, alphas, owner=data)
        return cls({'train': data.train_dataloader, 'val': data.val_dataloader}, alphas, data, data)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that the data module has; empty where it has none."""
        return name_and_classes(self.owner)[1]

    def prepare(self) -> None:
        """Set up the data module, so that loaders can be made before the trainer sets it up."""
        if self.datamodule is not None:
            with quiet_randomness():
                self.datamodule.prepare_data()
                self.datamodule.setup('fit')

    def make(self, part: str) -> Any:
        """Make the loader of a half, 'train' or 'val'.

        Raises
        ------
        TransferError
            If the evaluator has no such loader.
        """
        if part not in self.samples:
            raise TransferError(f'the evaluator has no {part} data loader.')
        return _apart(self.samples[part]())


def _apart(loader: Any) -> Any:
    """Return a loader that can be iterated while another iteration of the same one goes on.

    With persistent workers, torch gives all iterations of a loader one iterator, which a new one starts afresh.
    """
    if not isinstance(loader, DataLoader) or not loader.persistent_workers:
        return loader
    return changed(loader, persistent_workers=False)


def changed(loader: DataLoader, **attributes: Any) -> DataLoader:
    """Return a copy of a loader with an iterator of its own and other attributes, which torch lets nobody assign."""
    twin = copy.copy(loader)
    vars(twin).update(attributes, _iterator=None)
    return twin


def _itself(loader: Any) -> Any:
    return loader
