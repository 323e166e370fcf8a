"""Reader of labelled data: whatever form users have, it becomes batches of two tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from ..errors import WarmStartError, reason
from .looks import sample
from .task import Task

BATCH_SIZE = 256
"""Samples that are read at a time from data that are not a loader."""


@dataclass(frozen=True)
class Wording:
    """Error messages of a reader; ``{name}``, ``{kind}`` (the type) and ``{reason}`` are filled in.

    Attributes
    ----------
    error
        Class of the exception.
    form
        Message about an object that holds no labelled data in any form.
    pair
        Message about a batch that is not a pair.
    values
        Message about a batch that tensors cannot hold: images of several sizes, text.
    """

    error: type[WarmStartError]
    form: str
    pair: str
    values: str

    def refused(self, fault: str, **words: Any) -> WarmStartError:
        """Return the exception for one fault: 'form', 'pair' or 'values'."""
        return self.error(getattr(self, fault).format(**words))

    @contextmanager
    def readable(self, name: str) -> Iterator[None]:
        """Turn errors about values that tensors cannot hold (PIL images, images of several sizes, text) into one line."""
        try:
            yield
        except WarmStartError:
            raise
        except (TypeError, RuntimeError, ValueError) as error:
            raise self.refused('values', name=name, reason=reason(error)[:200]) from error


def batches_of(dataset: Any, name: str, wording: Wording, *, at_most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Read labelled data in batches.

    Parameters
    ----------
    dataset
        A task (its training part), two arrays ``(x, y)``, a torch dataset, or a loader or list of batches ``(x, y)``.
    name
        Name of the data in errors.
    wording
        Error messages for data that cannot be read.
    at_most
        Number of samples that the caller will take. A dataset with more is read in a fixed random order, since the first
        samples of sorted data are of one class.

    Yields
    ------
    tuple
        Samples ``(n, ...)`` and labels ``(n,)``, with dtype and device unchanged.
    """
    if isinstance(dataset, Task):
        dataset = in_memory(dataset)
    if isinstance(dataset, tuple) and len(dataset) == 2 and not _are_batches(dataset):
        pair = _tensors(dataset, name, wording)
        with wording.readable(name):
            if at_most is not None and len(pair[0]) != len(pair[1]):
                raise ValueError(f'{len(pair[0])} samples and {len(pair[1])} labels')
        dataset = [pair] if at_most is None else TensorDataset(*pair)
    if isinstance(dataset, Dataset):
        dataset = DataLoader(dataset, BATCH_SIZE)
    elif not isinstance(dataset, Iterable):
        raise wording.refused('form', name=name, kind=type(dataset).__name__)
    for batch in dataset if at_most is None else _shuffled(dataset, at_most):
        yield _tensors(batch, name, wording)


def in_memory(task: Task) -> tuple[Tensor, Tensor]:
    """Return the training images of a task and their classes; of lazy images, those of a sample that all looks share."""
    if isinstance(task.train_x, Tensor):
        return task.train_x, task.train_y
    index = sample(task.train_x, task.train_y, f'sample of {task.name}')
    return task.train_x[index], task.train_y[index]


def as_tensor(array: Any) -> Tensor:
    """Return a tensor unchanged, and any other array, list or number as a tensor.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If a tensor cannot hold its values or shape.
    """
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    if any(stride < 0 for stride in array.strides):  # torch refuses negative strides
        array = array.copy()
    if array.dtype.kind == 'u' and not hasattr(torch, array.dtype.name):  # torch 2.1 has uint8 only
        array = array.astype(np.int64)
    return torch.as_tensor(array.astype(array.dtype.newbyteorder('='), copy=False))


def _tensors(batch: Any, name: str, wording: Wording) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, list | tuple) or len(batch) != 2 or batch[1] is None:
        raise wording.refused('pair', name=name)
    with wording.readable(name):
        if _has_several_tensors(*batch):
            raise TypeError(f'its inputs are a {type(batch[0]).__name__} of several tensors, not one tensor')
        return as_tensor(batch[0]), as_tensor(batch[1])


def _has_several_tensors(inputs: Any, labels: Any) -> bool:
    """Check whether a model would take the inputs as several tensors; a list may also hold one tensor for each sample."""
    if isinstance(inputs, Mapping):
        return True
    if not isinstance(inputs, list | tuple) or not any(isinstance(each, Tensor | Mapping) for each in inputs):
        return False
    return not (isinstance(labels, Sized) and len(labels) == len(inputs))


def _are_batches(pair: tuple[Any, Any]) -> bool:
    """Check whether a tuple holds two batches, and not the arrays of samples and of labels."""
    return all(
        isinstance(part, list | tuple) and len(part) == 2 and all(isinstance(item, Tensor) for item in part) for part in pair
    )


def _shuffled(data: Iterable[Any], at_most: int) -> Iterable[Any]:
    """Return a loader of the same samples in random order where ``data`` would yield the first classes only."""
    if not (isinstance(data, DataLoader) and isinstance(data.sampler, SequentialSampler) and data.batch_size is not None):
        return data
    if len(data.dataset) <= at_most:  # pyright: ignore[reportArgumentType]
        return data
    return loader_like(data, data.dataset, shuffle=True, generator=torch.Generator().manual_seed(0))


def loader_like(loader: DataLoader, dataset: Dataset, **options: Any) -> DataLoader:
    """Return a loader of another dataset that makes batches as ``loader`` does."""
    return DataLoader(
        dataset,
        loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        **options,
    )
