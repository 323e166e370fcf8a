"""Tasks from image files that lie in tables and archives: Hugging Face datasets on disk, and shards of WebDataset."""

from __future__ import annotations

import glob
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, reason
from ..utils.importing import optional
from ..utils.progress import tracked
from .encoded import EncodedImages, Files
from .image_folder import IMAGE_SIZE
from .image_reading import UnreadableImageError, decoded, endings, read_image
from .lazy import CACHE_MB, LazyImages
from .replacing import Replacing
from .source import PATH, Setting, Source
from .task import Task, as_labels, checked_task, numbered_classes


@dataclass(frozen=True)
class Rows:
    """Encoded images in a column of a Hugging Face dataset.

    Attributes
    ----------
    table
        Dataset whose images are not decoded.
    column
        Name of the column.
    """

    table: Any
    column: str

    def __len__(self) -> int:
        return len(self.table)

    def read(self, position: int, image_size: int, *, draft: bool) -> Tensor:
        """Read an image."""
        cell = self.table[position][self.column]
        if cell is None:
            raise UnreadableImageError(f'row {position} has no image', 'it is missing')
        if cell['bytes'] is None:
            return read_image(cell['path'], image_size, draft=draft)
        name = f'{cell["path"] or "of row"} {position}'
        return decoded(io.BytesIO(cell['bytes']), len(cell['bytes']), name, image_size, draft=draft)


@dataclass(frozen=True)
class Members:
    """Encoded images in tar files that are not compressed.

    Attributes
    ----------
    shards
        Paths of the tar files.
    places
        Shard, first byte and number of bytes of every image, shape ``(n, 3)``, int64.
    """

    shards: list[str]
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def read(self, position: int, image_size: int, *, draft: bool) -> Tensor:
        """Read an image."""
        shard, start, size = self.places[position].tolist()
        with open(self.shards[shard], 'rb') as file:
            file.seek(start)
            content = file.read(size)
        name = f'{position} in {self.shards[shard]}'
        return decoded(io.BytesIO(content), size, name, image_size, draft=draft)


def from_huggingface(
    path: str | Path,
    *,
    image: str = 'image',
    label: str = 'label',
    side: int = IMAGE_SIZE,
    cache_mb: float = CACHE_MB,
    on_error: str = 'stop',
) -> Task:
    """Read a task from a local folder of parquet files, or of images as ``imagefolder`` takes them; nothing is downloaded.

    Parameters
    ----------
    path
        Folder; its split ``test`` (or ``validation``) has the test images.
    image, label
        Columns of the images and of their classes.
    side, cache_mb
        Same as in :func:`~nni_warmstart.data.from_folder`.
    on_error
        'stop', or 'skip' for the next image of the same class in place of one that cannot be read.

    Raises
    ------
    ConfigError
        If the package ``datasets`` is not installed.
    DataError
        If there are no such data.
    """
    datasets, path = optional('datasets', 'datasets'), Path(os.path.expanduser(path))
    if not path.is_dir():
        raise DataError(f'data folder {path} does not exist.')
    try:
        splits = dict(datasets.load_dataset(str(path)))
    except Exception as error:  # of pyarrow, of fsspec, of its own
        raise DataError(f'{path} cannot be read by Hugging Face datasets: {reason(error)[:300]}') from error
    train = splits.get('train')
    if train is None:
        raise DataError(f'{path} has no split train; it has {", ".join(splits)}.')
    for column in (image, label):
        if column not in train.column_names:
            raise DataError(f'{path} has no column {column!r}; it has {", ".join(train.column_names)}.')
    test = splits.get('test', splits.get('validation'))
    parts: list[tuple[Files, Any]] = []
    for table in (train, test):
        if table is not None:
            parts.append((Rows(table.cast_column(image, datasets.Image(decode=False)), image), table[label][:]))
    return _task(path.stem, parts, getattr(train.features[label], 'names', None), side, cache_mb, on_error)


def from_webdataset(
    path: str | Path,
    *,
    test: str | None = None,
    side: int = IMAGE_SIZE,
    cache_mb: float = CACHE_MB,
    on_error: str = 'stop',
) -> Task:
    """Read a task from shards of WebDataset: tar files with an image and a ``.cls`` or ``.json`` (its ``label``) a sample.

    Parameters
    ----------
    path
        Shards as WebDataset writes them, ``train-{000..009}.tar``, or with the wildcards of the shell.
    test
        Shards of the test images, in the folder of the others if it is a relative path; None for no test images.
    side, cache_mb
        Same as in :func:`~nni_warmstart.data.from_folder`.
    on_error
        'stop', or 'skip' for the next image of the same class in place of one that cannot be read.

    Raises
    ------
    ConfigError
        If the package ``webdataset`` is not installed.
    DataError
        If there are no such shards, they are compressed, or a sample has no image or no class.
    """
    parts: list[tuple[Files, Any]] = []
    path = os.path.expanduser(path)
    for pattern in (str(path), test and os.path.join(os.path.dirname(path), os.path.expanduser(test))):
        if pattern:
            parts.append(_indexed(pattern))
    name = Path(str(path)).name.split('{')[0].split('*')[0].rstrip('-_.') or Path(path).parent.name
    return _task(name.removesuffix('.tar'), parts, None, side, cache_mb, on_error)


def _indexed(pattern: str) -> tuple[Members, list[Any]]:
    """Find the images and classes of some shards, whose headers are read, and not their images."""
    shardlists = optional('webdataset.shardlists', 'webdataset')
    split = optional('webdataset.tariterators', 'webdataset').base_plus_ext
    shards = [found for each in shardlists.expand_urls(pattern) for found in sorted(glob.glob(each)) or [each]]
    known = {ending.removeprefix('.') for ending in endings()}
    places: dict[tuple[int, str], tuple[int, int, int]] = {}
    labels: dict[tuple[int, str], Any] = {}
    for number, shard in enumerate(tracked(shards, f'headers of {pattern}')):
        try:
            with tarfile.open(shard, 'r:') as archive:
                for member in archive:
                    base, ending = split(member.name)
                    if not member.isfile() or base is None:
                        continue
                    if ending.rpartition('.')[2].lower() in known:
                        if '.' in ending and (number, base) in places:
                            continue  # NAME.mask.png, say, beside NAME.png
                        places[number, base] = number, member.offset_data, member.size
                    elif ending in ('cls', 'json') and (content := archive.extractfile(member)) is not None:
                        value = _told(content.read(), ending)
                        if ending == 'cls' or (value is not None and (number, base) not in labels):
                            labels[number, base] = value
        except (OSError, tarfile.TarError, ValueError, RecursionError) as error:
            raise DataError(
                f'shard {shard} cannot be read ({reason(error)}); needed is a tar without compression.'
            ) from error
    without = [base for number, base in places if labels.get((number, base)) is None]
    if without or not places:
        what = f'{len(without)} samples without a class, such as {without[0]}' if without else 'no images'
        raise DataError(f'{pattern} has {what}; each needs an image and NAME.cls, or NAME.json with a label.')
    return Members(shards, np.array(list(places.values()), np.int64)), [labels[key] for key in places]


def _told(content: bytes, ending: str) -> Any:
    """Return the class in a NAME.cls, a number or a name, or in a NAME.json of metadata; None for none."""
    try:
        value = json.loads(content)
    except ValueError:
        if ending == 'json':
            raise
        value = content.decode().strip()
    if ending == 'cls' and isinstance(value, float):
        return content.decode().strip()  # a name, such as 1.10, which is not 1.1
    return value.get('label') if isinstance(value, dict) else value


def _is_class(label: Any) -> bool:
    if isinstance(label, float | np.floating):
        return float(label).is_integer()
    return isinstance(label, str | int | np.generic)


def _task(name: str, parts: Sequence[tuple[Files, Any]], names: Any, side: int, cache_mb: float, on_error: str) -> Task:
    """Make a task of image files and classes, which are numbered in the order of their names if they are text."""
    for _, given in parts:
        wrong = [each for each in given if not _is_class(each)]
        if wrong:
            raise DataError(f'{name} has the label {str(wrong[0])[:60]}, which is neither a whole number nor text.')
    values = np.asarray(parts[0][1])
    numbers: dict[Any, int] = {}
    if names is None:
        distinct = sorted(set(values.tolist()))
        if values.dtype.kind not in 'iu':
            numbers = {value: number for number, value in enumerate(distinct)}
        names = distinct if numbers else numbered_classes(torch.as_tensor(values), name)
    draft = sum(len(files) for files, _ in parts) * 3 * side**2 > cache_mb * 1e6
    images, labels = [], []
    for files, given in parts:
        unknown = sorted({str(each) for each in np.asarray(given).tolist() if each not in numbers}) if numbers else []
        if unknown:
            raise DataError(f'{name} has test classes that the training images lack: {", ".join(unknown[:10])}.')
        y = np.asarray([numbers[value] for value in np.asarray(given).tolist()] if numbers else given)
        labels.append(as_labels(y, name))
        reader = EncodedImages(files, side, draft=draft)
        images.append(LazyImages(Replacing(reader, labels[-1]) if on_error == 'skip' else reader, cache_mb * 1e6))
    if len(parts) == 1:
        images.append(torch.empty((0, 3, side, side), dtype=torch.uint8))
        labels.append(labels[0][:0])
    return checked_task(name, images[0], labels[0], images[1], labels[1], [str(each) for each in names]).held()


HUGGINGFACE = Source(
    settings={'path': PATH, 'image': Setting(str, default='image'), 'label': Setting(str, default='label')},
    read=lambda settings, image_size, **options: from_huggingface(**settings, side=image_size, **options),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    options=('cache_mb', 'on_error'),
)

WEBDATASET = Source(
    settings={'path': PATH, 'test': Setting(str, default='')},
    read=lambda settings, image_size, **options: from_webdataset(
        settings['path'], test=settings['test'] or None, side=image_size, **options
    ),
    title=lambda settings: Path(str(settings.get('path'))).stem,
    options=('cache_mb', 'on_error'),
)
