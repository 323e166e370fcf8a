"""One reader for all forms of labelled data, and what is made of what it reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tiny import make_task
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from nni_warmstart import DataError, TransferError
from nni_warmstart.data import image_shape, labelled
from nni_warmstart.data.batches import Wording, batches_of
from nni_warmstart.data.dataset_part import random_part
from nni_warmstart.data.labelled import first_batches, read_labelled, read_sample

PLAIN = Wording(DataError, form='{name}: form {kind}', pair='{name}: pair', values='{name}: values {reason}')


class Noise(Dataset):
    """Draws its images when they are asked for."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int):
        return torch.rand(3, 6, 6), index % 2


class Photographs(Dataset):
    """PIL images, as torchvision gives them without transforms."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return Image.new('RGB', (8, 8), (index, 0, 0)), index % 2


def forms() -> dict:
    task = make_task()
    x, y = task.train_x, task.train_y
    return {
        'task': task,
        'tensors': (x, y),
        'arrays': (x.numpy(), y.numpy()),
        'mirrored twice': (x.flip(0).numpy()[::-1], y.flip(0).numpy()[::-1]),
        'big endian': (x.numpy(), y.numpy().astype('>i8')),
        'dataset': TensorDataset(x, y),
        'loader': DataLoader(TensorDataset(x, y), 7),
        'list': list(zip(x.split(5), y.split(5), strict=True)),
        'two batches': ((x[:9], y[:9]), (x[9:], y[9:])),
    }


@pytest.mark.parametrize('form', forms())
def test_all_forms_are_read_alike(form):
    task, data = make_task(), forms()[form]
    x, y = (torch.cat(part) for part in zip(*batches_of(data, 'data', PLAIN), strict=True))
    assert torch.equal(x, task.train_x) and torch.equal(y, task.train_y)
    for x, y in (read_labelled(data, 'data', 0, 0), map(torch.cat, zip(*first_batches(data, 1000), strict=True))):
        assert torch.equal(x, task.train_x) and torch.equal(y, task.train_y)
    assert image_shape(data) == (3, 8)
    if form not in ('loader', 'list'):  # a task is of data in memory
        made = labelled('data', data)
        assert torch.equal(made.train_x, task.train_x) and torch.equal(made.train_y, task.train_y)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (3, 'data: form int'),
        ([torch.zeros(2, 3, 5, 5)], 'data: pair'),
        ([{'x': torch.zeros(2), 'y': torch.zeros(2)}], 'data: pair'),
        ((torch.zeros(2), None), 'data: pair'),
        ((torch.zeros(2), ['a', 'b']), 'data: values'),
        (([[1], [2, 3]], [0, 1]), 'data: values'),
    ],
)
def test_what_cannot_be_read_is_refused_in_the_words_of_who_reads(data, message):
    with pytest.raises(DataError, match=message):
        list(batches_of(data, 'data', PLAIN))


def test_transfers_refuse_in_their_own_class():
    for data in (3, [torch.zeros(2, 3, 5, 5)], (torch.zeros(2), ['a', 'b'])):
        with pytest.raises(TransferError, match=r'data must give batches \(inputs, classes\) of two tensors'):
            first_batches(data, 8)


def test_faults_of_a_users_own_loader_are_not_hidden():
    def broken():
        yield torch.zeros(2, 4), torch.arange(2)
        raise RuntimeError('the disk is gone')

    with pytest.raises(RuntimeError, match='the disk is gone'):
        first_batches(broken(), 8)
    with pytest.raises(DataError, match='the disk is gone'):
        read_labelled(broken(), 'data', 0, 0)


def test_reading_a_shape_or_all_draws_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    image_shape(Noise())
    read_labelled(Noise(), 'noise', 3, 8)
    image_shape(DataLoader(Noise(), 4, shuffle=True))
    labelled('fixed', TensorDataset(torch.rand(8, 3, 4, 4, generator=torch.Generator()), torch.arange(8) % 2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_task_has_the_images_that_a_dataset_draws():
    torch.manual_seed(0)
    drawn = labelled('noise', Noise()).train_x
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.stack([Noise()[index][0] for index in range(20)]))


def test_pil_images_have_a_shape_and_make_a_task():
    assert image_shape(Photographs()) == (3, 8)
    assert labelled('photographs', Photographs()).train_x[:, 0, 0, 0].tolist() == list(range(6))


def test_a_part_of_a_loader_in_order_is_mixed_by_a_seed_of_its_own():
    dataset = TensorDataset(torch.arange(40.0)[:, None], torch.arange(40))
    order = torch.cat([y for _, y in first_batches(DataLoader(dataset, 8), 16)])
    expected = [y for _, y in DataLoader(dataset, 8, shuffle=True, generator=torch.Generator().manual_seed(0))]
    assert torch.equal(order, torch.cat(expected[:2]))
    assert not np.array_equal(order, np.arange(16))


class Counted(Dataset):
    """Counts its images when they are asked for."""

    def __init__(self, **kept) -> None:
        self.x, self.y, self.reads = make_task(n=80).train_x, make_task(n=80).train_y, 0
        vars(self).update(kept)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int):
        self.reads += 1
        return self.x[index], int(self.y[index])


@pytest.mark.parametrize('form', ['dataset', 'loader', 'subset'])
def test_of_a_dataset_that_keeps_its_labels_a_sample_is_read(form):
    data = Counted(targets=make_task(n=80).train_y.tolist())
    forms = {'dataset': data, 'loader': DataLoader(data, 7, shuffle=True), 'subset': Subset(data, range(60))}
    found = read_sample(forms[form], 'data', 3, 8, 12, seed=0)
    expected = read_sample((data.x, data.y), 'data', 3, 8, 12, seed=0)
    assert data.reads == 12
    assert all(map(torch.equal, found, expected))


def test_labels_are_those_that_are_given_and_of_the_samples_that_are_drawn():
    data = Counted(targets=[0] * 60)
    x, y = read_sample((data.x, data.y), 'data', 3, 8, 30, seed=0)[:2]
    assert all(map(torch.equal, read_sample(data, 'data', 3, 8, 30, seed=0), (x, y, data.y)))
    half = DataLoader(Counted(targets=data.y.tolist()), 5, sampler=SubsetRandomSampler(range(30)))
    assert read_sample(half, 'data', 3, 8, 12, seed=0)[2].bincount().tolist() == [10, 10, 10]


def test_what_keeps_no_labels_is_read_in_bounded_memory(monkeypatch):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from Counted(y=torch.tensor([0] * 59 + [7]))

    at_once, joined = [], torch.cat

    def noting(parts):
        if parts[0].ndim == 4:
            at_once.append(sum(map(len, parts)))
        return joined(parts)

    data = DataLoader(Stream(), 5)
    expected = read_sample(data, 'data', 3, 8, 12, seed=0)
    assert len(expected[0]) == 12 and expected[1].bincount()[[0, 7]].tolist() == [11, 1]
    assert expected[2].bincount()[[0, 7]].tolist() == [59, 1]
    monkeypatch.setattr(torch, 'cat', noting)
    assert all(map(torch.equal, read_sample(data, 'data', 3, 8, 12, seed=0), expected))
    assert max(at_once) <= 2 * 12 + 5
    assert not torch.equal(read_sample(data, 'data', 3, 8, 12, seed=1)[0], expected[0])


def test_a_random_part_of_parts_is_one_of_the_whole():
    labels, keys = torch.arange(40) // 39, torch.rand(40, generator=torch.Generator().manual_seed(0))
    whole = random_part(labels, keys, 8)
    before = random_part(labels[:25], keys[:25], 8)
    both = torch.cat([before, torch.arange(25, 40)])
    assert torch.equal(both[random_part(labels[both], keys[both], 8)], whole)
    assert 39 in whole and 8 <= len(whole) <= 9
