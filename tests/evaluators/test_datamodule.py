"""Loaders over a task: workers, balanced classes, and normalisation after the transfer to the device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.tiny import make_task

from nni_warmstart.data import split
from nni_warmstart.data.lazy import LazyImages
from nni_warmstart.evaluators.datamodule import BalancedClasses, TaskData
from nni_warmstart.evaluators.workers import Workers


class Reader:
    """Images of a tensor, one at a time."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, tuple(x.shape[1:]), x.dtype

    def __len__(self):
        return len(self.x)

    def read(self, position):
        return self.x[position]


def lazily(task, cache=1e4):
    return replace(task, train_x=LazyImages(Reader(task.train_x), cache), test_x=LazyImages(Reader(task.test_x), cache))


@pytest.mark.parametrize('workers', [0, 2])
def test_lazy_images_are_normalised_with_the_same_bits(workers):
    task = make_task()
    whole = TaskData(split(task), 8)
    splits = split(lazily(task, 1e9))
    statistics = splits.train.mean, splits.train.std
    assert torch.allclose(statistics[0], whole.splits.train.mean) and torch.allclose(statistics[1], whole.splits.train.std)
    for part in (splits.train, splits.val, splits.test):
        part.mean, part.std = whole.splits.train.mean, whole.splits.train.std  # whose sums are in another order
    lazy = TaskData(splits, 8, workers=Workers(workers))
    for name in ('train_dataloader', 'val_dataloader', 'arc_dataloader', 'test_dataloader'):
        torch.manual_seed(0)
        expected = list(getattr(whole, name)())
        torch.manual_seed(0)
        found = list(getattr(lazy, name)())
        assert all(x.dtype == torch.uint8 for x, _ in found)
        combined = [lazy.on_after_batch_transfer({'train': batch}, 0)['train'] for batch in found]
        assert all(torch.equal(a, b) for x, y in zip(expected, combined, strict=True) for a, b in zip(x, y, strict=True))


def test_looks_are_of_all_images_or_of_one_sample():
    small = TaskData(split(make_task()), 8)
    assert len(small.sample_loader('train').dataset) == len(small.splits.train)
    lazy = TaskData(split(lazily(make_task(n=96))), 8)
    first, again = (torch.cat([x for x, _ in lazy.sample_loader('train')]) for _ in range(2))
    assert torch.equal(first, again) and first.dtype == torch.float32 and 3 <= len(first) < len(lazy.splits.train)


def test_balanced_classes_are_equally_frequent():
    labels = torch.tensor([0] * 900 + [2] * 90 + [3] * 10)
    drawn = labels[torch.tensor(list(BalancedClasses(labels, 0)))]
    assert len(drawn) == 1000
    assert all(abs(int((drawn == label).sum()) - 333) < 60 for label in (0, 2, 3))
    sampler = BalancedClasses(labels, 0)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    torch.manual_seed(1)
    unseeded = list(BalancedClasses(labels, None))
    torch.manual_seed(1)
    assert unseeded == list(BalancedClasses(labels, None))


def test_rare_classes_are_drawn_as_often(task):
    data = TaskData(split(task), 8, sampler='balanced')
    assert isinstance(data.train_dataloader().sampler, BalancedClasses)
    assert len(list(data.train_dataloader())) == len(data.splits.train) // 8


@pytest.mark.parametrize('sampler', ['shuffle', 'balanced'])
@pytest.mark.parametrize('task', [make_task(), lazily(make_task())], ids=['memory', 'disk'])
def test_batches_are_the_same_with_any_number_of_workers(task, sampler):
    """Also where others draw between the beginning of an epoch and its first batch, as the loader of the alphas does."""
    found = []
    for workers in (0, 1, 2):
        data = TaskData(split(task), 4, workers=Workers(workers), sampler=sampler)
        loader, alphas = data.train_dataloader(), data.arc_dataloader()
        torch.manual_seed(0)
        epochs = []
        for _ in range(2):
            batches, _ = iter(loader), iter(alphas)
            epochs += [(*next(batches), torch.rand(())), *((*batch, torch.rand(())) for batch in batches)]
        found.append(epochs)
    for other in found[1:]:
        assert len(other) == len(found[0]) > 2
        assert all(torch.equal(a, b) for x, y in zip(found[0], other, strict=True) for a, b in zip(x, y, strict=True))
