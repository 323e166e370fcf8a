"""The one reader of labelled data: in whatever form users have them, they become batches of two tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from ..errors import WarmStartError, reason
from .task import Task

BATCH_SIZE = 256
"""Samples that are read at a time where the data are no loader."""


@dataclass(frozen=True)
class Wording:
    """How a reader refuses data; ``{name}``, ``{kind}`` (the type) and ``{reason}`` are filled in.

    Attributes
    ----------
    error
        Class of the exception.
    form
        Said of an object that holds no labelled data in any form.
    pair
        Said of a batch that is no pair.
    values
        Said of a batch whose parts no tensor can hold: images of several sizes, text.
    """

    error: type[WarmStartError]
    form: str
    pair: str
    values: str

    def refused(self, fault: str, **words: Any) -> WarmStartError:
        """Return the exception of one fault: 'form', 'pair' or 'values'."""
        return self.error(getattr(self, fault).format(**words))

    @contextmanager
    def readable(self, name: str) -> Iterator[None]:
        """Say in one line what no tensor can hold: PIL images, images of several sizes, text."""
        try:
            yield
        except WarmStartError:
            raise
        except (TypeError, RuntimeError, ValueError) as error:
            raise self.refused('values', name=name, reason=reason(error)[:200]) from error


def batches_of(dataset: Any, name: str, wording: Wording, *, at_most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Read labelled data.

    Parameters
    ----------
    dataset
        A task (its training part), two arrays ``(x, y)``, a torch dataset, or a loader or list of batches ``(x, y)``.
    name
        Name of the data in errors.
    wording
        How to refuse what cannot be read.
    at_most
        How many samples the caller will take. Of more, those of a dataset come in a random order, always the same: the
        first ones of sorted data are of one class.

    Yields
    ------
    tuple
        Samples ``(n, ...)`` and labels ``(n,)``, of the dtype and on the device on which they are.
    """
    if isinstance(dataset, Task):
        dataset = dataset.train_x, dataset.train_y
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
    for batch in dataset if at_most is None else _mixed(dataset, at_most):
        yield _tensors(batch, name, wording)


def as_tensor(array: Any) -> Tensor:
    """Return a tensor as it is, and any other array, list or number as a tensor.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If it has values or shapes that no tensor can have.
    """
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    if any(stride < 0 for stride in array.strides):  # which torch refuses
        array = array.copy()
    if array.dtype.kind == 'u' and not hasattr(torch, array.dtype.name):  # torch 2.1 has uint8 only
        array = array.astype(np.int64)
    return torch.as_tensor(array.astype(array.dtype.newbyteorder('='), copy=False))


def _tensors(batch: Any, name: str, wording: Wording) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, list | tuple) or len(batch) != 2 or batch[1] is None:
        raise wording.refused('pair', name=name)
    with wording.readable(name):
        return as_tensor(batch[0]), as_tensor(batch[1])


def _are_batches(pair: tuple[Any, Any]) -> bool:
    """Whether a tuple holds two batches, and not the arrays of samples and of labels."""
    return all(
        isinstance(part, list | tuple) and len(part) == 2 and all(isinstance(item, Tensor) for item in part) for part in pair
    )


def _mixed(data: Iterable[Any], at_most: int) -> Iterable[Any]:
    """Return a loader of the same samples in random order where ``data`` would show the first classes alone."""
    if not (isinstance(data, DataLoader) and isinstance(data.sampler, SequentialSampler) and data.batch_size is not None):
        return data
    if len(data.dataset) <= at_most:  # pyright: ignore[reportArgumentType]
        return data
    return DataLoader(
        data.dataset,
        data.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=data.collate_fn,
        num_workers=data.num_workers,
    )
