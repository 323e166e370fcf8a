"""Labelled pictures of any form as tensors: read, brought to one shape, standardised, embedded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data import Task, quiet_randomness
from ..errors import DataError, reason
from .embedding import Embedding

Labelled = Task | Dataset | Iterable[Any] | tuple[Any, Any]
"""Labelled pictures or features: a task (its training part), a torch dataset, a loader, or two arrays ``(x, y)``."""

EMBEDDED = 5000
"""Pictures embedded at most: enough for means and covariances, and seconds instead of minutes for a large dataset."""


def pictures_of(dataset: Labelled, channels: int, side: int, name: str = 'dataset') -> tuple[Tensor, Tensor]:
    """Pictures ``(n, channels, side, side)``, standardised per channel, and classes ``(n,)``, numbered from 0 without gaps;
    at most 5,000, stratified."""
    how = Embedding('pictures', channels, side, lambda x: x)
    x, y = read(dataset, how, name)
    classes = y.unique(return_inverse=True)[1]
    chosen = stratified_part(classes, EMBEDDED, seed=0)
    return embed(x[chosen], how, name), classes[chosen]


def stratified_part(labels: Tensor, size: int, seed: int) -> Tensor:
    """Sorted indices of ``size`` samples, every class in proportion and at least once."""
    if len(labels) <= size:
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].sort(stable=True).indices]  # class by class, at random within
    counts = labels.bincount()
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    depth = (place + 0.5) / counts[labels[order]]  # a sample's quantile within its class
    depth[place == 0] = -1
    return order[depth.argsort(stable=True)[: max(size, int((counts > 0).sum()))]].sort().values


def read(dataset: Labelled, how: Embedding, name: str) -> tuple[Tensor, Tensor]:
    """All of ``x`` (pictures already of the embedding's size) and ``y``."""
    if isinstance(dataset, Task):
        batches: Iterable[Any] = [(dataset.train_x, dataset.train_y)]
    elif isinstance(dataset, tuple) and len(dataset) == 2:
        batches = [dataset]
    elif isinstance(dataset, Dataset):
        batches = DataLoader(dataset, batch_size=256)
    elif isinstance(dataset, Iterable):
        batches = dataset
    else:
        raise DataError(f'a dataset must be a torch dataset, a loader or two arrays (x, y), not {type(dataset).__name__}.')
    xs, ys = [], []
    with quiet_randomness(), _readable(name):
        for batch in batches:
            if not isinstance(batch, list | tuple) or len(batch) != 2 or batch[1] is None:
                raise DataError(f'{name} gives no pairs of samples and labels; distances between datasets need labels.')
            x, y = (torch.as_tensor(np.asarray(part) if not isinstance(part, Tensor) else part) for part in batch)
            if y.ndim != 1 or y.is_floating_point() or y.is_complex() or len(x) != len(y):
                raise DataError(
                    f'{name} has labels of shape {tuple(y.shape)} and type {y.dtype} for {len(x)} samples; needed is one '
                    'whole number each.'
                )
            parts = x.detach().cpu().split(1024)  # so that no large set becomes float32 at full size
            xs += parts if x.ndim == 2 else [_prepared(part, how, name) for part in parts]
            ys.append(y.detach().cpu().long())
    if not ys or not sum(len(y) for y in ys):
        raise DataError(f'{name} is empty: there is nothing to sketch.')
    y = torch.cat(ys)
    if int(y.min()) < 0:
        raise DataError(
            f'{name} has the label {int(y.min())}; labels must be 0 or more (unlabelled samples cannot be used).'
        )
    return torch.cat(xs), y


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Say in one line what a dataset gives that no tensor can hold: PIL pictures, pictures of several sizes, text."""
    try:
        yield
    except DataError:
        raise
    except (TypeError, RuntimeError, ValueError) as error:
        raise DataError(
            f'{name} does not give tensors of one shape and whole numbers ({reason(error)[:200]}); add '
            'transforms (Resize, ToTensor), and number the classes.'
        ) from error


def _prepared(x: Tensor, how: Embedding, name: str) -> Tensor:
    """Pictures of the embedding's shape, float32."""
    if not how.side:
        return x
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.permute(0, 3, 1, 2)  # numpy's habit
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f'{name} has samples of shape {tuple(x.shape[1:])}; needed are pictures of 1 or 3 channels, or features (n, d).'
        )
    x = x.float()
    if x.shape[1] != how.channels:
        x = x.expand(-1, 3, -1, -1) if how.channels == 3 else x.mean(1, keepdim=True)
    return F.interpolate(x, (how.side, how.side), mode='bilinear', antialias=True, align_corners=False)


def embed(x: Tensor, how: Embedding, name: str) -> Tensor:
    if not torch.isfinite(x.float()).all():
        raise DataError(f'{name} has NaN or infinite pixels; remove or repair those pictures.')
    if how.standardised and x.ndim == 4:
        x = x.float()
        x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    parts = []
    with torch.no_grad():
        for batch in [x] if how.whole else x.split(256):
            part = how.function(batch)
            if not isinstance(part, Tensor):
                raise DataError(f'embedding {how.name!r} gave a {type(part).__name__}; it must give a tensor (n, d).')
            parts.append(part.detach().cpu())
    return torch.cat(parts)
