"""Labelled data as a transfer takes them, and a model's accuracy on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from ..errors import TransferError

Data = Iterable[Any] | Dataset | tuple[Tensor, Tensor]
"""Labelled data: a loader (or list) of batches ``(inputs, classes)``, a torch dataset, or the two tensors."""


def take(data: Any, max_samples: int) -> list[tuple[Any, Tensor]]:
    """The first batches of ``data`` with ``max_samples`` pictures or a few more, in a mixed order where these are a part."""
    if data is None:
        return []
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        data = TensorDataset(*data)
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size=256)
    taken: list[tuple[Any, Tensor]] = []
    size = 0
    for batch in _mixed(data, max_samples):
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
            raise TransferError('data must give batches (inputs, classes) of two tensors; wrap your loader so that it does.')
        y = batch[1].cpu()
        taken.append((batch[0], y if y.is_floating_point() or y.is_complex() else y.long()))
        size += len(batch[1])
        if size >= max_samples:
            break
    if not taken:
        raise TransferError('data is empty: it gave no batch of (inputs, classes).')
    return taken


def _mixed(data: Iterable[Any], max_samples: int) -> Iterable[Any]:
    """The same pictures at random, where a loader in the order of its dataset would show its first classes alone."""
    if not (isinstance(data, DataLoader) and isinstance(data.sampler, SequentialSampler) and data.batch_size is not None):
        return data
    if len(data.dataset) <= max_samples:  # pyright: ignore[reportArgumentType]
        return data
    return DataLoader(
        data.dataset,
        data.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=data.collate_fn,
        num_workers=data.num_workers,
    )


def has_classes(batches: list[tuple[Any, Tensor]]) -> bool:
    """Whether the labels are classes: whole numbers, one per picture."""
    return all(y.dim() == 1 and not y.is_floating_point() and not y.is_complex() for _, y in batches)


def check_range(labels: Tensor, classes: Any) -> None:
    """Refuse classes that a classifier does not have."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise TransferError(
            f'data has labels from {low} to {high}, and the classifier has {classes} classes; number them from 0.'
        )


def accuracy_on(
    model: nn.Module,
    batches: Iterable[Any],
    device: torch.device | str,
    heads: Mapping[str, tuple[int, int]] | None = None,
) -> float:
    """Share of ``batches`` that ``model`` classifies correctly, in evaluation mode; ``heads`` as those of a transfer."""
    was_training = model.training
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in batches:
            logits = model(x.to(device)).cpu()
            if heads is not None:
                logits = among_own(logits, y, heads)
            right += int((logits.argmax(1) == y).sum())
            total += len(y)
    model.train(was_training)
    return right / max(total, 1)


def among_own(logits: Tensor, y: Tensor, heads: Mapping[str, tuple[int, int]]) -> Tensor:
    """Logits with minus infinity for all classes of other datasets than that of ``y``, shape ``(n, rows)``."""
    owner = torch.full((logits.shape[1],), -1, device=logits.device)
    for number, (start, stop) in enumerate(heads.values()):
        owner[start:stop] = number
    return logits.masked_fill(owner[y.to(owner.device)][:, None] != owner, float('-inf'))
