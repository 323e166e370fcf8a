"""Images that stay on disk: the same bits as in memory, and bounded, shared looks at them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from helpers.tiny import save_npz
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nni_warmstart.data import from_folder, from_npz, split
from nni_warmstart.data.encoded import EncodedImages
from nni_warmstart.data.given import with_held_out
from nni_warmstart.data.labelled import SampleBatches, first_batches, image_shape, read_sample
from nni_warmstart.data.lazy import LazyImages
from nni_warmstart.data.map_style import from_function
from nni_warmstart.data.task import Task
from nni_warmstart.distance.sketch import DatasetSketch
from nni_warmstart.errors import ConfigError, DataError
from nni_warmstart.evaluators.datamodule import TaskData
from nni_warmstart.evaluators.workers import Workers


def image_folder(path, n=40, side=12, classes=2, parts=('train', 'test'), ending='png'):
    rng = np.random.default_rng(0)
    for part in parts:
        for number in range(n):
            file = path / part / f'class{number % classes}' / f'{number:03}.{ending}'
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 90, (side + number % 3, side, 3), dtype=np.uint8) + 80 * (number % classes)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return path


@pytest.fixture
def decoded(monkeypatch):
    """Positions of the files that were decoded."""
    positions, read = [], EncodedImages.read

    def counting(self, position):
        positions.append(position)
        return read(self, position)

    monkeypatch.setattr(EncodedImages, 'read', counting)
    return positions


def test_lazy_images_are_those_in_memory(tmp_path):
    image_folder(tmp_path)
    whole, lazy = from_folder(tmp_path, side=8), from_folder(tmp_path, side=8, cache_mb=0)
    assert isinstance(whole.train_x, torch.Tensor) and isinstance(lazy.train_x, LazyImages)
    assert lazy.train_x.shape == whole.train_x.shape and lazy.train_x.dtype == whole.train_x.dtype
    assert torch.equal(lazy.train_x[:], whole.train_x) and torch.equal(lazy.test_x[:], whole.test_x)
    assert torch.equal(lazy.train_x[3], whole.train_x[3]) and torch.equal(lazy.train_x[[5, 1]], whole.train_x[[5, 1]])
    assert torch.equal(lazy.train_y, whole.train_y) and lazy.class_names == whole.class_names
    grey = whole.adapted(1, 8).train_x
    assert torch.equal(lazy.adapted(1, 8).train_x[:], grey) and grey.dtype == torch.float32
    with pytest.raises(DataError, match='has 3 channels and the space takes 4'):
        lazy.adapted(4, 8)


def test_images_that_fit_in_the_size_of_the_space_are_held(tmp_path):
    lazy = from_folder(image_folder(tmp_path), side=64, cache_mb=0.1)
    assert isinstance(lazy.train_x, LazyImages)
    held = lazy.adapted(3, 8).train_x
    assert torch.equal(held, from_folder(tmp_path, side=8).train_x)  # read at that size, not by a detour


def test_photographs_are_decoded_near_the_size_that_is_needed(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 256)[None, :, None], (256, 256, 3)).astype(np.uint8)
    for name in 'ab':
        (tmp_path / name).mkdir()
        Image.fromarray(ramp).save(tmp_path / name / '0.jpg')
    exact, draft = (from_folder(tmp_path, side=16, cache_mb=cache).train_x[0].float() for cache in (512, 0))
    assert (exact - draft).abs().max() < 4


def test_a_look_reads_a_sample_that_later_looks_share(tmp_path, decoded):
    lazy = from_folder(image_folder(tmp_path, n=60, classes=3), side=8, cache_mb=0.01)
    train = split(lazy).train
    read = len(decoded)
    assert 3 <= read < len(train)  # the statistics of the channels: a quarter of the cache
    sample = train.sample('test')
    assert len(sample) == read == len(decoded) and set(sample.y.tolist()) == {0, 1, 2}
    batches = first_batches(DataLoader(sample, 4), 8)
    assert sum(len(y) for _, y in batches) == 8
    sketch = DatasetSketch.from_dataset(DataLoader(sample, 4))
    assert sketch.counts.tolist() == train.y.bincount().tolist()
    for index in range(len(train)):
        train[index]
    assert len(decoded) == len(train)  # what a look has read is not read again
    assert train.sample('again').y.tolist() == sample.y.tolist()


def test_a_lazy_task_is_sketched_by_a_sample(tmp_path, decoded):
    lazy = from_folder(image_folder(tmp_path, n=60, classes=3), side=8, cache_mb=0.01)
    assert image_shape(lazy) == (3, 8) and not decoded
    sketch = DatasetSketch.from_dataset(lazy)
    assert sketch.counts.tolist() == [20, 20, 20] and 3 <= len(decoded) < 60
    DatasetSketch.from_dataset(lazy, embedding='pixels')
    assert len(decoded) == len(sketch.samples)


def test_large_tasks_in_memory_are_sketched_as_before(monkeypatch):
    x = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    task = Task('noise', x, torch.arange(300) % 3, x[:0], torch.arange(0), ('a', 'b', 'c'))
    ours = read_sample(task, 'noise', 3, 8, 50, seed=0)
    theirs = read_sample([(task.train_x, task.train_y)], 'noise', 3, 8, 50, seed=0)
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_batches_of_large_samples_are_read_again():
    x = torch.arange(20.0).view(20, 1, 1, 1)
    batches = SampleBatches(DataLoader(TensorDataset(x, x.flatten().long()), 4), 3)
    assert len(batches) == 3 and batches[0][1].tolist() == [0, 1, 2, 3] and len(batches[:2]) == 2
    assert [y.tolist() for _, y in batches] == [y.tolist() for _, y in batches]
    assert len(batches.within(2 * batches[0][0].nbytes)) == 2 and len(batches.within(0)) == 1


def test_a_batch_is_gathered_at_once_with_the_same_bits(tmp_path):
    images = split(from_folder(image_folder(tmp_path, n=20), side=8)).train
    one = [images[index] for index in (3, 1, 2)]
    for (x, y), (other, label) in zip(images.__getitems__([3, 1, 2]), one, strict=True):
        assert torch.equal(x, other) and y == label


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('dtype', [np.uint8, np.float64])
def test_large_arrays_are_mapped(tmp_path, save, dtype):
    path = save_npz(tmp_path / 'a.npz')
    with np.load(path) as file:
        arrays = {key: file[key].astype(dtype) if key.endswith('_x') else file[key] for key in file.files}
    save(path, **arrays)
    whole, lazy = from_npz(path), from_npz(path, cache_mb=0)
    assert isinstance(lazy.train_x, LazyImages)
    again = pickle.loads(pickle.dumps(lazy.train_x))  # as a worker of another process gets it
    for each in (lazy.train_x, again):
        assert torch.equal(each[:], whole.train_x) and each.dtype == whole.train_x.dtype
    for form in ((3, 4), (1, 8)):
        assert torch.equal(lazy.adapted(*form).test_x[:], whole.adapted(*form).test_x)


class Users(Dataset):
    """Dataset of a user: PIL images of several sizes, and classes known without reading one."""

    classes = ('left', 'right')

    def __init__(self, n=12, known=True):
        self.n, self.read = n, 0
        if known:
            self.targets = [number % 2 for number in range(n)]

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read += 1
        return Image.new('RGB', (10 + index, 12), (20 * index, 0, 0)), index % 2


USERS = Users()


def users():
    return USERS, Users(4)


def unknown(n=6):
    return Users(n, known=False)


def endless():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield torch.zeros(3, 4, 4), 0

    return Stream()


def mislabelled():
    x = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    return Task('mine', x, torch.tensor([0, 1, 2, 1]), x[:0], torch.zeros(0).long(), ('left', 'right'))


def failing():
    raise RuntimeError('no such\nserver')


def test_a_function_of_the_user_makes_the_data(caplog):
    task = from_function(f'{__name__}:users', side=8, cache_mb=0)
    assert USERS.read == 1  # for the shape of images
    assert task.class_names == ('left', 'right') and task.train_y.tolist() == [0, 1] * 6 and len(task.test_x) == 4
    assert task.train_x[:][:, 0, 0, 0].tolist() == list(range(0, 240, 20))
    small = from_function(f'{__name__}:unknown', {'n': 8}, side=8)
    assert isinstance(small.train_x, torch.Tensor) and small.train_y.tolist() == [0, 1] * 4
    assert 'has no attribute targets' in caplog.text


def test_a_sample_that_fails_is_named(monkeypatch):
    def read(self, index):
        if index == 5:
            raise OSError('broken data stream')
        return torch.zeros(3, 8, 8, dtype=torch.uint8), index % 2

    task = from_function(f'{__name__}:unknown', side=8, cache_mb=0)
    monkeypatch.setattr(type(task.train_x.reader.dataset), '__getitem__', read)
    with pytest.raises(DataError, match=r'sample 5 of the \w+ cannot be read \(broken data stream\)'):
        task.train_x[:]


@pytest.mark.parametrize(
    ('function', 'error', 'message'),
    [
        ('endless', DataError, 'endless is a Stream without a length'),
        ('mislabelled', DataError, 'mine has training labels from 0 to 2, but 2 class names'),
        ('failing', DataError, 'failing fails: RuntimeError: no such server'),
        ('nothing', ConfigError, "nothing' cannot be imported"),
    ],
)
def test_functions_that_make_no_data_are_one_line(function, error, message):
    with pytest.raises(error, match=message) as caught:
        from_function(f'{__name__}:{function}')
    assert '\n' not in str(caught.value)
    with pytest.raises(ConfigError, match='it must be package'):
        from_function('no_module')


def damage(file):
    """Damage an image in its middle, which its header and its end do not show."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(8)
    file.write_bytes(content)


def test_damage_that_only_decoding_shows(tmp_path, caplog):
    folder = image_folder(tmp_path / 'images', n=12, classes=3)
    whole = from_folder(folder, side=8).train_x
    damage(folder / 'train' / 'class1' / '004.png')
    damage(folder / 'train' / 'class1' / '010.png')
    strict = from_folder(folder, side=8, cache_mb=0).train_x
    with pytest.raises(DataError, match=r'image .*004\.png cannot be read \(.*\); repair or remove it\.') as caught:
        strict[:]
    assert '\n' not in str(caught.value)
    task = from_folder(folder, side=8, cache_mb=0, on_error='skip')
    found = task.train_x[:]
    expected = whole.clone()
    expected[5], expected[7] = whole[6], whole[4]  # the next of the class, and its first behind the last
    assert torch.equal(found, expected)
    assert '004.png cannot be read' in caplog.text and '010.png' in caplog.text and '; 2 such images so far' in caplog.text
    caplog.clear()
    for each in (task.train_x, pickle.loads(pickle.dumps(task.train_x)), task.adapted(3, 8).train_x):
        assert torch.equal(each[:], expected)
    assert not caplog.text  # each is named once
    assert len(from_folder(folder, side=8, on_error='skip').train_x) == 10  # small sets are decoded first


def test_a_class_of_damaged_images_is_one_line(tmp_path):
    folder = image_folder(tmp_path / 'images', n=6)
    for file in (folder / 'train' / 'class0').iterdir():
        damage(file)
    task = from_folder(folder, side=8, cache_mb=0, on_error='skip')
    with pytest.raises(DataError, match=r'^none of the 3 images of the class of image \d can be read\.$'):
        task.train_x[:]
    loader = DataLoader(range(6), 2, collate_fn=lambda rows: task.train_x[rows], num_workers=1)
    with pytest.raises(DataError, match=r'^none of the 3 images of the class of image \d can be read\.$'):
        list(loader)  # in one line from another process, too


@pytest.mark.parametrize('workers', [0, 2])
def test_workers_replace_damaged_images_by_the_same_ones(tmp_path, workers):
    folder = image_folder(tmp_path / 'images', n=24)
    damage(folder / 'train' / 'class0' / '004.png')
    splits = split(from_folder(folder, side=8, cache_mb=0, on_error='skip'))
    seen = torch.cat([x for x, _ in TaskData(splits, 4, workers=Workers(workers)).val_dataloader()])
    assert torch.equal(seen, splits.val.x[:])


def test_damaged_images_are_replaced_by_those_of_the_same_part(tmp_path):
    folder = image_folder(tmp_path / 'images', n=48, parts=('train',))
    for file in sorted((folder / 'train').rglob('*.png'))[::4]:
        damage(file)
    task = with_held_out(from_folder(folder, side=8, cache_mb=0, on_error='skip'), 0.25)
    splits = split(task)
    parts = [set(map(bytes, x[:].numpy())) for x in (splits.train.x, splits.val.x, task.test_x)]
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


@pytest.mark.parametrize('compressed', [False, True])
def test_pixels_that_are_no_numbers_are_named_where_they_are_read(tmp_path, compressed):
    x = np.random.default_rng(0).random((12, 8, 8, 3), np.float32)
    x[3, 0, 0, 0] = np.nan
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / 'a.npz', train_x=np.nan_to_num(x), train_y=np.arange(12) % 2, test_x=x, test_y=np.arange(12) % 2)
    task = from_npz(tmp_path / 'a.npz', cache_mb=0)
    assert task.train_x[:].isfinite().all() and task.test_x[:3].isfinite().all()
    with pytest.raises(DataError, match='image 3 has NaN or infinite pixels; remove or repair it'):
        task.test_x[2:5]
