"""Images in tables and archives, with the packages of the extras."""

from __future__ import annotations

import io
import pickle
import sys
import tarfile

import numpy as np
import pytest
import torch
from test_lazy import image_folder

from nni_warmstart.data import from_folder
from nni_warmstart.data.archives import from_huggingface, from_webdataset
from nni_warmstart.data.lazy import LazyImages
from nni_warmstart.errors import ConfigError, DataError


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp('images'), n=12)


@pytest.mark.parametrize('read', [from_huggingface, from_webdataset])
def test_a_missing_package_is_one_line(images, read, monkeypatch):
    for name in ('datasets', 'webdataset', 'webdataset.shardlists'):
        monkeypatch.setitem(sys.modules, name, None)
    extra = read.__name__.removeprefix('from_').replace('huggingface', 'datasets')
    with pytest.raises(ConfigError, match=rf"is not installed \(.*\); pip install 'nni-warmstart\[{extra}\]'\.") as caught:
        read(images)
    assert '\n' not in str(caught.value)


def write_shard(path, folder, *, label='cls', leave_out=''):
    with tarfile.open(path, 'w') as archive:
        for number, file in enumerate(sorted(folder.rglob('*.png'))):
            text = file.parent.name[-1] if label == 'cls' else f'{{"label": "{file.parent.name}"}}'
            for ending, content in (('png', file.read_bytes()), (label, text.encode())):
                if ending != leave_out:
                    member = tarfile.TarInfo(f'{number:03}.{ending}')
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize('label', ['cls', 'json'])
@pytest.mark.parametrize('cache_mb', [512, 0])
def test_shards_are_read_as_a_folder_is(images, tmp_path, label, cache_mb):
    pytest.importorskip('webdataset')
    for number in range(2):
        write_shard(tmp_path / f'train-00{number}.tar', images / 'train' / f'class{number}', label=label)
    write_shard(tmp_path / 'test.tar', images / 'test', label=label)
    task = from_webdataset(tmp_path / 'train-{000..001}.tar', test='test.tar', side=8, cache_mb=cache_mb)
    expected = from_folder(images, side=8)
    assert isinstance(task.train_x, LazyImages) == (cache_mb == 0)
    task = pickle.loads(pickle.dumps(task))  # as a worker of another process gets it
    assert torch.equal(task.train_x[:], expected.train_x) and torch.equal(task.train_y, expected.train_y)
    assert torch.equal(task.test_x[:], expected.test_x) and torch.equal(task.test_y, expected.test_y)
    assert task.name == 'train' and task.class_names == (('0', '1') if label == 'cls' else ('class0', 'class1'))
    assert torch.equal(from_webdataset(tmp_path / 'train-*.tar', side=8).train_x, expected.train_x)


def test_damaged_images_of_shards_are_replaced(images, tmp_path, caplog):
    pytest.importorskip('webdataset')
    write_shard(tmp_path / 'a.tar', images / 'train')
    content = (tmp_path / 'a.tar').read_bytes()
    first = content.index(b'IDAT')
    (tmp_path / 'a.tar').write_bytes(content[: first + 8] + bytes(8) + content[first + 16 :])
    whole = from_folder(images, side=8).train_x
    found = from_webdataset(tmp_path / 'a.tar', side=8, cache_mb=0, on_error='skip').train_x[:]
    assert torch.equal(found[1:], whole[1:]) and torch.equal(found[0], whole[1])
    assert '; 1 such images so far' in caplog.text
    with pytest.raises(DataError, match=r'image 0 in .*a\.tar cannot be read'):
        from_webdataset(tmp_path / 'a.tar', side=8)


def test_shards_that_hold_no_samples(images, tmp_path):
    pytest.importorskip('webdataset')
    write_shard(tmp_path / 'bare.tar', images / 'train', leave_out='cls')
    (tmp_path / 'text.tar').write_text('no archive')
    for name, message in (
        ('bare.tar', '12 samples without a class, such as 000'),
        ('text.tar', 'needed is a tar without compression'),
        ('nowhere.tar', 'cannot be read'),
    ):
        with pytest.raises(DataError, match=message):
            from_webdataset(tmp_path / name)


def add(path, files):
    with tarfile.open(path, 'w') as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_labels_of_shards_that_are_no_classes(images, tmp_path):
    pytest.importorskip('webdataset')
    png = next(images.rglob('*.png')).read_bytes()
    for content, message in (
        (b'20000000', 'has labels up to 20000000 and 2 images'),
        (b'[' * 100_000, 'cannot be read'),
        (b'{"label": [1, 2]}', r'has the label \[1, 2\], which is neither a whole number nor text'),
        (b'{"label": 0.5}', r'has the label 0\.5, which is neither a whole number nor text'),
        (b'NaN', 'has the label nan, which is neither a whole number nor text'),
    ):
        add(tmp_path / 'a.tar', {'0.png': png, '0.json': b'0', '1.png': png, '1.json': content})
        with pytest.raises(DataError, match=message):
            from_webdataset(tmp_path / 'a.tar', side=8)
    add(tmp_path / 'train.tar', {'0.png': png, '0.json': b'"1"', '1.png': png, '1.json': b'"2"'})
    add(tmp_path / 'test.tar', {'0.png': png, '0.json': b'1'})
    with pytest.raises(DataError, match='test classes that the training images lack: 1'):
        from_webdataset(tmp_path / 'train.tar', test='test.tar', side=8)


def test_names_that_look_like_numbers_stay_names(images, tmp_path):
    pytest.importorskip('webdataset')
    png = next(images.rglob('*.png')).read_bytes()
    for names in (('1.1', '1.10', '2.0'), ('30', '3e1', 'b1'), ('1e999', '2e999', 'NaN')):
        labelled = {f'{number}.cls': name.encode() for number, name in enumerate(names)}
        add(tmp_path / 'a.tar', {**labelled, **{f'{number}.png': png for number in range(3)}})
        task = from_webdataset(tmp_path / 'a.tar', side=8)
        assert task.class_names == names and task.train_y.tolist() == [0, 1, 2]


def test_metadata_beside_a_class(images, tmp_path):
    pytest.importorskip('webdataset')
    png = next(images.rglob('*.png')).read_bytes()
    metadata = b'{"caption": "a cat", "label": "other"}'
    for name, classes in (('cat', ('cat', 'dog')), ('0', ('0', '1'))):
        other = {'cat': b'dog', '0': b'1'}[name]
        samples = {'0.cls': name.encode(), '0.json': metadata, '0.png': png, '1.json': b'{}', '1.cls': other, '1.png': png}
        add(tmp_path / 'a.tar', samples)
        task = from_webdataset(tmp_path / 'a.tar', side=8)
        assert task.class_names == classes and task.train_y.tolist() == [0, 1]


@pytest.mark.parametrize('mask', ['0.mask.png', '0.a.png'])
def test_the_image_of_a_sample_is_the_one_without_a_further_name(images, tmp_path, mask):
    pytest.importorskip('webdataset')
    one, two = (path.read_bytes() for path in sorted(images.rglob('*.png'))[:2])
    others = {'1.png': one, '1.cls': b'1', '0.cls': b'0'}
    for number, files in enumerate(({'0.png': one, mask: two}, {mask: two, '0.png': one})):
        add(tmp_path / f'{number}.tar', {**files, **others})
        found = from_webdataset(tmp_path / f'{number}.tar', side=8)
        assert torch.equal(found.train_x[0], found.train_x[1])


@pytest.mark.slow
def test_tables_and_folders_of_hugging_face(images, tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', str(tmp_path / 'cache'))
    expected = from_folder(images, side=8)
    for part in ('train', 'test'):
        files = sorted((images / part).rglob('*.png'))
        columns = {'picture': [{'bytes': file.read_bytes(), 'path': None} for file in files]}
        columns['kind'] = [file.parent.name for file in files]
        table = datasets.Dataset.from_dict(columns).cast_column('picture', datasets.Image())
        (tmp_path / 'table').mkdir(exist_ok=True)
        table.to_parquet(str(tmp_path / 'table' / f'{part}-00000.parquet'))
    for cache_mb in (512, 0):
        task = from_huggingface(tmp_path / 'table', image='picture', label='kind', side=8, cache_mb=cache_mb)
        task = pickle.loads(pickle.dumps(task))
        assert torch.equal(task.train_x[:], expected.train_x) and torch.equal(task.test_y, expected.test_y)
        assert task.class_names == expected.class_names
    task = from_huggingface(images, side=8)
    assert torch.equal(task.train_x[:], expected.train_x) and np.array_equal(task.class_names, expected.class_names)
    columns = datasets.Features({'image': datasets.Image(), 'label': datasets.ClassLabel(names=['left', 'right'])})
    rows = {'image': [str(file) for file in files], 'label': [int(file.parent.name[-1]) for file in files]}
    named = datasets.Dataset.from_dict(rows, features=columns)
    for name in ('train-0', 'train-1', 'validation'):
        named.to_parquet(str(tmp_path / 'named' / 'data' / f'{name}.parquet'))
    task = from_huggingface(tmp_path / 'named', side=8)
    assert task.class_names == ('left', 'right') and len(task.train_x) == 2 * len(task.test_x)
    assert torch.equal(task.test_x[:], expected.test_x)
    with pytest.raises(DataError, match="has no column 'image'; it has picture, kind"):
        from_huggingface(tmp_path / 'table')
    with pytest.raises(DataError, match='does not exist'):
        from_huggingface(tmp_path / 'nowhere')
