"""Copies of loaders and datasets: their state is their own, the data in them are shared."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.evaluator.pytorch import DataLoader
from torch.utils.data import BatchSampler, Dataset, RandomSampler, SequentialSampler

from nni_warmstart.search.loaders import apart
from nni_warmstart.utils import copies
from nni_warmstart.utils.copies import FAILURES, copied

N = 12


class Noisy(Dataset):
    """Counts and draws in every way that comes to mind."""

    def __init__(self) -> None:
        self.data, self.array = torch.arange(N * 1024.0).view(N, 1024), np.zeros(1024)
        self.count, self.counts, self.small = 0, {}, torch.zeros(1)
        self.generators = [
            np.random.default_rng(0), np.random.RandomState(0), random.Random(0), torch.Generator().manual_seed(0),
        ]  # fmt: skip
        self.lock = None
        self.function = lambda x: x + 1

    def __len__(self):
        return N

    def __getitem__(self, index):
        self.count += 1
        self.counts.setdefault(index, []).append(self.count)
        self.small += 1
        first, second, third, fourth = self.generators
        noise = first.random() + second.rand() + third.random() + torch.rand(1, generator=fourth).item()
        return self.function(self.data[index, 0]) + noise * self.count + self.small.item()


def loader(kind: str, workers: int = 0):
    """A loader that is another one each time it is iterated."""
    data, generator = Noisy(), torch.Generator().manual_seed(1)
    samplers = {
        'shuffle': {'shuffle': True},
        'generator': {'shuffle': True, 'generator': generator},
        'sampler': {'sampler': RandomSampler(range(N), generator=generator)},
        'batch sampler': {'batch_sampler': BatchSampler(RandomSampler(range(N), generator=generator), 3, False)},
        'order': {'sampler': SequentialSampler(range(N))},
    }
    size = {} if kind == 'batch sampler' else {'batch_size': 3}
    return DataLoader(data, num_workers=workers, persistent_workers=workers > 0, **size, **samplers[kind])


def read(batches, passes: int) -> list[float]:
    return [value for _ in range(passes) for batch in batches for value in batch.tolist()]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(['shuffle', 'generator', 'sampler', 'batch sampler', 'order']),
    st.lists(st.sampled_from(['read', 'copy', 'copy of a copy']), max_size=4),
)
def test_reading_copies_changes_nothing(kind, events):
    torch.manual_seed(0)
    untouched, original = loader(kind), loader(kind)
    state = torch.get_rng_state()
    expected, found = [], []
    for event in events:
        if event == 'read':
            torch.set_rng_state(state)
            expected += read(untouched, 1)
            torch.set_rng_state(state)
            ahead = read(apart(original), 1)
            torch.set_rng_state(state)
            now = read(original, 1)
            assert ahead == now  # a copy has the state of the original
            found += now
        else:
            read(apart(apart(original)) if event == 'copy of a copy' else apart(original), 2)
    torch.set_rng_state(state)
    expected += read(untouched, 1)
    torch.set_rng_state(state)
    assert found + read(original, 1) == expected


def test_large_data_are_shared_and_one_object_stays_one(monkeypatch):
    monkeypatch.setattr(copies, 'MOST_COPIED', 1024)
    original = loader('generator')
    twin = copied(original)
    assert twin.dataset.small is not original.dataset.small
    assert type(twin) is type(original)
    assert twin.dataset is not original.dataset
    assert twin.dataset.data is original.dataset.data
    assert twin.dataset.array is original.dataset.array
    assert twin.dataset.function is original.dataset.function
    assert twin.sampler.data_source is twin.dataset
    assert twin.sampler.generator is twin.generator


def test_a_loader_in_use_by_workers_has_a_copy_of_its_own():
    original = loader('order', workers=1)
    batches = iter(original)
    first = next(batches).tolist()
    assert read(copied(original), 1)[:3] == first
    assert len([*batches]) == N // 3 - 1
    assert copied(original)._iterator is None


def test_what_has_no_copy_is_shared_where_it_is_read_by_index():
    original = loader('order')
    original.dataset.lock = threading.Lock()
    with pytest.raises(FAILURES, match='lock'):
        copied(original)
    assert apart(original).dataset is original.dataset
    with pytest.raises(FAILURES):
        apart(iter(number for number in range(3)))
