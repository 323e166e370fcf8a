"""Data in, tensors out; what cannot be searched on is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import make_task, save_npz
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from nni_warmstart import DataError
from nni_warmstart.data import (
    Task,
    digits,
    from_folder,
    from_npz,
    from_torchvision,
    image_shape,
    labelled,
    memory,
    name_and_classes,
    shuffled_if_sorted,
    split,
    stratified_split,
)


def test_digits():
    task = digits()
    assert (len(task.train_x), len(task.test_x), task.num_classes) == (1347, 450, 10)
    assert task.train_x.shape[1:] == (1, 8, 8)
    assert task.train_x.dtype == torch.uint8
    assert int(task.train_x.max()) == 255


def test_npz_round_trip(tmp_path):
    path = save_npz(tmp_path / 'shapes.npz')
    task = from_npz(path)
    with np.load(path) as file:
        assert np.array_equal(task.train_x.permute(0, 2, 3, 1).numpy(), file['train_x'])
        assert np.array_equal(task.test_y.numpy(), file['test_y'])
    assert task.name == 'shapes'
    assert task.class_names == ('class 0', 'class 1', 'class 2')


def test_npz_without_test_pictures_and_names(tmp_path):
    task = from_npz(save_npz(tmp_path / 'a.npz', test_x=None, test_y=None, class_names=None))
    assert len(task.test_x) == 0
    assert task.class_names == ('0', '1', '2')
    assert split(task).test is None


def test_folder(tmp_path):
    for part, count in (('train', 3), ('test', 2)):
        for shade, name in ((40, 'dark'), (200, 'light')):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new('RGB', (20, 12), (shade, shade, shade)).save(tmp_path / part / name / f'{i}.png')
    task = from_folder(tmp_path, side=16)
    assert task.class_names == ('dark', 'light')
    assert task.train_x.shape == (6, 3, 16, 16)
    assert task.train_x[task.train_y == 1].float().mean() == 200
    assert len(task.test_x) == 4


def test_folders_that_are_not_read_are_named(tmp_path, caplog):
    for part in ('train', 'val'):
        for name in ('a', 'b'):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new('RGB', (8, 8)).save(tmp_path / part / name / 'one.png')
    from_folder(tmp_path, side=8)
    assert 'nothing is read: not val.' in caplog.text


def test_folders_named_as_parts_are_no_classes(tmp_path):
    for part in ('Val', 'test'):
        picture = tmp_path / part / 'cat' / 'one.png'
        picture.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    with pytest.raises(DataError, match='has Val, test and no train/; call the folder'):
        from_folder(tmp_path)


def test_train_may_be_a_class(tmp_path):
    for name in ('bus', 'train', 'tram'):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new('RGB', (8, 8), (len(name), number, 0)).save(tmp_path / name / f'{number}.png')
    assert from_folder(tmp_path, side=8).class_names == ('bus', 'train', 'tram')
    (tmp_path / 'bus').rename(tmp_path / 'test')
    (tmp_path / 'tram').rename(tmp_path / 'val')
    with pytest.raises(DataError, match='has no images in class folders'):
        from_folder(tmp_path, side=8)


def test_names_of_classes_may_be_bytes(tmp_path):
    path = save_npz(tmp_path / 'a.npz', class_names=np.array([b'cat', b'dog', b'caf\xc3\xa9']))
    assert from_npz(path).class_names == ('cat', 'dog', 'café')
    path = save_npz(tmp_path / 'b.npz', class_names=np.array([b'cat', b'dog', b'\xff']))
    with pytest.raises(DataError, match='class_names are bytes that are not UTF-8'):
        from_npz(path)


def test_pictures_in_folders_are_read_as_they_look(tmp_path):
    def picture(name: str) -> Path:
        (tmp_path / 'a').mkdir(exist_ok=True)
        return tmp_path / 'a' / name

    ramp = np.linspace(0, 65535, 8).astype(np.uint16)[None].repeat(8, 0)
    Image.fromarray(ramp).save(picture('0.png'))
    shape = np.zeros((8, 8, 4), np.uint8)
    shape[2:6, 2:6, 3] = 255  # black on transparent
    Image.fromarray(shape).save(picture('1.png'))
    turned = np.zeros((8, 8, 3), np.uint8)
    turned[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(turned).save(picture('2.png'), exif=exif)
    Image.new('I', (8, 8), 9).save(picture('3.tif'))
    Image.fromarray(ramp).save(picture('4.png'), transparency=0)
    (tmp_path / 'b').mkdir()
    Image.new('L', (8, 8), 7).save(tmp_path / 'b' / 'grey.gif')
    hidden = tmp_path / 'a' / '.ipynb_checkpoints'
    hidden.mkdir()
    Image.new('L', (8, 8)).save(hidden / '0-checkpoint.png')
    (tmp_path / '.git').mkdir()
    task = from_folder(tmp_path, side=8)
    assert task.class_names == ('a', 'b')
    assert task.train_y.tolist() == [0, 0, 0, 0, 0, 1]
    high, black, right, dark, through, grey = task.train_x
    assert high[0, 0].tolist() == [0, 36, 72, 109, 145, 182, 218, 255]
    assert (black[:, 3, 3] == 0).all() and (black[:, 0, 0] == 255).all()
    assert (right[:, :, 4:] == 255).all() and (right[:, :, :4] == 0).all()
    assert (dark == 9).all()
    assert through[0, 0].tolist() == [255, 36, 72, 109, 145, 182, 218, 255]
    assert (grey == 7).all()


def test_files_that_are_no_pictures_are_named(tmp_path, caplog):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        Image.new('L', (8, 8)).save(tmp_path / name / '0.png')
    (tmp_path / 'a' / 'list.csv').write_text('0')
    assert len(from_folder(tmp_path, side=8).train_x) == 2
    assert '1 files are no images by their ending, such as' in caplog.text and 'list.csv' in caplog.text
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / 'a' / '1.tif')
    with pytest.raises(DataError, match=r'1\.tif cannot be read \(its pixels are floating-point numbers'):
        from_folder(tmp_path, side=8)


def test_sorted_data_are_mixed_for_the_alphas(tmp_path):
    y = torch.arange(40) % 4
    assert torch.equal(shuffled_if_sorted(y), torch.arange(40))
    order = shuffled_if_sorted(y.sort().values)
    assert sorted(order.tolist()) == list(range(40))
    x = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    val = split(Task('sorted', x, y.sort().values, x[:0], y[:0], tuple('abcd'))).val
    assert len(val.y[:8].unique()) > 2
    assert torch.equal(val.y, val.x[:, 0, 0, 0] // 10)


def test_torchvision_is_read_where_it_lies(tmp_path, monkeypatch):
    import torchvision.datasets

    class Shapes:
        def __init__(self, root, train, download):
            assert not download
            self.data = np.zeros((10 if train else 4, 8, 8), np.uint8)
            self.targets = torch.arange(len(self.data)) % 2
            self.classes = ['a', 'b']

    monkeypatch.setattr(torchvision.datasets, 'Shapes', Shapes, raising=False)
    task = from_torchvision('Shapes', tmp_path)
    assert task.train_x.shape == (10, 1, 8, 8)
    assert len(task.test_x) == 4


def test_damaged_files_of_torchvision(tmp_path, monkeypatch):
    (tmp_path / 'MNIST' / 'raw').mkdir(parents=True)
    for part in ('train', 't10k'):
        (tmp_path / 'MNIST' / 'raw' / f'{part}-images-idx3-ubyte').write_bytes(b'\0\0\x08\x03' + b'\x7f' * 12)
        (tmp_path / 'MNIST' / 'raw' / f'{part}-labels-idx1-ubyte').write_bytes(b'\0\0\x08\x01\0\0\0\0')
    with pytest.raises(DataError, match='torchvision dataset MNIST is not under'):
        from_torchvision('MNIST', tmp_path)
    monkeypatch.setattr(memory, 'available_bytes', lambda: 10)
    with pytest.raises(DataError, match=r'torchvision dataset MNIST in .* does not fit into memory'):
        from_torchvision('MNIST', tmp_path)


def test_torchvision_errors(tmp_path):
    with pytest.raises(DataError, match="torchvision has no dataset 'Fashion'"):
        from_torchvision('Fashion', tmp_path)
    with pytest.raises(DataError, match=r'FashionMNIST is not under .* Set download: true'):
        from_torchvision('FashionMNIST', tmp_path)
    with pytest.raises(DataError, match=r'SVHN is not under .* Set download: true'):
        from_torchvision('SVHN', tmp_path)
    for name in ('FakeData', 'EMNIST', 'VisionDataset'):  # whose `split` means something else, or that have none
        with pytest.raises(DataError, match=f'{name} has no splits for training and testing; .* use python:'):
            from_torchvision(name, tmp_path)


def test_grey_to_colour_and_back():
    task = make_task()
    grey = task.adapted(1, 8)
    assert torch.allclose(grey.train_x, task.train_x.float().mean(1, keepdim=True))
    colour = digits().adapted(3, 16)
    assert colour.train_x.shape == (1347, 3, 16, 16)
    assert torch.equal(colour.train_x[:, 0], colour.train_x[:, 2])


def test_split_is_stratified_deterministic_and_complete():
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 4)
    part, rest = stratified_split(labels, 0.5, seed=3)
    assert labels[part].bincount().tolist() == [10, 5, 2]
    assert sorted([*part.tolist(), *rest.tolist()]) == list(range(34))
    again, _ = stratified_split(labels, 0.5, seed=3)
    other, _ = stratified_split(labels, 0.5, seed=4)
    assert torch.equal(part, again)
    assert not torch.equal(part, other)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_many_pictures_are_normalised_as_a_few_are(dtype):
    x = (255 * torch.rand(4200, 3, 4, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
    train = split(Task('noise', x, torch.arange(4200) % 2, x[:0], torch.arange(0), ('even', 'odd'))).train
    pixels = train.x.double()
    assert len(pixels) == 2100  # more than are summed at once
    assert torch.equal(train.mean.flatten(), pixels.mean((0, 2, 3)).float())
    assert torch.equal(train.std.flatten(), pixels.std((0, 2, 3)).float())


def test_pictures_are_normalised_by_the_training_part():
    splits = split(digits())
    x = torch.stack([splits.train[i][0] for i in range(len(splits.train))])
    assert x.mean().item() == pytest.approx(0, abs=1e-4)
    assert x.std().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(splits.train.mean, splits.val.mean)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'train_x': np.zeros((0, 8, 8, 3), np.uint8), 'train_y': np.zeros(0, int)},
            'is empty: it has no training images',
        ),
        ({'train_y': np.zeros(24, int)}, 'has one class; a classification needs at least two'),
        ({'train_y': np.arange(23) % 3}, 'has 24 training images and 23 labels'),
        ({'train_y': np.arange(24) % 4}, 'training labels from 0 to 3, but 3 class names'),
        ({'train_y': np.arange(24) % 3 - 1}, 'training labels from -1 to 1'),
        ({'train_y': np.linspace(0, 2, 24)}, 'they must be whole numbers'),
        ({'train_x': np.full((24, 8, 8, 3), np.nan)}, 'NaN or infinite pixels in 24 training images'),
        ({'train_x': np.zeros((24, 3, 8, 8), np.uint8)}, r'images have shape \(24, 3, 8, 8\); needed is'),
        ({'train_x': np.zeros((24, 64), np.uint8)}, r'images have shape \(24, 64\)'),
        ({'train_x': None}, 'has no array train_x; it has train_y'),
        ({'train_y': np.arange(24) % 3 - 1, 'class_names': None}, 'training labels from -1 to 1'),
        ({'train_y': np.full(24, 2**40), 'class_names': None}, 'labels up to 1099511627776 and 24 images'),
        ({'train_y': np.full(24, 2**64 - 1, np.uint64)}, 'training labels from -1 to -1'),
        ({'train_y': np.zeros((24, 1), int)}, r'labels have shape \(24, 1\)'),
        ({'test_y': np.array([0, 1, 2, 3, 0, 1])}, 'has test labels from 0 to 3, but 3 class names'),
        ({'test_x': np.full((6, 8, 8, 3), np.inf)}, 'NaN or infinite pixels in 6 test images'),
        ({'test_x': np.zeros((6, 8, 8, 4), np.uint8)}, 'images have shape .6, 8, 8, 4.'),
        ({'test_y': np.zeros(5, int)}, 'has 6 test images and 5 labels'),
        ({'test_x': None}, 'has one of test_x and test_y'),
        ({'train_x': np.full((24, 8, 8, 3), 1e300)}, 'NaN or infinite pixels in 24 training images'),
        ({'train_x': np.zeros((24, 8, 0, 3))}, 'needed are numbers, and a pixel at least'),
        ({'train_x': np.zeros((24, 8, 8, 3), np.complex64)}, 'needed are numbers'),
        ({'class_names': np.array([], dtype='U1')}, 'training labels from 0 to 2, but 0 class names'),
    ],
)
def test_bad_arrays(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        from_npz(save_npz(tmp_path / 'bad.npz', **changes))


def test_data_tell_their_name_and_classes():
    class Letters(Dataset):
        classes = ('a', 'b')

    images = split(make_task()).train
    expected = 'blobs', ['class0', 'class1', 'class2']
    for data in (make_task(), images, images.part(torch.arange(3)), DataLoader(images), DataLoader(Subset(images, [0]))):
        assert name_and_classes(data) == expected
    assert name_and_classes(Subset(Letters(), [0])) == ('Letters', ['a', 'b'])
    assert name_and_classes('flowers') == ('flowers', [])
    assert name_and_classes((torch.zeros(2, 4), torch.zeros(2))) == ('tuple', [])


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32, torch.bfloat16])
def test_images_of_both_parts_are_counted(dtype, caplog):
    x, y = torch.arange(6 * 3 * 4 * 4).view(6, 3, 4, 4).to(dtype), torch.arange(6) % 2
    test = torch.cat([x[2:4], 1 - x[:1]]).flip(0).transpose(2, 3).contiguous().transpose(2, 3)
    labelled('shared', Task('shared', x, y, test, y[:3], ('a', 'b')))
    assert 'shared: 2 of 3 test images are training images, too' in caplog.text


def test_a_torch_dataset_keeps_its_class_names():
    class Pets(TensorDataset):
        classes = ('cat', 'dog')

    pets = Pets(torch.rand(8, 3, 4, 4), torch.arange(8) % 2)
    assert labelled('pets', pets).class_names == ('cat', 'dog')
    Pets.classes = ('cat', 'dog', 'fish')  # of which there is none
    assert labelled('pets', pets).class_names == ('0', '1')


def test_the_form_of_pictures():
    class Dicts(Dataset):
        def __getitem__(self, index):
            return {'x': torch.zeros(3, 8, 8), 'y': 0}

        def __len__(self):
            return 1

    assert image_shape(Dicts()) is None
    assert image_shape((torch.zeros(2, 1, 5, 5), [0, 1])) == (1, 5)
    assert image_shape((np.zeros((2, 5, 5, 3)), [0, 1])) == (3, 5)
    assert image_shape((np.zeros((2, 3, 4, 5)), [0, 1])) is None
    assert image_shape([torch.zeros(2, 3, 5, 5)]) is None


def test_class_missing_from_a_split(tmp_path):
    labels = np.array([0, 1] * 11 + [0, 2])
    with pytest.raises(DataError, match=r'class class 2 is missing from the (training|validation) split'):
        split(from_npz(save_npz(tmp_path / 'rare.npz', train_y=labels)))


def test_bad_files(tmp_path):
    with pytest.raises(DataError, match=r'nowhere\.npz does not exist'):
        from_npz(tmp_path / 'nowhere.npz')
    (tmp_path / 'text.npz').write_text('no arrays')
    with pytest.raises(DataError, match=r'text\.npz cannot be read as npz'):
        from_npz(tmp_path / 'text.npz')
    np.savez(tmp_path / 'object.npz', train_x=np.array([{}], dtype=object), train_y=np.zeros(1))
    with pytest.raises(DataError, match=r'object\.npz cannot be read as npz'):  # it would need unpickling
        from_npz(tmp_path / 'object.npz')
    (tmp_path / 'cut.npz').write_bytes(save_npz(tmp_path / 'whole.npz').read_bytes()[:300])
    with pytest.raises(DataError, match=r'cut\.npz cannot be read as npz'):
        from_npz(tmp_path / 'cut.npz')
    np.save(tmp_path / 'single.npy', np.zeros(3))
    with pytest.raises(DataError, match=r'single\.npy cannot be read as npz'):
        from_npz(tmp_path / 'single.npy')
    with pytest.raises(DataError, match=r'data folder .* does not exist'):
        from_folder(tmp_path / 'nowhere')
    (tmp_path / 'pictures' / 'a').mkdir(parents=True)
    (tmp_path / 'pictures' / 'a' / 'broken.png').write_text('no image')
    with pytest.raises(DataError, match=r'broken\.png cannot be read'):
        from_folder(tmp_path / 'pictures')
    (tmp_path / 'hollow').mkdir()
    with pytest.raises(DataError, match='has no images in class folders'):
        from_folder(tmp_path / 'hollow')
