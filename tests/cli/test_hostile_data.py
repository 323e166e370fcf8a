"""Hostile data, given to the command line in processes of their own: one clear line, little memory, little time."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.measured import measured
from helpers.tiny import save_npz
from PIL import Image

MEGABYTES, SECONDS = 500, 10
"""Largest memory and time that a hostile file may take."""

GIGABYTE = 10**9


def npz(folder: Path, *, compressed: bool = True, **changes: np.ndarray) -> Path:
    arrays = {**np.load(save_npz(folder / 'whole.npz')), **changes}
    (np.savez_compressed if compressed else np.savez)(folder / 'data.npz', **arrays)
    return folder / 'data.npz'


def with_member(folder: Path, member: str, content: bytes, kind: int = zipfile.ZIP_STORED) -> Path:
    """An npz file of which one array is replaced by other bytes."""
    with zipfile.ZipFile(save_npz(folder / 'whole.npz')) as whole, zipfile.ZipFile(folder / 'data.npz', 'w') as file:
        for name in whole.namelist():
            file.writestr(name, content if name == f'{member}.npy' else whole.read(name), kind)
    return folder / 'data.npz'


def zeros(folder: Path, shape: tuple[int, ...], member: str = 'train_x') -> Path:
    """An npz file with an array of zeros that is far smaller than they are; they are never made here."""
    whole = np.load(save_npz(folder / 'whole.npz'))
    with zipfile.ZipFile(folder / 'data.npz', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in whole.files:
            if name != member:
                with file.open(f'{name}.npy', 'w') as stream:
                    np.lib.format.write_array(stream, whole[name])
        with file.open(f'{member}.npy', 'w', force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, {'shape': shape, 'descr': '|u1', 'fortran_order': False})
            left = int(np.prod(shape))
            while left:
                left -= stream.write(bytes(min(left, 2**24)))
    return folder / 'data.npz'


def header(shape: tuple[int, ...], dtype: str = '|u1') -> bytes:
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {'shape': shape, 'descr': dtype, 'fortran_order': False})
    return text.getvalue()


def images(folder: Path) -> Path:
    """A folder of two classes of two images."""
    for name in ('a/0', 'a/1', 'b/0', 'b/1'):
        path = folder / 'images' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (16, 16), (hash(name) % 200, 0, 0)).save(path)
    return folder / 'images'


def with_image(folder: Path, name: str, content: bytes) -> Path:
    path = images(folder) / 'a' / name
    path.write_bytes(content)
    return path.parents[1]


def saved(kind: str, side: int, mode: str = 'L', **settings: object) -> bytes:
    file = io.BytesIO()
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    Image.new(mode, (side, side)).save(file, kind, **settings)
    Image.MAX_IMAGE_PIXELS = before
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    size = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) + b''.join(chunks) + chunk(b'IEND', b'')


def flood(number: int) -> bytes:
    packer = zlib.compressobj(1)
    return b''.join(packer.compress(bytes(10**6)) for _ in range(number)) + packer.flush()


def tiff(side: int, tile: int, data: bytes) -> bytes:
    """A TIFF of one compressed tile, of another size than the image."""
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile), (324, 200)]
    tags.append((325, len(data)))
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags)
    return (b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4)).ljust(200, b'\0') + data


def linked(folder: Path, **links: str) -> Path:
    for link, target in links.items():
        (images(folder) / link.replace('_', '/')).symlink_to(target)
    return folder / 'images'


def replaced(folder: Path, make: Callable[[str], object]) -> Path:
    make(str(folder / 'data.npz'))
    return folder / 'data.npz'


def in_place_of_an_image(folder: Path, make: Callable[[str], object]) -> Path:
    make(str(images(folder) / 'a' / '2.png'))
    return folder / 'images'


def sparse(path: str) -> None:
    with open(path, 'wb') as file:
        file.write(b'RIFF\xff\xff\xff\x7fWEBPVP8 ')
        file.truncate(50 * GIGABYTE)


def bound(path: str) -> None:
    socket.socket(socket.AF_UNIX).bind(path)


LIMIT, MEMORY, PIPE = 'for the limit of 500 MB on one file', 'does not fit into memory', 'it is a pipe, a socket or a device'

HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    # Arrays.
    'unused array of 3 GB': (lambda f: zeros(f, (3 * GIGABYTE,), 'extra'), ''),
    'array of 3 GB': (lambda f: zeros(f, (10**6, 32, 32, 3)), LIMIT),
    'labels of 1 GB': (lambda f: zeros(f, (GIGABYTE,), 'train_y'), LIMIT),
    'header of terabytes': (lambda f: with_member(f, 'train_x', header((10**9, 32, 32, 3))), 'its header says'),
    'long header': (lambda f: with_member(f, 'train_y', b'\x93NUMPY\x02\x00\xff\xff\xff\x7f' + flood(1)), 'train_y: EOF'),
    'names of nothing': (lambda f: with_member(f, 'class_names', header((10**12,), '|S0')), 'empty texts'),
    'pickled labels': (lambda f: npz(f, train_y=np.array([print] * 24)), 'it holds Python objects'),
    'lzma': (lambda f: with_member(f, 'train_x', header((2 * 10**5, 32, 32, 3)), zipfile.ZIP_LZMA), 'its header says'),
    'no zip': (lambda f: replaced(f, lambda path: Path(path).write_text('data: {}')), 'File is not a zip file'),
    'large images': (lambda f: npz(f, train_x=np.zeros((24, 1500, 1500, 1), np.uint8)), ''),
    'pipe': (lambda f: replaced(f, os.mkfifo), PIPE),
    'device': (lambda f: replaced(f, lambda path: os.symlink('/dev/zero', path)), PIPE),
    'socket': (lambda f: replaced(f, bound), PIPE),
    'empty file': (lambda f: replaced(f, lambda path: Path(path).touch()), 'File is not a zip file'),
    # Images.
    'png of 169 megapixels': (lambda f: with_image(f, '2.png', saved('png', 13000)), LIMIT),
    'png of 36 megapixels': (lambda f: with_image(f, '2.png', saved('png', 6000, 'RGB')), ''),
    'transparent png of 30 megapixels': (lambda f: with_image(f, '2.png', saved('png', 5500, 'RGBA')), ''),
    'png with a long text': (
        lambda f: with_image(f, '2.png', png(8, 8, chunk(b'zTXt', b'a\0\0' + flood(1000)), chunk(b'IDAT', flood(1)))), None,
    ),
    'png with much data': (lambda f: with_image(f, '2.png', png(8, 8, chunk(b'IDAT', flood(1000)))), ''),
    'gif': (lambda f: with_image(f, '2.gif', saved('gif', 12000)), LIMIT),
    'webp': (lambda f: with_image(f, '2.webp', saved('webp', 8000, lossless=True)), LIMIT),
    'webp at the limit': (lambda f: with_image(f, '2.webp', saved('webp', 4500, lossless=True)), ''),
    'tiff': (lambda f: with_image(f, '2.tif', saved('tiff', 15000, compression='tiff_deflate')), LIMIT),
    'tile of a tiff': (lambda f: with_image(f, '2.tif', tiff(64, 30000, flood(900))), LIMIT),
    'icon': (lambda f: with_image(f, '2.ico', struct.pack('<HHHBBBBHHII', 0, 1, 1, 9, 9, 0, 0, 1, 32, 10**6, 22)
                                  + saved('png', 9000)), LIMIT),
    'bmp of runs': (lambda f: with_image(f, '2.bmp', b'BM' + struct.pack('<IIIIiiHHIIIIII', 0, 0, 1078, 40, 6000, 5000, 1, 8,
                                         1, 0, 0, 0, 0, 0) + bytes(1024) + b'\xff\x01' * 118000), None),
    'truncated jpeg': (lambda f: with_image(f, '2.jpg', saved('jpeg', 5000, 'RGB')[:-200]), None),
    'PostScript': (
        lambda f: with_image(f, '2.png', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'), 'no image of a known',
    ),
    'sparse file of 50 GB': (lambda f: in_place_of_an_image(f, lambda path: sparse(path)), LIMIT),
    'pipe among images': (lambda f: in_place_of_an_image(f, os.mkfifo), PIPE),
    'device among images': (lambda f: in_place_of_an_image(f, lambda path: os.symlink('/dev/zero', path)), PIPE),
    'socket among images': (lambda f: in_place_of_an_image(f, bound), PIPE),
    # Folders.
    'link to a folder above': (lambda f: linked(f, a_up='..'), 'read already'),
    'two links': (lambda f: linked(f, a_up='..', b_up='..'), 'read already'),
    'link to all files': (lambda f: linked(f, a_root='/'), 'read already'),
    'link to itself': (lambda f: linked(f, a_loop='loop'), 'are no images by their ending'),
    'no folder': (lambda f: images(f) / 'a' / '0.png', 'is no folder'),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_data(tmp_path, name):
    make, message = HOSTILE[name]
    path = make(tmp_path)
    kind = 'npz' if path.suffix == '.npz' else 'folder'
    (tmp_path / 'search.yml').write_text(
        f'data: {{{kind}: {{path: {path}}}}}\nspace: {{name: nasbench201, width: 4, depth: 1, image_size: 8}}\n'
        'evaluator: {max_epochs: 1, batch_size: 2}\nstrategy: {name: DARTS}\n'
    )
    command = ['search', '--config', str(tmp_path / 'search.yml'), '--out', str(tmp_path / 'out')]
    result = measured(command, tmp_path / 'output')
    print(f'{name}: {result.megabytes:.0f} MB, {result.seconds:.1f} s')  # pytest -rP shows it
    assert result.status in (0, 2), result.output[-2000:]
    assert 'Traceback' not in result.output
    errors = [line for line in result.output.splitlines() if line.startswith('error: ')]
    assert len(errors) == (result.status == 2)
    if message is not None:
        assert message in result.output
        assert (result.status == 2) == (message not in ('', 'read already', 'are no images by their ending'))
    assert result.megabytes < MEGABYTES
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert result.seconds < SECONDS * busy
