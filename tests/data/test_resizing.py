"""Images are brought to one shape as a triangle filter does it, written down here as a product of matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nni_warmstart import DataError
from nni_warmstart.data import Task
from nni_warmstart.data.labelled import read_labelled
from nni_warmstart.data.resizing import resize_images


def weights(before: int, after: int) -> np.ndarray:
    """Shares of the pixels of a row of ``before`` in one of ``after``, shape ``(after, before)``."""
    scale = before / after
    width = max(scale, 1.0)  # antialiased: the filter grows with the pixels that become one
    centres = (np.arange(after)[:, None] + 0.5) * scale
    share = np.clip(1 - np.abs(np.arange(before)[None] + 0.5 - centres) / width, 0, None)
    return share / share.sum(1, keepdims=True)


def expected(x: torch.Tensor, channels: int, size: int) -> np.ndarray:
    images = x.double().numpy()
    if images.shape[1] != channels:
        images = images.mean(1, keepdims=True) if channels == 1 else images.repeat(channels, 1)
    return np.einsum('ih,nchw,jw->ncij', weights(x.shape[2], size), images, weights(x.shape[3], size))


def images(channels: int, dtype: torch.dtype) -> torch.Tensor:
    return (255 * torch.rand(5, channels, 9, 13, generator=torch.Generator().manual_seed(0))).to(dtype)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
@pytest.mark.parametrize('before', [1, 3])
@pytest.mark.parametrize('after', [1, 3])
@pytest.mark.parametrize('size', [4, 9, 32])
def test_a_task_and_a_sketch_see_images_resized_alike(dtype, before, after, size):
    x, y = images(before, dtype), torch.arange(5) % 2
    wanted = expected(x, after, size)
    task = Task('noise', x, y, x[:2], y[:2], ('a', 'b')).adapted(after, size)
    seen, _ = read_labelled((x, y), 'noise', after, size)
    assert seen.dtype == torch.float32
    assert np.allclose(seen.numpy(), wanted, atol=1e-3)
    averaged = before == 3 and after == 1
    assert task.train_x.dtype == (torch.float32 if averaged else dtype)
    if task.train_x.dtype == torch.uint8:
        assert np.abs(task.train_x.numpy() - wanted).max() <= 0.5 + 1e-3
        assert torch.equal(task.train_x, seen.round().clamp(0, 255).to(torch.uint8))
    else:
        assert torch.equal(task.train_x, seen)
    assert torch.equal(task.test_x, task.train_x[:2])


def test_images_of_the_shape_stay_as_they_are():
    x = images(3, torch.uint8)[:, :, :9, :9]
    assert resize_images(x, 3, 9) is x
    assert resize_images(x[:0], 3, 32).shape == (0, 3, 9, 9)


def test_many_images_are_resized_as_a_few_are():
    x = (255 * torch.rand(1030, 1, 4, 4, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    assert torch.equal(resize_images(x, 3, 6)[1020:], resize_images(x[1020:], 3, 6))


def test_channels_that_cannot_be_made():
    x, y = images(3, torch.uint8), torch.arange(5) % 2
    with pytest.raises(DataError, match='noise has 3 channels and the space takes 2'):
        Task('noise', x, y, x, y, ('a', 'b')).adapted(2, 8)


def test_images_that_do_not_fit_into_memory(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr('torch.nn.functional.interpolate', full)
    x, y = images(3, torch.uint8), torch.arange(5) % 2
    with pytest.raises(DataError, match='noise does not fit into memory at 64 x 64 pixels: 5 images'):
        Task('noise', x, y, x, y, ('a', 'b')).adapted(3, 64)
