"""Images and labels that a caller has at hand: arrays of any layout, or image files, and labels of any type."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, reason
from .image_reading import read_image
from .lazy import subset
from .stratified import stratified_part
from .task import Task, channels_first

CHANNELS = (1, 3)
"""Numbers of channels that images may have."""


def as_images(x: Any, image_size: int) -> Tensor:
    """Return images as a tensor.

    Parameters
    ----------
    x
        Numbers of shape ``(n, height, width)``, ``(n, height, width, channels)`` or, if the channels are told by it,
        ``(n, channels, height, width)``; or paths of image files.
    image_size
        Size in pixels at which files are read, each cropped to a centred square.

    Returns
    -------
    Tensor
        Shape ``(n, channels, height, width)``, uint8 if ``x`` is, else float32.

    Raises
    ------
    DataError
        If they are no images, or a file cannot be read.
    """
    if isinstance(x, str | os.PathLike):
        raise DataError(f'X = {str(x)!r} is one path; give a list of image files, or an array.')
    if isinstance(x, Image.Image):
        raise DataError('X is one image; give a list of images, [X].')
    if isinstance(x, list | tuple):
        x = [each.convert('RGB') if isinstance(each, Image.Image) and each.mode == 'P' else each for each in x]
    try:
        array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    except (ValueError, TypeError) as error:
        raise DataError(f'X is no array of images of one size: {reason(error)[:200]}') from error
    if array.ndim == 1 and len(array) and all(isinstance(each, str | os.PathLike) for each in array):
        return torch.stack([read_image(os.path.expanduser(each), image_size) for each in array])
    images = channels_first(_channels_last(array), 'X')
    if not len(images):
        raise DataError('X is empty: it has no image.')
    if images.is_floating_point() and not torch.isfinite(images).all():
        bad = int((~torch.isfinite(images).flatten(1).all(1)).sum())
        raise DataError(f'X has NaN or infinite pixels in {bad} images; remove or repair them.')
    return images


def _channels_last(array: np.ndarray) -> np.ndarray:
    """Return images of any layout as ``(n, height, width, channels)``."""
    if array.ndim == 3 and array.shape[2] in CHANNELS:
        raise DataError(f'X has shape {array.shape}, which is that of one image; give X[None].')
    if array.ndim == 3:
        return array[..., None]
    if array.ndim != 4:
        raise DataError(
            f'X has shape {array.shape}; needed is (n, height, width) for grey images, (n, height, width, channels) or '
            '(n, channels, height, width) with 1 or 3 channels, or paths of image files.'
        )
    first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
    if first and last:
        raise DataError(
            f'X has shape {array.shape}, in which the channels may come first or last; give images of more than 3 pixels '
            'in height and width, or grey ones as (n, height, width).'
        )
    return array.transpose(0, 2, 3, 1) if first else array


def as_classes(y: Any, count: int) -> tuple[np.ndarray, Tensor]:
    """Return the different labels, sorted, and the number of the label of each image, int64, shape ``(n,)``.

    Parameters
    ----------
    y
        Labels of any type that can be sorted, shape ``(n,)``.
    count
        Number of images.

    Raises
    ------
    DataError
        If there is not one label per image, or some are missing, of several types, or no classes.
    """
    is_list = isinstance(y, list | tuple)
    try:
        labels = np.asarray(y, object if is_list else None)  # beside text, a list's numbers and NaN would become text
    except (TypeError, ValueError) as error:
        raise DataError(f'y is no array of labels: {reason(error)[:200]}') from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise DataError(f'y has shape {labels.shape}, and X has {count} images; needed is one label per image.')
    try:
        missing = sum(label is None or bool(label != label) for label in labels)
        missing += np.ma.count_masked(y) if isinstance(y, np.ma.MaskedArray) else 0
        if missing:
            raise DataError(f'y has {missing} missing labels; leave these images out.')
        if is_list and len({isinstance(label, str) for label in labels}) == 1:
            labels = np.array(labels.tolist())
        classes, numbers = np.unique(labels, return_inverse=True)
    except (TypeError, ValueError) as error:  # values of several types, or pandas' NA
        raise DataError(f'y has labels that cannot be compared with each other ({reason(error)[:200]}).') from error
    kinds = np.array(classes.tolist())  # of a column of objects, too
    if kinds.dtype.kind in 'fc' and (kinds.dtype.kind == 'c' or (kinds != np.round(kinds)).any()):
        raise DataError(f'y has numbers such as {classes[0]!r}; labels are classes: text, or whole numbers.')
    return classes, torch.from_numpy(np.ascontiguousarray(numbers.reshape(-1), np.int64))


def with_held_out(task: Task, share: float) -> Task:
    """Return a task whose test images are ``share`` of its training images, at least one of each class; drawn by seed 0.

    A task that has test images, and a share of 0, stay as they are.
    """
    if len(task.test_x) or not share:
        return task
    test = stratified_part(task.train_y, round(share * len(task.train_y)), seed=0)
    is_left = torch.ones(len(task.train_y), dtype=torch.bool)
    is_left[test] = False
    train = is_left.nonzero().squeeze(1)
    return replace(
        task,
        train_x=subset(task.train_x, train),
        train_y=task.train_y[train],
        test_x=subset(task.train_x, test),
        test_y=task.train_y[test],
    )
