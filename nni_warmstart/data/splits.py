"""Splits of a task into the parts that a search uses, with images normalised on the fly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .task import Task


class Images(Dataset):
    """Images normalised on the fly, ``((channels, image_size, image_size) float32, class)``.

    Parameters
    ----------
    x, y
        Images ``(n, channels, image_size, image_size)`` and classes ``(n,)``.
    mean, std
        Mean and standard deviation of each channel, in the units of ``x``.
    name, class_names
        Name and class names of the task that the images are part of.
    """

    def __init__(
        self, x: Tensor, y: Tensor, mean: Tensor, std: Tensor, name: str = 'dataset', class_names: tuple[str, ...] = ()
    ) -> None:
        self.x, self.y, self.name, self.class_names = x, y, name, class_names
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        return (self.x[index].float() - self.mean) / self.std, self.y[index]

    def part(self, index: Tensor) -> Images:
        """Return the samples at some positions."""
        return Images(self.x[index], self.y[index], self.mean, self.std, self.name, self.class_names)


@dataclass(frozen=True)
class Splits:
    """Parts of a task that a search uses; ``test`` is None for a task without test images."""

    train: Images
    val: Images
    test: Images | None


def split(task: Task, *, val_share: float = 0.5, seed: int = 0) -> Splits:
    """Split the training images into a part for the weights and one for the alphas, as DARTS does.

    The split is stratified and depends on ``seed`` alone; test images stay as they are. Images are normalised by the mean
    and standard deviation of each channel over the training part.

    Raises
    ------
    DataError
        If some class is missing from one of the two parts.
    """
    if not 0 < val_share < 1:
        raise DataError(f'val_share = {val_share}, but it must lie between 0 and 1.')
    val_index, train_index = stratified_split(task.train_y, val_share, seed)
    val_index = val_index[shuffled_if_sorted(task.train_y[val_index])]  # the alphas are trained in this order
    for part, index in (('training', train_index), ('validation', val_index)):
        missing = set(range(task.num_classes)) - set(task.train_y[index].tolist())
        if missing:
            names = ', '.join(task.class_names[label] for label in sorted(missing))
            raise DataError(
                f'{task.name}: class {names} is missing from the {part} split at val_share = {val_share}; every class needs '
                'images in both halves. Add some, leave the class out, or change val_share.'
            )
    train_x = task.train_x[train_index]
    mean, std = _moments(train_x)

    def images(x: Tensor, y: Tensor) -> Images:
        return Images(x, y, mean, std, task.name, task.class_names)

    test = images(task.test_x, task.test_y) if len(task.test_x) else None
    return Splits(
        images(train_x, task.train_y[train_index]),
        images(task.train_x[val_index], task.train_y[val_index]),
        test,
    )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every channel, float32; computed in chunks, since float64 takes much memory."""
    parts, count = x.split(1024), x.numel() // x.shape[1]
    mean = torch.stack([part.double().sum((0, 2, 3)) for part in parts]).sum(0) / count
    squares = torch.stack([(part.double() - mean.view(-1, 1, 1)).square().sum((0, 2, 3)) for part in parts]).sum(0)
    return mean.float(), (squares / (count - 1)).sqrt().float().clamp_min(1e-6)


def shuffled_if_sorted(labels: Tensor) -> Tensor:
    """Return an order in which classes alternate: the order of the data, or a fixed random order if they are sorted.

    Data count as sorted if neighbours share a class more often than halfway between chance and always.
    """
    together = (labels[1:] == labels[:-1]).double().mean() if len(labels) > 1 else 0.0
    chance = (labels.bincount() / len(labels)).square().sum()
    if together <= (1 + chance) / 2:
        return torch.arange(len(labels))
    return torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of a part with ``share`` of every class, and those of the rest, both drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        order = members[torch.randperm(len(members), generator=generator)]
        chosen[order[: round(len(members) * share)]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def stratified_part(labels: Tensor, size: int, seed: int) -> Tensor:
    """Return sorted indices of ``size`` samples, every class in proportion and at least once, drawn by ``seed``."""
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
