"""Sketches: what they keep of a dataset, whatever its form; what a supernet's file keeps of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from helpers.tiny import OwnSpace, make_task, small_space
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from nni_warmstart import DataError, DatasetSketch, Supernet, SupernetFileError, dataset_distance
from nni_warmstart.distance import sketch as sketch_module
from nni_warmstart.distance.embeddings import EMBEDDINGS
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.supernets.file_format import pack, unpack


@pytest.mark.parametrize('embedding', ['pixels', 'random_conv'])
def test_forms_of_one_dataset_give_one_sketch(embedding, task):
    x, y = task.train_x, task.train_y
    forms = [
        task,
        (x, y),
        (x.numpy(), y.numpy()),
        (x.permute(0, 2, 3, 1).numpy(), y.numpy()),  # channels last
        TensorDataset((x.float() - 100) / 7, y),  # normalised: sketches are standardised
        DataLoader(TensorDataset(x, y), batch_size=7),
    ]
    first, *others = [DatasetSketch.from_dataset(form, embedding=embedding) for form in forms]
    for other in others:
        assert torch.allclose(first.means, other.means, atol=1e-4)
        assert torch.allclose(first.covariances(), other.covariances(), atol=1e-3)


def test_sizes_channels_and_classes_share_one_dimension():
    tasks = [make_task(classes=2, side=8), make_task(classes=4, side=20)]
    grey = (tasks[0].train_x.float().mean(1, keepdim=True), tasks[0].train_y)
    sketches = [DatasetSketch.from_dataset(each) for each in (*tasks, grey)]
    assert {sketch.dimension for sketch in sketches} == {64}
    assert dataset_distance(sketches[0], sketches[1]).label_coupling.shape == (2, 4)


def test_statistics_are_of_the_whole_dataset_and_samples_stratified():
    x, y = torch.randn(300, 6, dtype=torch.float64), torch.arange(300) % 3
    y[0] = 3  # a class with one sample
    sketch = DatasetSketch.from_dataset((x, y), max_samples=30)
    assert sketch.counts.tolist() == [99, 100, 100, 1]
    assert torch.allclose(sketch.covariances()[1], torch.from_numpy(np.cov(x[y == 1].numpy().T)))
    assert len(sketch.samples) == 30
    assert sketch.labels.bincount().tolist() == [9, 10, 10, 1] or sketch.labels.bincount().min() == 1
    again, other = (DatasetSketch.from_dataset((x, y), max_samples=30, seed=seed) for seed in (0, 1))
    assert torch.equal(again.samples, sketch.samples)
    assert not torch.equal(other.samples, sketch.samples)


def test_of_many_pictures_some_are_embedded(task, monkeypatch):
    monkeypatch.setattr(sketch_module, 'EMBEDDED', 20)
    seen = []
    sketch = DatasetSketch.from_dataset(
        (task.train_x, task.train_y + 2),
        embedding=named(lambda x: seen.append(len(x)) or x.float().flatten(1)),
        max_samples=10,
    )
    assert seen == [20]
    assert sketch.classes.tolist() == [2, 3, 4] and sketch.counts.tolist() == [12, 12, 12]
    assert len(sketch.samples) == 10


def test_a_function_is_an_embedding(task):
    def brightness(x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((2, 3))

    sketch = DatasetSketch.from_dataset(task, embedding=brightness)
    assert sketch.embedding == 'brightness' and sketch.dimension == 3
    with pytest.raises(DataError, match="embedding 'brightness' gave a int"):
        DatasetSketch.from_dataset(task, embedding=named(lambda x: 3))
    with pytest.raises(DataError, match='one row for each'):
        DatasetSketch.from_dataset(task, embedding=named(lambda x: x.float().mean((1, 2, 3))))


def test_two_functions_without_a_name_are_two_embeddings(task):
    """Lambdas and networks: a name that says nothing is no identity."""
    first, second = (DatasetSketch.from_dataset(task, embedding=lambda x, k=k: k * x.float().mean((2, 3))) for k in (1, 2))
    with pytest.raises(DataError, match='have different embeddings'):
        dataset_distance(first, second)
    network = torch.nn.Sequential(torch.nn.Flatten())
    network.features = torch.nn.Flatten()  # as torchvision's have: no supernet for all that
    network.forward = lambda x: x.float().flatten(1)
    assert DatasetSketch.from_dataset(task, embedding=network).dimension == 192


def test_one_method_of_two_networks_is_two_embeddings(task):
    class Scaled(torch.nn.Module):
        def __init__(self, scale: int) -> None:
            super().__init__()
            self.scale = scale

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x.float().mean((2, 3))

    one, other = Scaled(1), Scaled(100)
    first, again, second = (DatasetSketch.from_dataset(task, embedding=each.encode) for each in (one, one, other))
    assert dataset_distance(first, again).value == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match='have different embeddings'):
        dataset_distance(first, second)


def test_pictures_that_are_no_tensors():
    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int):
            return Image.new('RGB', (8, 8)), index % 2

    with pytest.raises(DataError, match=r'Pictures does not give tensors .*; add transforms'):
        DatasetSketch.from_dataset(Pictures())


def named(function):
    function.__name__ = 'brightness'
    return function


def test_two_functions_of_one_factory_are_two_embeddings(task):
    def scaled(by):
        def features(x):
            return by * x.float().mean((2, 3))

        return features

    one, other = scaled(1), scaled(2)
    first, again, second = (DatasetSketch.from_dataset(task, embedding=each) for each in (one, one, other))
    assert first.embedding == again.embedding != second.embedding


def test_a_supernet_is_an_embedding(task):
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one')
    sketch = DatasetSketch.from_dataset(task, embedding=supernet)
    assert sketch.embedding == supernet.key
    assert sketch.dimension == 16  # four times the stem's width


def test_unknown_embeddings_are_refused(task, monkeypatch, tmp_path):
    with pytest.raises(DataError, match="embedding 'best' is unknown"):
        DatasetSketch.from_dataset(task, embedding='best')
    with pytest.raises(DataError, match='must be a name'):
        DatasetSketch.from_dataset(task, embedding=3)  # type: ignore[arg-type]
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(DataError, match='fetch them with'):
        DatasetSketch.from_dataset(task, embedding='resnet18')


def test_resnet18_runs_when_its_weights_are_on_disk(task, monkeypatch, tmp_path):
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    path = tmp_path / 'hub' / 'checkpoints' / ResNet18_Weights.DEFAULT.url.rpartition('/')[2]
    path.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), path)  # random weights in the place of the pretrained ones
    assert DatasetSketch.from_dataset(task, embedding='resnet18').dimension == 512


def test_broken_pictures_are_refused(task):
    x = task.train_x.float()
    x[2, 0, 0, 0] = float('nan')
    with pytest.raises(DataError, match='NaN or infinite pixels'):
        DatasetSketch.from_dataset((x, task.train_y))


def test_compact_sketches_stay_close():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(900) % 9
    sets = [
        (torch.randn(900, 64, generator=generator) * torch.rand(64, generator=generator) + y[:, None] * k, y) for k in (1, 2)
    ]
    full = [DatasetSketch.from_dataset(each) for each in sets]
    small = [each.compact() for each in full]
    assert sum(t.numel() * t.element_size() for t in small[0].to_tensors().values()) < 45_000
    assert torch.allclose(
        small[0].covariances().diagonal(0, 1, 2).sum(1), full[0].covariances().diagonal(0, 1, 2).sum(1), rtol=1e-2
    )
    assert dataset_distance(*small).value == pytest.approx(dataset_distance(*full).value, rel=0.1)


@pytest.mark.slow
def test_wide_features_are_compact_without_square_matrices(monkeypatch):
    """A thousand classes of 2,048 features would be 34 GB of covariances."""
    x = torch.randn(120, 900, generator=torch.Generator().manual_seed(0))
    sketch = DatasetSketch.from_dataset((x, torch.arange(120) % 30))
    expected, values = sketch.covariances(), torch.linalg.eigvalsh(sketch.covariances())
    monkeypatch.setattr(DatasetSketch, 'covariances', lambda _: pytest.fail('made square matrices'))
    small = sketch.compact(kilobytes=400)
    rank = small.factors.shape[2]
    traces = small.factors.double().square().sum((1, 2)) + 900 * small.remainders.double()
    assert torch.allclose(traces, expected.diagonal(0, 1, 2).sum(1), rtol=1e-3)
    assert torch.allclose(small.remainders.double(), values[:, :-rank].mean(1), rtol=1e-3)
    once, twice = (each.factors.double() @ each.factors.double().mT for each in (small, small.compact(kilobytes=400)))
    assert torch.allclose(once, twice, atol=1e-2)  # of half precision


def test_large_features_do_not_overflow():
    x = 1e6 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    sketch = DatasetSketch.from_dataset((x, torch.arange(40) % 2))
    assert torch.isfinite(sketch.compact().samples).all()
    assert dataset_distance(sketch.compact(), sketch).value < 1e6


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8])
def test_features_may_be_whole_numbers(dtype):
    x, y = torch.arange(120).view(40, 3), torch.arange(40) % 2
    whole, exact = (DatasetSketch.from_dataset((each, y)) for each in (x.to(dtype), x.float()))
    assert torch.equal(whole.compact().samples, exact.compact().samples)


def test_what_cannot_be_sketched_is_named_and_nothing_lost(caplog):
    """Data of two channels: a supernet without those sketches is still a supernet."""
    data = (torch.randn(20, 2, 8, 8), torch.arange(20) % 3)
    with caplog.at_level(logging.WARNING):
        supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', dataset=data)
    assert supernet.sketches == {}
    assert 'No sketch of one by random_conv' in caplog.text
    Supernet.from_bytes(supernet.to_bytes())


def test_a_space_that_asserts_stops_nothing(task, caplog):
    class Strict(OwnSpace):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1:] == (3, 16, 16), 'wrong size'
            return super().forward(x)

    supernet = Supernet.from_model(mutate(Strict(), 'DARTS'), name='strict', dataset=task)
    assert set(supernet.sketches) == set(EMBEDDINGS)
    assert 'wrong size' in caplog.text


def test_samples_that_come_once_are_refused(task):
    once = ((task.train_x[:9], task.train_y[:9]) for _ in range(3))
    with pytest.raises(DataError, match='dataset is a generator, which gives its samples once; pass a list or a loader'):
        Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', dataset=once)


def test_supernets_keep_sketches_of_their_data(task, tmp_path):
    model = mutate(small_space(), 'DARTS')
    supernet = Supernet.from_model(model, name='one', dataset=task)
    assert set(supernet.sketches) == {*EMBEDDINGS, supernet.key}
    supernet.save(tmp_path / 'one.safetensors')
    loaded = Supernet.load(tmp_path / 'one.safetensors')
    for key, sketch in supernet.sketches.items():
        for part, tensor in sketch.to_tensors().items():
            assert torch.equal(tensor, loaded.sketches[key].to_tensors()[part])
    assert loaded.tensors.keys() == supernet.tensors.keys()
    assert loaded.key == supernet.key
    loaded.build()


def test_own_spaces_are_sketched_too(task):
    supernet = Supernet.from_model(mutate(OwnSpace(), 'DARTS'), name='own', dataset=(task.train_x.float(), task.train_y))
    assert supernet.sketches[supernet.key].dimension == 6


def test_files_without_sketches_load(tmp_path):
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one')
    card = {key: value for key, value in supernet.card.items() if key != 'sketches'}
    assert Supernet.from_bytes(pack(supernet.tensors, card)).sketches == {}


def test_damaged_sketches_are_refused(task):
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', dataset=task)
    tensors, card = unpack(supernet.to_bytes(), 'file')
    with pytest.raises(SupernetFileError, match='has no means'):
        Supernet.from_bytes(pack({k: v for k, v in tensors.items() if k != 'sketch/0/means'}, card))
    with pytest.raises(SupernetFileError, match='do not fit together'):
        Supernet.from_bytes(pack({**tensors, 'sketch/0/means': torch.zeros(1, 3)}, card))
