"""Folders of images: every real file once and in one order, wherever links lead, and of a size that is allowed."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from nni_warmstart import DataError
from nni_warmstart.data import from_folder, image_files, image_reading, memory
from nni_warmstart.data.image_reading import read_image
from nni_warmstart.utils.limits import VARIABLE


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of two images, which differ in their shade: 0, 50, 100, 150."""
    for shade, name in zip((0, 50, 100, 150), ('a/0', 'a/1', 'b/0', 'b/sub/1'), strict=True):
        path = tmp_path / 'images' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8, 8), shade).save(path)
    return tmp_path / 'images'


def shades(folder: Path) -> list[tuple[int, int]]:
    """Class and shade of every image."""
    task = from_folder(folder, side=8)
    return list(zip(task.train_y.tolist(), task.train_x[:, 0, 0, 0].tolist(), strict=True))


ONCE = [(0, 0), (0, 50), (1, 100), (1, 150)]


@pytest.mark.parametrize(
    ('links', 'files'),
    [
        ({'a/up': '..'}, ONCE),
        ({'a/up': '..', 'b/up': '..'}, ONCE),
        ({'a/self': '.', 'b/sub/above': '..'}, ONCE),
        ({'a/root': '../../..'}, ONCE),
        ({'a/other': '../b/sub'}, ONCE),
        ({'loop': 'loop'}, ONCE),
        ({'up': '..', 'here': '.'}, ONCE),
        ({'a/2.png': '0.png', 'a/3.png': '2.png', 'b/2.png': '../a/1.png', 'a/1b.png': '../b/0.png'}, ONCE),
        ({'a/more': '../../more', 'b/more': '../../more'}, [*ONCE[:2], (0, 200), *ONCE[2:]]),
        ({'c': '../more'}, [*ONCE, (2, 200)]),
        ({'a/2.png': '../../more/0.png'}, [*ONCE[:2], (0, 200), *ONCE[2:]]),
    ],
)
def test_links_are_followed_to_what_was_not_read_before(images, links, files, caplog):
    (images.parent / 'more').mkdir()
    Image.new('L', (8, 8), 200).save(images.parent / 'more' / '0.png')
    for link, target in links.items():
        (images / link).symlink_to(target)
    assert shades(images) == files
    lost = len(links) + len(ONCE) - len(files)
    assert ('read already' in caplog.text) == (lost > 0 and 'loop' not in links)


def test_a_class_that_is_a_link_to_another(images):
    (images / 'c').symlink_to('a')
    with pytest.raises(DataError, match='has no images in class folders: none for c; known endings are'):
        from_folder(images, side=8)


def test_the_order_does_not_depend_on_the_file_system(images, monkeypatch):
    scandir = os.scandir

    class Backwards(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, 'scandir', lambda path: Backwards(reversed(list(scandir(path)))))
    assert shades(images) == ONCE


def test_images_of_no_class_and_classes_without_test_images_are_said(images, caplog):
    for part in ('train', 'test'):
        (images / part).mkdir()
    (images / 'a').rename(images / 'train' / 'a')
    (images / 'b').rename(images / 'train' / 'b')
    (images / 'test' / 'a').mkdir()
    Image.new('L', (8, 8), 7).save(images / 'test' / 'a' / '0.png')
    Image.new('L', (8, 8), 8).save(images / 'train' / 'loose.PNG')
    task = from_folder(images, side=8)
    assert (len(task.train_x), len(task.test_x)) == (4, 1)
    assert f'{images}/train: 1 images in no folder of a class are left out, such as loose.PNG' in caplog.text
    assert f'{images}/test has no images of b; accuracies on it are of the others' in caplog.text


def test_images_in_both_parts_are_said(images, caplog):
    (images / 'a').rename(images / 'left')
    for part in ('train', 'test'):
        (images / part).mkdir()
    (images / 'left').rename(images / 'train' / 'a')
    (images / 'b').rename(images / 'train' / 'b')
    (images / 'test' / 'a').symlink_to('../train/a')
    task = from_folder(images, side=8)
    assert (len(task.train_x), len(task.test_x)) == (4, 2)
    assert '2 of 2 test images are training images, too' in caplog.text


def test_folders_that_cannot_be_read(images, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == 'sub':
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(DataError, match='sub cannot be read: Permission denied'):
        from_folder(images, side=8)
    (images / 'a' / '0.png').unlink()
    with pytest.raises(DataError, match='is no folder'):
        from_folder(images / 'a' / '1.png', side=8)


def test_what_is_no_file(images):
    path, listener = images / 'a' / '2.png', socket.socket(socket.AF_UNIX)
    for make in (os.mkfifo, lambda path: os.symlink('/dev/zero', path), listener.bind):
        make(str(path))
        with pytest.raises(DataError, match=r'2.png cannot be read \(it is a pipe, a socket or a device'):
            from_folder(images, side=8)
        path.unlink()
    listener.close()
    path.symlink_to('nowhere')
    with pytest.raises(DataError, match=r'2.png cannot be read \(No such file or directory\)'):
        from_folder(images, side=8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    size = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) + chunk(b'IDAT', zlib.compress(bytes(9))) + chunk(b'IEND', b'')


def icon(png: bytes) -> bytes:
    """An icon that says 16 pixels, and holds a PNG."""
    return struct.pack('<HHHBBBBHHII', 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


def tiled(size: int, tile: int) -> bytes:
    """A TIFF of a tile that is larger than its image."""
    tags = [(256, 4, size), (257, 4, size), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 200), (325, 4, 20)]
    entries = b''.join(struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags)
    head = b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b'\0') + zlib.compress(bytes(100))


@pytest.mark.parametrize(
    ('ending', 'content'),
    [
        ('png', png_header(13000, 13000)), ('png', png_header(2**31 - 1, 1)), ('jpg', png_header(7000, 7000)),
        ('ico', icon(png_header(7000, 7000))), ('tif', tiled(64, 20000)),
        ('bmp', b'BM' + struct.pack('<IIIIiiHH', 0, 0, 54, 40, 20000, 20000, 1, 24) + bytes(24)),
        ('ppm', b'P6 20000 20000 255\n'),
        ('gif', b'GIF89a' + struct.pack('<HHBBB', 60000, 60000, 0x80, 0, 0) + bytes(6) + b','
         + struct.pack('<HHHHB', 0, 0, 60000, 60000, 0) + b'\x02\x00;'),
    ],
    ids=['png', 'long png', 'png named jpg', 'png in icon', 'tile', 'bmp', 'ppm', 'gif'],
)  # fmt: skip
def test_size_is_checked_before_pixels_are_made(tmp_path, ending, content):
    path = tmp_path / f'a.{ending}'
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf'a.{ending} is too large.* limit of 500 MB .*{VARIABLE}') as caught:
        read_image(str(path), 8)
    assert len(str(caught.value).splitlines()) == 1
    assert Image.MAX_IMAGE_PIXELS == 89478485  # Pillow's own, for all others


def test_the_limit_is_that_of_the_user(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    Image.new('RGB', (400, 400), 'red').save(path)
    monkeypatch.setenv(VARIABLE, '1')
    with pytest.raises(DataError, match='limit of 1 MB'):
        read_image(str(path), 8)
    monkeypatch.setenv(VARIABLE, '2')
    assert read_image(str(path), 8)[:, 0, 0].tolist() == [255, 0, 0]


def test_formats_that_run_programs_are_not_read(tmp_path):
    for name in ('a.png', 'a.eps'):
        (tmp_path / name).write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n')
        with pytest.raises(DataError, match='it is no image of a known format'):
            read_image(str(tmp_path / name), 8)


def test_many_images_that_do_not_fit_into_memory(images, monkeypatch):
    monkeypatch.setattr(memory, 'available_bytes', lambda: 10**9)
    with pytest.raises(DataError, match=r'4 images at 9000 x 9000 pixels, does not fit into memory: it needs 2.9 GB'):
        from_folder(images, side=9000, cache_mb=5000)


def test_an_image_is_read_in_bands_as_it_is_as_a_whole(tmp_path, monkeypatch):
    from nni_warmstart.data import image_reading

    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    whole = read_image(str(tmp_path / 'a.png'), 16)
    monkeypatch.setattr(image_reading, '_BAND', 7)
    assert torch.equal(read_image(str(tmp_path / 'a.png'), 16), whole)
    flat = Image.alpha_composite(Image.new('RGBA', (40, 50), 'white'), Image.fromarray(pixels)).convert('RGB')
    buffer = io.BytesIO()
    flat.save(buffer, 'png')
    (tmp_path / 'b.png').write_bytes(buffer.getvalue())
    assert torch.equal(read_image(str(tmp_path / 'b.png'), 16), whole)


def test_a_file_is_listed_by_its_ending(tmp_path):
    for name in ('a/x.PNG', 'b/y.png', 'b/z.txt', '.hidden/x.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, names = image_files.image_files(tmp_path, {'.png'})
    assert [(Path(file).name, label) for file, label in files] == [('x.PNG', 0), ('y.png', 1)]
    assert names == ['a', 'b']


@pytest.mark.parametrize('at_once', [0, 2**20])
def test_images_are_cropped_and_resized_as_torchvision_does(monkeypatch, at_once):
    """To the bit, whether their colours are resized at once or one by one."""
    monkeypatch.setattr(image_reading, '_AT_ONCE', at_once)
    rng = np.random.default_rng(0)
    for height, width, size in ((30, 21, 16), (9, 40, 16), (5, 4, 8), (1, 3, 2), (17, 16, 16), (224, 150, 64)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        channels = [torch.from_numpy(np.array(band))[None] for band in image.split()]
        squares = [functional.center_crop(each, [min(height, width)] * 2) for each in channels]
        expected = torch.cat([functional.resize(each, [size, size], antialias=True) for each in squares])
        found = image_reading.square_of(image, size)
        assert torch.equal(found, expected) and found.is_contiguous()
