"""Splits of a task into the parts that a search uses, with images normalised on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .lazy import AnyImages, LazyImages, subset
from .looks import LOOK, sample
from .stratified import stratified_split
from .task import Task


class Images(Dataset):
    """Images normalised on the fly, ``((channels, image_size, image_size) float32, class)``.

    Parameters
    ----------
    x, y
        Images ``(n, channels, image_size, image_size)``, which may be lazy, and classes ``(n,)``.
    mean, std
        Mean and standard deviation of each channel, in the units of ``x``.
    name, class_names
        Name and class names of the task that the images are part of.
    population
        Classes of all images that these were drawn from, for a sample; None otherwise.
    """

    def __init__(
        self,
        x: AnyImages,
        y: Tensor,
        mean: Tensor,
        std: Tensor,
        name: str = 'dataset',
        class_names: tuple[str, ...] = (),
        population: Tensor | None = None,
    ) -> None:
        self.x, self.y, self.name, self.class_names, self.population = x, y, name, class_names, population
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor]:
        return self.normalised(self.x[index]), self.y[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return a batch, which loaders of torch 2.1 and later ask for as a whole."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return list(zip(self.normalised(self.x[index]), self.y[index], strict=True))

    def normalised(self, x: Tensor) -> Tensor:
        """Return images, or a batch of them, as float32 with mean 0 and standard deviation 1, on their device."""
        copy = x.to(torch.float32, copy=True)  # the only large tensor that is made
        return copy.sub_(self.mean.to(x.device)).div_(self.std.to(x.device))

    def part(self, index: Tensor) -> Images:
        """Return the samples at some positions; lazy ones stay lazy."""
        return Images(subset(self.x, index), self.y[index], self.mean, self.std, self.name, self.class_names)

    @property
    def is_large(self) -> bool:
        """Check whether a look at the data has to do with a sample of them."""
        return isinstance(self.x, LazyImages) or len(self) > LOOK

    def sample(self, title: str, share: float = 1.0) -> Images:
        """Return images for a look at the data; see :func:`~nni_warmstart.data.looks.sample`."""
        index = sample(self.x, self.y, title, share)
        found = self.part(index)
        found.population = self.y
        return found


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
    train_x, train_y = subset(task.train_x, train_index), task.train_y[train_index]
    if isinstance(train_x, Tensor):
        mean, std = _moments(train_x)
    else:
        mean, std = _moments(train_x[sample(train_x, train_y, 'statistics of the channels')])

    def images(x: AnyImages, y: Tensor) -> Images:
        return Images(x, y, mean, std, task.name, task.class_names)

    test = images(task.test_x, task.test_y) if len(task.test_x) else None
    return Splits(
        images(train_x, train_y),
        images(subset(task.train_x, val_index), task.train_y[val_index]),
        test,
    )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every channel, float32; computed in chunks, since float64 takes much memory."""
    at_once = max(1, min(1024, 2**24 // x[0].numel()))
    parts, count = x.split(at_once), x.numel() // x.shape[1]
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
