"""Images and labels at hand, in any layout and of any type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from nni_warmstart import DataError
from nni_warmstart.data.given import as_classes, as_images, with_held_out
from nni_warmstart.data.task import checked_task

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 3, 8, 9), (5, 3, 8, 9)),
        ((5, 1, 8, 9), (5, 1, 8, 9)),
        ((5, 3, 8), (5, 1, 3, 8)),
    ],
)
@pytest.mark.parametrize('dtype', [np.uint8, np.float64, np.int64, bool])
def test_layouts(shape, expected, dtype):
    x = RNG.integers(0, 2, shape).astype(dtype)
    images = as_images(x, 16)
    assert images.shape == expected
    assert images.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    for same in (x.tolist() if dtype != np.uint8 else x, torch.from_numpy(x)):
        assert torch.equal(as_images(same, 16), images)
    assert images.double().sum() == x.sum()


def test_the_pixels_are_where_they_were():
    x = RNG.integers(0, 255, (2, 6, 7, 3), dtype=np.uint8)
    assert torch.equal(as_images(x, 16), as_images(x.transpose(0, 3, 1, 2), 16))
    assert as_images(x, 16)[1, 2, 4, 5] == x[1, 4, 5, 2]


@pytest.mark.parametrize(
    ('x', 'message'),
    [
        (np.zeros((4, 64)), r'X has shape \(4, 64\); needed is \(n, height, width\) for grey images'),
        (np.zeros(4), r'X has shape \(4,\); needed is'),
        (np.zeros((1, 2, 3, 4, 5)), r'X has shape \(1, 2, 3, 4, 5\); needed is'),
        (np.zeros((4, 8, 8, 4)), r'X: images have shape \(4, 8, 8, 4\); needed is'),
        (np.zeros((4, 3, 8, 1)), r'X has shape \(4, 3, 8, 1\), in which the channels may come first or last; give'),
        (np.zeros((4, 3, 3, 3)), 'may come first or last'),
        (np.zeros((0, 8, 8)), 'X is empty'),
        (np.zeros((2, 0, 8)), 'a pixel at least'),
        (np.full((3, 8, 8), np.nan), 'X has NaN or infinite pixels in 3 images'),
        (np.full((3, 8, 8), 1e300), 'X has NaN or infinite pixels in 3 images'),
        (np.zeros((2, 8, 8), complex), 'type complex128; needed are numbers'),
        (np.full((2, 8, 8), 'a'), 'needed are numbers'),
        ([[[1, 2], [3]], [[1]]], 'X is no array of images of one size'),
        (None, r'X has shape \(\)'),
        ([], r'X has shape \(0,\)'),
        ('folder', "X = 'folder' is one path"),
        (np.zeros((16, 16, 3)), r'X has shape \(16, 16, 3\), which is that of one image; give X\[None\]'),
        (Image.new('RGB', (8, 8)), r'X is one image; give a list of images, \[X\]'),
        (['nowhere.png'], 'nowhere.png'),
    ],
)
def test_what_are_no_images(x, message):
    with pytest.raises(DataError, match=message) as error:
        as_images(x, 8)
    assert '\n' not in str(error.value)


def test_files(tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f'{number}.png')
        Image.fromarray(np.full((20, 30, 3), 50 * number, np.uint8)).save(paths[-1])
    images = as_images(paths, 8)
    assert images.shape == (3, 3, 8, 8) and images.flatten(1).float().mean(1).tolist() == [0, 50, 100]
    assert torch.equal(as_images(list(map(str, paths)), 8), images)
    (tmp_path / '1.png').write_bytes(b'no image')
    with pytest.raises(DataError, match=r'1\.png'):
        as_images(paths, 8)


def test_images_with_a_palette_have_colours():
    image = Image.fromarray(RNG.integers(0, 2, (8, 8, 3), dtype=np.uint8) * 255).convert('P')
    assert torch.equal(as_images([image], 8), as_images([np.asarray(image.convert('RGB'))], 8))


@settings(max_examples=30, deadline=None)
@given(
    some.one_of(
        some.lists(some.integers(-5, 5), min_size=1), some.lists(some.text(max_size=3), min_size=1),
        some.lists(some.booleans(), min_size=1), some.lists(some.sampled_from([-1.0, 0.0, 2.0]), min_size=1),
    ),
    some.sampled_from(['list', 'array', 'object']),
)  # fmt: skip
def test_labels_of_any_type(labels, kind):
    # numpy strips the zeros at the end of text
    labels = [label.rstrip('\0') if isinstance(label, str) else label for label in labels]
    y = labels if kind == 'list' else np.array(labels, object if kind == 'object' else None)
    classes, numbers = as_classes(y, len(labels))
    assert classes.tolist() == sorted(set(labels))
    assert classes[numbers.numpy()].tolist() == labels


@pytest.mark.parametrize(
    ('y', 'message'),
    [
        ([0, 1], r'y has shape \(2,\), and X has 3 images'),
        ([[0, 1], [1, 0], [0, 1]], r'y has shape \(3, 2\)'),
        (None, r'y has shape \(\)'),
        ([0.0, np.nan, 1.0], 'y has 1 missing labels'),
        (np.array(['a', None, 'b'], object), 'cannot be compared|missing labels'),
        (np.array(['a', 1, 'b'], object), 'labels that cannot be compared'),
        ([0.5, 1.5, 1.0], 'y has numbers such as'),
        (np.array([0.5, 1.5, 1.0], object), 'y has numbers such as'),
        (['a', np.nan, 'b'], 'y has 1 missing labels'),
        (['1', 1, '1'], 'labels that cannot be compared'),
        (np.ma.masked_array([0, 1, 1], mask=[0, 0, 1]), 'y has 1 missing labels'),
        (torch.tensor([0, 1, 1], dtype=torch.bfloat16), 'y is no array of labels'),
        ([1j, 2j, 3j], 'y has numbers such as'),
    ],
)
def test_what_are_no_labels(y, message):
    with pytest.raises(DataError, match=message) as error:
        as_classes(y, 3)
    assert '\n' not in str(error.value)


def test_labels_in_a_column_and_of_pandas():
    assert as_classes([[3], [1]], 2)[1].tolist() == [1, 0]
    pandas = pytest.importorskip('pandas')
    for kind in ('category', 'string', 'object'):
        classes, numbers = as_classes(pandas.Series(['b', 'a', 'b'], dtype=kind), 3)
        assert classes.tolist() == ['a', 'b'] and numbers.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match='y has '):
        as_classes(pandas.Series(['b', None, 'b'], dtype='string'), 3)


def test_images_are_held_out_once_and_in_proportion():
    y = torch.tensor([0] * 80 + [1] * 19 + [2])
    task = checked_task('t', torch.arange(100).view(100, 1, 1, 1).float(), y, torch.zeros(0, 1, 1, 1), y[:0], 'abc')
    found = with_held_out(task, 0.1)
    assert found.test_y.bincount().tolist()[:2] == [8, 2] or len(found.test_y) == 10
    assert sorted([*found.train_x.flatten().tolist(), *found.test_x.flatten().tolist()]) == list(range(100))
    assert torch.equal(y[found.test_x.flatten().long()], found.test_y)
    assert with_held_out(task, 0) is task and with_held_out(found, 0.5) is found
