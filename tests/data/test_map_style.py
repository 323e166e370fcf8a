"""Torch datasets of the user's own: their classes, the names of these, and their images as they are given."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets import ImageFolder

from nni_warmstart.data.map_style import from_dataset, from_parts
from nni_warmstart.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate('abcd'):
        (tmp_path / name).mkdir()
        Image.new('RGB', (8, 8), (60 * number,) * 3).save(tmp_path / name / '0.png')
    return tmp_path


class Own(Dataset):
    """Keeps classes from 1 on, and gives them from 0 on."""

    classes = 3

    def __init__(self, images) -> None:
        self.images, self.targets = images, list(range(1, len(images) + 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index] - 1


def test_labels_are_those_that_a_dataset_gives(folder):
    _, labels, names = from_dataset(ImageFolder(folder), 'own', 8, 1)
    assert (labels.tolist(), names) == ([0, 1, 2, 3], list('abcd'))
    halved = ImageFolder(folder, target_transform=lambda label: label // 2)
    assert from_dataset(halved, 'own', 8, 1)[1:] == (pytest.approx([0, 0, 1, 1]), [])
    _, labels, names = from_dataset(Own([torch.zeros(3, 8, 8)] * 3), 'own', 8, 1)
    assert (labels.tolist(), names) == ([0, 1, 2], [])
    assert from_dataset(Subset(ImageFolder(folder), [2, 0]), 'own', 8, 1)[2] == list('abcd')


class Changed(ImageFolder):
    """Gives other classes than it keeps, but not for the first image."""

    given: tuple[float, ...] = (0, 1, 0, 1)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, self.given[label]


def test_labels_are_compared_where_images_are_read(folder):
    images, _, _ = from_dataset(Changed(folder), 'own', 8, 1)  # the first is as it is kept
    with pytest.raises(DataError, match=r'sample 2 of the Changed has the class 0, and its targets or .* say 2'):
        images[:]


def test_labels_that_are_no_whole_numbers_are_refused(folder, monkeypatch):
    monkeypatch.setattr(Changed, 'given', (0, 1, 1.7, 0))
    with pytest.raises(DataError, match=r'sample 2 of the Changed cannot be read \(there is the label 1\.7\)'):
        from_dataset(Changed(folder), 'own', 8, 1)[0][:]
    unknown = Changed(folder, target_transform=int)
    with pytest.raises(DataError, match=r'own gives no pairs of an image and a whole number \(there is the label 1\.7\)'):
        from_dataset(unknown, 'own', 8, 1)


def test_test_images_have_the_classes_of_the_same_names(folder, tmp_path_factory, caplog):
    test = tmp_path_factory.mktemp('test')
    for name in 'bd':
        shutil.copytree(folder / name, test / name)
    Image.new('RGB', (8, 8), (9, 9, 9)).save(test / 'b' / '1.png')
    train = Subset(ImageFolder(folder), range(4))
    task = from_parts([train, ImageFolder(test)], 'own', 8, 1)
    assert task.class_names == tuple('abcd') and task.test_y.tolist() == [1, 1, 3]
    assert 'own has no test images of a, c; accuracies on it are of the others.' in caplog.text
    (test / 'b').rename(test / 'e')
    with pytest.raises(DataError, match='own has test classes that the training images lack: e'):
        from_parts([train, ImageFolder(test)], 'own', 8, 1)


def test_images_of_other_units_are_refused():
    images, _, _ = from_dataset(Own([np.full((8, 8, 3), 9, np.uint8), np.full((8, 8, 3), 0.5, np.float32)]), 'own', 8, 1)
    with pytest.raises(DataError, match='sample 1 has an image of floating-point numbers, and sample 0 one of whole'):
        images[:]


def test_images_that_a_dataset_keeps_stay_as_they_are():
    image = Image.new('RGB', (8, 4))
    exif = image.getexif()
    exif[274] = 6  # to be turned
    image.info['exif'] = exif.tobytes()
    kept = [image, image]
    from_dataset(Own(kept), 'own', 8, 1)[0][:]
    assert kept[0].size == (8, 4)
