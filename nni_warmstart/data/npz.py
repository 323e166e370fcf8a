"""Tasks from npz files: the headers of the arrays are checked before any of them is read."""

from __future__ import annotations

import atexit
import io
import logging
import math
import os
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UNREADABLE, DataError, reason
from ..utils.files import open_regular
from ..utils.limits import Budget
from .arrays import ArrayImages, MappedArray
from .lazy import CACHE_MB, AnyImages, LazyImages
from .memory import check_fits
from .source import PATH, Source
from .task import Task, as_labels, channels_first, check_images, check_labels, checked_task, numbered_classes

_logger = logging.getLogger(__name__)

IMAGES = ('train_x', 'test_x')
"""Arrays of images."""

ARRAYS = ('train_x', 'train_y', 'test_x', 'test_y', 'class_names')
"""Arrays that a file may hold; others are not read."""

_LONGEST_HEADER = 2**14
"""Bytes at the beginning of an array in which its header must end."""

_BEST_COMPRESSION = 20
"""Times by which images may have been compressed without the limit of a file applying; photographs reach 2, digits 8."""


class Header(NamedTuple):
    """Header of an array in an npz file, the bytes that the array takes in it, and its length and order."""

    shape: tuple[int, ...]
    dtype: np.dtype
    stored: int
    start: int
    is_fortran: bool

    @property
    def size(self) -> int:
        """Bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def from_npz(path: str | Path, *, cache_mb: float = CACHE_MB) -> Task:
    """Read a task from one npz file.

    The file holds ``train_x`` ``(n, height, width, channels)``, ``train_y`` ``(n,)``, and optionally ``test_x``, ``test_y``
    and ``class_names``; it is read without pickle. Other arrays are not read.

    Parameters
    ----------
    path
        File.
    cache_mb
        Megabytes of images that are kept in memory. Larger arrays are mapped into memory, and read where they are used; of
        a compressed file they are first unpacked into a temporary one.

    Raises
    ------
    DataError
        If the file or an array is missing, the arrays are not an image-classification task, or they would take more memory
        than is available or than the limit of a file allows.
    """
    path = Path(os.path.expanduser(path))
    try:
        with open_regular(path) as (file, _), zipfile.ZipFile(file) as archive:
            arrays = _arrays(archive, path, cache_mb * 1e6)
    except FileNotFoundError as error:
        raise DataError(f'data file {path} does not exist.') from error
    except OSError as error:
        raise DataError(f'data file {path} cannot be read: {error.strerror or reason(error)}.') from error
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f'data file {path} cannot be read as npz: {reason(error)}; write it with numpy.savez.') from error

    def images(name: str) -> AnyImages:
        array = arrays.pop(name)
        if isinstance(array, MappedArray):
            return LazyImages(ArrayImages(array), cache_mb * 1e6)
        return channels_first(array, path)

    train_x, train_y = images('train_x'), as_labels(arrays.pop('train_y'), path)
    test_x, test_y = train_x[:0], train_y[:0]
    if 'test_x' in arrays:
        test_x, test_y = images('test_x'), as_labels(arrays.pop('test_y'), path)
    names = arrays['class_names'].tolist() if 'class_names' in arrays else numbered_classes(train_y, path)
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: class_names are bytes that are not UTF-8; save them as text.') from error
    return checked_task(path.stem, train_x, train_y, test_x, test_y, names)


def _arrays(archive: zipfile.ZipFile, path: Path, cache: float) -> dict[str, Any]:
    """Read the arrays of a task, after their headers; images that take more than ``cache`` bytes are mapped into memory."""
    there = {member.filename.removesuffix('.npy'): member for member in archive.infolist()}
    missing = {'train_x', 'train_y'} - there.keys()
    if missing:
        named = ', '.join(list(there)[:10]) or 'none'
        raise DataError(f'{path} has no array {", ".join(sorted(missing))}; it has {named[:300]}.')
    if ('test_x' in there) != ('test_y' in there):
        raise DataError(f'{path} has one of test_x and test_y; give both or none.')
    headers: dict[str, Header] = {}
    arrays: dict[str, Any] = {}
    name = ''
    try:
        for name in ARRAYS:
            if name in there:
                headers[name] = _header(archive, there[name])
        sizes = {name: headers[name].size for name in IMAGES if name in headers}
        mapped = [name for name in sizes if sum(sizes.values()) > cache and not headers[name].is_fortran]
        _check(headers, path, mapped)
        for name in headers:
            if name in mapped:
                arrays[name] = _mapped(archive, there[name], headers[name], path)
                continue
            with archive.open(there[name]) as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False, max_header_size=_LONGEST_HEADER)
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f'data file {path} cannot be read as npz: array {name}: {reason(error)[:200]}') from error
    return arrays


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """Read the header of an array.

    Raises
    ------
    ValueError
        If there is none, the array needs pickle, or the file does not hold as many bytes as the header says.
    """
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_LONGEST_HEADER))
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(start, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError('it holds Python objects, which are not read; save numbers, and names as text')
    header = Header(shape, dtype, member.compress_size, start.tell(), is_fortran)
    if header.size != member.file_size - start.tell():
        raise ValueError(f'its header says {header.size} bytes, and {member.file_size - start.tell()} are there')
    return header


def _mapped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: Header, path: Path) -> MappedArray:
    """Map an array into memory, where it lies or, if it is compressed, from a temporary file."""
    offset = header.start
    if member.compress_type == zipfile.ZIP_STORED:
        with open(path, 'rb') as file:
            file.seek(member.header_offset)
            lengths = struct.unpack('<HH', file.read(30)[26:])  # of the name and of extra fields, before the array
        offset += member.header_offset + 30 + sum(lengths)
    else:
        handle, temporary = tempfile.mkstemp(suffix='.npy')
        atexit.register(Path(temporary).unlink, missing_ok=True)
        _logger.info('%s: %s is compressed, and unpacked into %s.', path, member.filename, temporary)
        try:
            with os.fdopen(handle, 'wb') as unpacked, archive.open(member) as file:
                shutil.copyfileobj(file, unpacked, 2**20)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise DataError(
                    f'{path}: {member.filename}, {member.file_size / 1e6:.0f} MB, cannot be unpacked into '
                    f'{Path(temporary).parent} ({error.strerror or reason(error)}); set TMPDIR to another folder.'
                ) from error
            raise
        path = Path(temporary)
    return MappedArray(path, offset, header.shape, header.dtype)


def _check(headers: dict[str, Header], path: Path, mapped: list[str]) -> None:
    """Raise an error for headers that are not those of a task, or of arrays that take too much memory."""
    needed = unpacked = 0
    for images, labels in (('train_x', 'train_y'), ('test_x', 'test_y')):
        if images not in headers:
            continue
        x, y = headers[images], headers[labels]
        check_images(x.shape, x.dtype, path)
        check_labels(y.shape, y.dtype, path)
        if images in mapped:
            unpacked += x.size
        else:
            needed += math.prod(x.shape) * (2 if x.dtype == np.uint8 else x.dtype.itemsize + 4)  # two copies, or float32
        needed += y.size + 8 * y.shape[0]
    if 'class_names' in headers:
        names = headers['class_names']
        if len(names.shape) != 1:
            raise DataError(f'{path}: class_names have shape {names.shape}; needed is one name per class.')
        if names.dtype.itemsize == 0:
            raise DataError(f'{path}: class_names are {names.shape[0]} empty texts; needed is one name per class.')
        needed += 2 * names.size + 200 * names.shape[0]  # as an array, and as a list of texts
    check_fits(f'data file {path}', needed)
    if needed + unpacked > _BEST_COMPRESSION * sum(header.stored for header in headers.values()):
        Budget(f'data file {path}', DataError).spend(needed + unpacked)


SOURCE = Source(
    settings={'path': PATH},
    read=lambda settings, image_size, **options: from_npz(settings['path'], **options),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    recognises=lambda word: word.endswith('.npz') and not os.path.isdir(word),
    options=('cache_mb',),
)
