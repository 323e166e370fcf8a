"""Generated images: photographs without meaning, whose class is a tint, as JPEG folders and as CIFAR-10's own files."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = 10
DISTINCT = 2000
"""JPEG files with pixels of their own; the others are copies of these, each with a comment of its own."""


def image(rng: np.random.Generator, label: int, side: int) -> np.ndarray:
    """Return clouds with noise, tinted by the class, shape ``(side, side, 3)``, uint8."""
    clouds = rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(clouds).resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels[..., label % 3] += 12 * label - 54
    return (pixels + rng.integers(-12, 13, pixels.shape)).clip(0, 255).astype(np.uint8)


def jpeg_folder(path: Path, count: int, side: int = 224) -> Path:
    """Write ``count`` JPEGs in one folder per class, if they are not there yet."""
    rng = np.random.default_rng(0)
    done = path / 'done'
    if done.exists():
        return path / 'images'
    for number in range(count):
        label = number % CLASSES
        file = path / 'images' / str(label) / f'{number:07}.jpg'
        if number < CLASSES:
            file.parent.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            Image.fromarray(image(rng, label, side)).save(file, quality=85)
        else:
            whole = (path / 'images' / str(label) / f'{number % DISTINCT:07}.jpg').read_bytes()
            comment = b'%07d' % number
            file.write_bytes(whole[:2] + b'\xff\xfe' + (len(comment) + 2).to_bytes(2, 'big') + comment + whole[2:])
    done.touch()
    return path / 'images'


def cifar10(path: Path, count: int = 50000) -> Path:
    """Write ``count`` images for training, and a fifth of it for testing, in the format of CIFAR-10."""
    rng = np.random.default_rng(0)
    folder = path / 'cifar-10-batches-py'
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch']
    for name in names:
        labels = [number % CLASSES for number in range(count // 5)]
        pixels = np.stack([image(rng, label, 32).transpose(2, 0, 1).reshape(-1) for label in labels])
        (folder / name).write_bytes(pickle.dumps({'data': pixels, 'labels': labels}, protocol=2))
    (folder / 'batches.meta').write_bytes(pickle.dumps({'label_names': [f'class {i}' for i in range(CLASSES)]}, protocol=2))
    return path


def made_by(path: Path) -> dict[str, Any]:
    """Return the attributes with which torchvision's class CIFAR10 takes the files of :func:`cifar10` for its own."""
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in (path / 'cifar-10-batches-py').iterdir()}
    train = sorted(name for name in sums if name.startswith('data_batch'))
    meta = {'filename': 'batches.meta', 'key': 'label_names', 'md5': sums['batches.meta']}
    return {
        'train_list': [[name, sums[name]] for name in train],
        'test_list': [['test_batch', sums['test_batch']]],
        'meta': meta,
    }
