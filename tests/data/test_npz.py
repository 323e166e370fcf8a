"""Npz files of any content: what is not needed is not read, and what would take too much memory is refused in one line."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import save_npz

from nni_warmstart import DataError
from nni_warmstart.data import from_npz, memory
from nni_warmstart.utils.limits import VARIABLE


def saved(path: Path, member: str, content: bytes) -> Path:
    """A file whose array ``member`` is replaced by other bytes."""
    with zipfile.ZipFile(save_npz(path.with_name('whole.npz'))) as whole, zipfile.ZipFile(path, 'w') as file:
        for name in whole.namelist():
            file.writestr(name, content if name == f'{member}.npy' else whole.read(name))
    return path


def header(shape: tuple[int, ...], dtype: str = '|u1', version: tuple[int, int] = (1, 0)) -> bytes:
    text = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(text, {'shape': shape, 'descr': dtype, 'fortran_order': False})
    return text.getvalue()


def test_arrays_that_are_not_needed_are_not_read(tmp_path):
    np.savez(tmp_path / 'a.npz', **np.load(save_npz(tmp_path / 'whole.npz')), extra=np.array([{}], dtype=object))
    assert len(from_npz(tmp_path / 'a.npz').train_x) == 24


@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('dtype', ['uint8', 'bool', 'int16', '>f8', 'float16'])
def test_arrays_of_any_type_and_order(tmp_path, dtype, order):
    x = np.asarray(np.arange(24 * 8 * 8 * 3).reshape(24, 8, 8, 3) % 200, dtype=dtype, order=order)
    task = from_npz(save_npz(tmp_path / 'a.npz', train_x=x))
    assert np.array_equal(task.train_x.permute(0, 2, 3, 1).numpy(), x.astype(np.uint8 if dtype == 'uint8' else np.float32))


@pytest.mark.parametrize(
    ('member', 'content', 'message'),
    [
        ('train_x', header((10**9, 8, 8, 3)), r'array train_x: its header says 192000000000 bytes, and 0 are there'),
        ('train_x', header((-24, -8, 8, 3)) + bytes(4608), 'cannot be read as npz: array train_x'),
        ('train_x', header((24, 8, 8, 3), '|O'), 'array train_x: it holds Python objects, which are not read'),
        ('train_y', header((24,), '|V8') + bytes(192), 'labels have shape .24,. and type .V8; they must be whole numbers'),
        ('train_y', b'\x93NUMPY\x02\x00\xff\xff\xff\xff' + b' ' * 2**20, 'array train_y: EOF'),
        ('train_y', b'\x93NUMPY\x09\x00', 'cannot be read as npz: array train_y'),
        ('train_y', b'', 'cannot be read as npz: array train_y'),
        ('class_names', header((10**12,), '|S0'), 'class_names are 1000000000000 empty texts'),
        ('class_names', header((3, 1), '<U1') + bytes(12), r'class_names have shape \(3, 1\)'),
    ],
    ids=['too many', 'negative', 'objects', 'records', 'long header', 'version', 'empty', 'names of nothing', 'names'],
)
def test_headers_that_lie(tmp_path, member, content, message):
    with pytest.raises(DataError, match=message):
        from_npz(saved(tmp_path / 'a.npz', member, content))


def test_what_is_much_larger_than_its_file_counts_against_the_limit(tmp_path, monkeypatch):
    """Zeros of two megabytes, compressed to some thousand bytes."""
    arrays = {'train_x': np.zeros((700, 32, 32, 3), np.uint8), 'train_y': np.arange(700) % 2}
    np.savez_compressed(tmp_path / 'zeros.npz', **arrays)
    arrays['train_x'] = np.random.default_rng(0).integers(0, 255, (700, 32, 32, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / 'noise.npz', **arrays)
    assert len(from_npz(tmp_path / 'zeros.npz').train_x) == 700
    monkeypatch.setenv(VARIABLE, '1')
    assert len(from_npz(tmp_path / 'noise.npz').train_x) == 700
    with pytest.raises(DataError, match=rf'zeros.npz is too large.* limit of 1 MB .*{VARIABLE}'):
        from_npz(tmp_path / 'zeros.npz')


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = save_npz(tmp_path / 'a.npz')
    monkeypatch.setattr(memory, 'available_bytes', lambda: 10_000)
    with pytest.raises(DataError, match=r'a.npz does not fit into memory: it needs 0 MB, and 0 MB are available'):
        from_npz(path)
    monkeypatch.undo()
    task = from_npz(path)
    monkeypatch.setattr(memory, 'available_bytes', lambda: 10**9)
    with pytest.raises(DataError, match=r'a at 5000 x 5000 pixels does not fit into memory: it needs 2.2 GB, and 1.0 GB'):
        task.adapted(3, 5000)
    assert task.adapted(3, 8).train_x is task.train_x


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    for name, text in (('limit', '3000'), ('use', '1000'), ('none', 'max')):
        (tmp_path / name).write_text(text)
    folder = str(tmp_path)
    monkeypatch.setattr(memory, '_CGROUPS', [(folder, 'none', 'use', 'files'), (folder, 'limit', 'use', 'files')])
    assert memory.available_bytes() == 2000
    (tmp_path / 'memory.stat').write_text('anon 50\nfiles 900\n')  # given back when memory is needed
    assert memory.available_bytes() == 2900


def test_what_is_no_npz_file(tmp_path):
    (tmp_path / 'search.yml').write_text('data: {npz: {path: a.npz}}')
    with pytest.raises(DataError, match=r'search.yml cannot be read as npz: File is not a zip file; write it with'):
        from_npz(tmp_path / 'search.yml')
    os.mkfifo(tmp_path / 'pipe.npz')
    for path in (tmp_path / 'pipe.npz', '/dev/zero'):
        with pytest.raises(DataError, match='cannot be read: it is a pipe, a socket or a device'):
            from_npz(path)
    with pytest.raises(DataError, match='cannot be read: Is a directory'):
        from_npz(tmp_path)


def test_a_full_temporary_folder_is_named_and_left_empty(tmp_path, monkeypatch):
    arrays = {'train_x': np.zeros((24, 8, 8, 3), np.uint8), 'train_y': np.arange(24) % 2}
    np.savez_compressed(tmp_path / 'a.npz', **arrays)
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))

    def full(_, target, *__):
        target.write(bytes(9))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, 'copyfileobj', full)
    with pytest.raises(
        DataError, match=r'train_x.npy, 0 MB, cannot be unpacked into .*temporary \(No space left on device\)'
    ):
        from_npz(tmp_path / 'a.npz', cache_mb=0)
    assert not list((tmp_path / 'temporary').iterdir())
