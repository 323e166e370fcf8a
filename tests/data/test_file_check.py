"""Dirty folders: all that is wrong is found before anything is trained, and left out if that is wanted."""

from __future__ import annotations

import io
import os
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from test_lazy import image_folder
from torch.utils.data import DataLoader

from nni_warmstart.data import from_folder
from nni_warmstart.errors import DataError


def spoil(path):
    """Six kinds of files that cannot be read; returns their names."""
    train = path / 'train' / 'class0'
    whole = next(iter(sorted(train.iterdir()))).read_bytes()
    (train / 'text.png').write_text('no image')
    (train / 'empty.jpg').write_bytes(b'')
    (train / 'cut.png').write_bytes(whole[: len(whole) // 2])
    Image.effect_noise((64, 64), 50).save(train / 'photo.jpg')
    (train / 'photo.jpg').write_bytes((train / 'photo.jpg').read_bytes()[:-200])
    Image.new('F', (8, 8)).save(train / 'float.tif')
    (path / 'test' / 'class1' / 'bad.png').write_bytes(b'\x89PNG')
    return ['text.png', 'empty.jpg', 'cut.png', 'photo.jpg', 'float.tif', 'bad.png']


@pytest.mark.parametrize('cache_mb', [512, 0])
def test_all_unreadable_files_are_named_at_once(tmp_path, cache_mb, caplog):
    names = spoil(image_folder(tmp_path))
    with pytest.raises(DataError, match='6 images cannot be read, such as ') as caught:
        from_folder(tmp_path, side=8, cache_mb=cache_mb)
    assert all(f'{name} (' in caplog.text for name in names)
    assert 'repair or remove them, or set data.on_error: skip' in str(caught.value) and '\n' not in str(caught.value)
    task = from_folder(tmp_path, side=8, cache_mb=cache_mb, on_error='skip')
    assert (len(task.train_x), len(task.test_x)) == (40, 40) and len(task.train_y) == 40
    assert '6 unreadable images are left out' in caplog.text
    assert len(task.train_x[:]) == 40


def test_many_unreadable_files_are_counted(tmp_path, caplog):
    image_folder(tmp_path)
    for number in range(30):
        (tmp_path / 'train' / 'class0' / f'bad{number}.png').write_bytes(b'')
    with pytest.raises(DataError, match='30 images cannot be read, such as '):
        from_folder(tmp_path, side=8)
    assert caplog.text.count('bad') == 20 and 'and 10 others' in caplog.text


def test_what_only_decoding_shows(tmp_path, monkeypatch, caplog):
    """A damage in the middle, which header and end do not show."""
    image_folder(tmp_path, n=8)
    file = tmp_path / 'train' / 'class0' / '000.png'
    content = bytearray(file.read_bytes())
    content[60:90] = bytes(30)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r'000\.png cannot be read'):
        from_folder(tmp_path, side=8)
    assert len(from_folder(tmp_path, side=8, on_error='skip').train_x) == 7
    lazy = from_folder(tmp_path, side=8, cache_mb=0).train_x
    dataset = [(lazy, position) for position in range(8)]
    with pytest.raises(DataError, match=r'^image .*000\.png cannot be read \(.*\); repair or remove it\.$'):
        next(iter(DataLoader(dataset, 1, num_workers=1, collate_fn=_read)))  # in one line from a worker, too


def _read(samples):
    return [lazy[position] for lazy, position in samples]


def test_training_images_that_are_test_images(tmp_path, caplog):
    image_folder(tmp_path, n=8, parts=('train',))
    shutil.copytree(tmp_path / 'train' / 'class1', tmp_path / 'test' / 'class1')
    Image.new('RGB', (8, 8)).save(tmp_path / 'test' / 'class1' / 'own.png')
    from_folder(tmp_path, side=8, cache_mb=0)
    assert '4 training images are test images as well, and make the test too good; remove them' in caplog.text
    with pytest.raises(DataError, match='has one class'):  # all of class1
        from_folder(tmp_path, side=8, cache_mb=0, on_error='skip')
    shutil.rmtree(tmp_path / 'test')
    (tmp_path / 'test' / 'class1').mkdir(parents=True)
    shutil.copy(tmp_path / 'train' / 'class1' / '001.png', tmp_path / 'test' / 'class1' / 'copy.png')
    assert len(from_folder(tmp_path, side=8, cache_mb=0, on_error='skip').train_x) == 7


def test_classes_with_a_single_image(tmp_path, caplog):
    image_folder(tmp_path, n=8)
    for part in ('train', 'test'):
        (tmp_path / part / 'rare').mkdir()
        Image.new('RGB', (8, 8), (len(part), 9, 9)).save(tmp_path / part / 'rare' / 'one.png')
    assert from_folder(tmp_path, side=8).num_classes == 3
    assert 'classes with a single image cannot be split; add some' in caplog.text
    task = from_folder(tmp_path, side=8, on_error='skip')
    assert task.class_names == ('class0', 'class1') and len(task.test_x) == 8


def test_files_that_are_cut_where_their_end_could_be(tmp_path, caplog):
    image_folder(tmp_path, n=8)
    rng, photo = np.random.default_rng(0), Image.effect_noise((64, 64), 50)
    noise = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(noise, 'GIF')
    (tmp_path / 'train' / 'class0' / 'cut.gif').write_bytes(noise.getvalue()[: len(noise.getvalue()) * 2 // 3])
    (tmp_path / 'train' / 'class0' / 'padded.gif').write_bytes(noise.getvalue() + bytes(9))
    thumbnail = io.BytesIO()
    photo.save(thumbnail, 'JPEG')
    photo.save(tmp_path / 'train' / 'class0' / 'cut.jpg', comment=thumbnail.getvalue()[-500:])
    content = (tmp_path / 'train' / 'class0' / 'cut.jpg').read_bytes()
    (tmp_path / 'train' / 'class0' / 'cut.jpg').write_bytes(content[: content.index(b'\xff\xd9') + 400])
    assert len(from_folder(tmp_path, side=8, cache_mb=0, on_error='skip').train_x) == 9
    assert '2 unreadable images are left out' in caplog.text and 'padded.gif' not in caplog.text


def test_classes_without_images_are_left_out(tmp_path, caplog):
    image_folder(tmp_path, n=8)
    shutil.copytree(tmp_path / 'test' / 'class0', tmp_path / 'test' / 'a')
    for name in ('train/a', 'train/none', 'test/none'):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match='has no images in class folders: none for a, none'):
        from_folder(tmp_path, side=8)
    task = from_folder(tmp_path, side=8, on_error='skip')
    assert task.class_names == ('class0', 'class1') and len(task.test_x) == 8
    assert 'train: classes without images are left out: a, none.' in caplog.text


def test_the_order_of_files_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    image_folder(tmp_path)
    expected = from_folder(tmp_path, side=8, cache_mb=0)
    scan = os.scandir

    class Shuffled:
        def __init__(self, path):
            with scan(path) as entries:
                self.entries = list(entries)
            random.shuffle(self.entries)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(os, 'scandir', Shuffled)
    found = from_folder(tmp_path, side=8, cache_mb=0)
    assert torch.equal(found.train_x[:], expected.train_x[:]) and torch.equal(found.train_y, expected.train_y)


def test_nothing_but_damaged_files(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / '0.png').write_bytes(b'')
    with pytest.raises(DataError, match='has no images that can be used'):
        from_folder(tmp_path, on_error='skip')


def test_classes_with_a_single_image_that_decodes(tmp_path, caplog):
    image_folder(tmp_path, n=8)
    for part in ('train', 'test'):
        (tmp_path / part / 'rare').mkdir()
        for name in ('one', 'two'):
            Image.effect_noise((8, 8), 90).save(tmp_path / part / 'rare' / f'{name}.png')
    file = tmp_path / 'train' / 'rare' / 'two.png'
    content = bytearray(file.read_bytes())
    content[60:90] = bytes(30)
    file.write_bytes(content)
    task = from_folder(tmp_path, side=8, on_error='skip')
    assert task.class_names == ('class0', 'class1')
    assert (len(task.train_x), len(task.test_x)) == (8, 8) == (len(task.train_y), len(task.test_y))
    assert 'classes with a single image are left out: rare' in caplog.text
