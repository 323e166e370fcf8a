"""Part of a torch dataset that is drawn by the labels that it keeps, so that only the images of this part are read."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, Subset

from ..errors import DataError
from .batches import loader_like
from .map_style import kept_labels
from .stratified import stratified_part


class DatasetPart(NamedTuple):
    """Part of a dataset: a dataset or loader of it, its labels, and those of the whole dataset."""

    samples: Any
    labels: Tensor
    population: Tensor


def dataset_part(dataset: Any, at_most: int, seed: int) -> DatasetPart | None:
    """Draw ``at_most`` samples, every class in proportion and at least once; a loader's own order has no effect.

    Returns
    -------
    DatasetPart | None
        The part in the order of the dataset; None where the data have no more samples, are no map-style dataset and no
        loader of a whole one, or keep no labels.
    """
    whole = dataset
    if isinstance(dataset, DataLoader):
        sampler = dataset.sampler
        is_whole = isinstance(sampler, SequentialSampler | RandomSampler) and len(sampler) == len(sampler.data_source)
        whole = dataset.dataset if is_whole and dataset.batch_size is not None else None
    if not isinstance(whole, Dataset) or isinstance(whole, IterableDataset) or not isinstance(whole, Sized):
        return None
    try:
        labels = kept_labels(whole, 'dataset') if len(whole) > at_most else None
    except DataError:  # what it keeps are no classes
        return None
    if labels is None:
        return None
    index = stratified_part(labels.unique(return_inverse=True)[1], at_most, seed)
    part = Subset(whole, index.tolist())
    return DatasetPart(loader_like(dataset, part) if isinstance(dataset, DataLoader) else part, labels[index], labels)


def random_part(labels: Tensor, keys: Tensor, at_most: int) -> Tensor:
    """Return sorted indices of ``at_most`` samples with the smallest random keys, and of the smallest of each class.

    Of a part that was drawn before and further samples, it draws what it draws of all of them at once.
    """
    order = keys.argsort()
    classes, numbers = labels[order].unique(return_inverse=True)
    first = torch.full((len(classes),), len(order)).scatter_reduce(0, numbers, torch.arange(len(order)), 'amin')
    return torch.cat([order[:at_most], order[first]]).unique()
