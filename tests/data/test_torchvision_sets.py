"""Datasets of torchvision in their own files, read by torchvision's own classes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from helpers.tiny import ROOT
from PIL import Image

from nni_warmstart.data import from_torchvision
from nni_warmstart.data.lazy import LazyImages
from nni_warmstart.errors import DataError

sys.path.insert(0, str(ROOT))

from benchmarks.data.images import cifar10, made_by


def save(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (20, 16), (40 * label, 0, 0)).save(path)


def food101(root, n=4):
    for part in ('train', 'test'):
        named = {kind: [f'{kind}/{part}{number}' for number in range(n)] for kind in ('pasta', 'soup')}
        for label, kind in enumerate(named):
            for name in named[kind]:
                save(root / 'food-101' / 'images' / f'{name}.jpg', label)
        (root / 'food-101' / 'meta').mkdir(exist_ok=True)
        (root / 'food-101' / 'meta' / f'{part}.json').write_text(json.dumps(named))


def pets(root, n=4):
    annotations = root / 'oxford-iiit-pet' / 'annotations'
    annotations.mkdir(parents=True)
    for part in ('trainval', 'test'):
        lines = []
        for label, kind in enumerate(('pug', 'siamese')):
            for number in range(n):
                save(root / 'oxford-iiit-pet' / 'images' / f'{kind}_{part}{number}.jpg', label)
                lines.append(f'{kind}_{part}{number} {label + 1} {label + 1} 1')
        (annotations / f'{part}.txt').write_text('\n'.join(lines))


def imagenette(root, n=4):
    for part in ('train', 'val'):
        for label, wnid in enumerate(('n01440764', 'n02102040')):
            for number in range(n):
                save(root / 'imagenette2' / part / wnid / f'{number}.JPEG', label)


@pytest.mark.parametrize(('name', 'write'), [('Food101', food101), ('OxfordIIITPet', pets), ('Imagenette', imagenette)])
@pytest.mark.parametrize('cache_mb', [512, 0])
def test_datasets_with_a_split_are_read_where_they_are_used(tmp_path, caplog, name, write, cache_mb):
    write(tmp_path)
    task = from_torchvision(name, tmp_path, side=8, cache_mb=cache_mb)
    assert isinstance(task.train_x, LazyImages) == (cache_mb == 0)
    assert task.train_x.shape == task.test_x.shape == (8, 3, 8, 8)
    for x, y in ((task.train_x, task.train_y), (task.test_x, task.test_y)):
        assert sorted(y.tolist()) == [0] * 4 + [1] * 4
        assert ((x[:][:, 0].float() - 40.0 * y.view(-1, 1, 1)).abs() < 3).all()
    assert len(task.class_names) >= 2
    assert 'has no attribute' not in caplog.text  # no image is read for its class


def test_a_dataset_without_files_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r'Food101 is not under .* Set download: true') as caught:
        from_torchvision('Food101', tmp_path)
    assert '\n' not in str(caught.value)


def test_cifar10_in_its_own_files(tmp_path, monkeypatch):
    cifar10(tmp_path, 100)
    with monkeypatch.context() as patched:
        for key, value in made_by(tmp_path).items():
            patched.setattr(f'torchvision.datasets.CIFAR10.{key}', value)
        task = from_torchvision('CIFAR10', tmp_path)
    assert task.train_x.shape == (100, 3, 32, 32) and task.train_x.dtype == torch.uint8
    assert np.bincount(task.train_y).tolist() == [10] * 10 and task.class_names[3] == 'class 3'
    with pytest.raises(DataError, match=r'CIFAR10 is not under .*corrupted'):  # by torchvision's own check
        from_torchvision('CIFAR10', tmp_path)
