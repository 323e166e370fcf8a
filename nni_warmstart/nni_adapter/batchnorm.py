"""Batch-norm statistics re-estimated on given data: inherited ones describe other images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils.modules import modes_kept


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Modules with running statistics, NNI's mixed ones included."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def reestimate(model: nn.Module, inputs: Iterable[Any]) -> int:
    """Replace running means and variances by their average over batches, each batch weighted by its size.

    Everything else (dropout, drop path) runs as in evaluation. The variance is the mean of the batches' variances: what
    the network was normalised by in training (cf. "PreciseBN", Wu & Johnson, arXiv 2105.07576).

    Parameters
    ----------
    model
        Changed in place: running statistics only. Modes and momenta are put back.
    inputs
        Batches as ``model`` takes them.

    Returns
    -------
    int
        Number of images used; 0 leaves the statistics as they were.
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    seen = 0
    with torch.no_grad(), _estimating(model, norms):
        for x in inputs:
            size = len(x) if isinstance(x, Tensor) else len(x[0])
            if size < 2:  # batch norm cannot train on a single image
                continue
            seen += size
            for norm in norms:
                _set_momentum(norm, size / seen)
            model(x)
    return seen


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Put running statistics back at the end, to the bit."""
    saved = [(buffer, buffer.clone()) for norm in batch_norms(model) for buffer in norm.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)


@contextmanager
def by_batch(model: nn.Module) -> Iterator[None]:
    """Normalise each batch by its own statistics, running ones left alone."""
    norms = batch_norms(model)
    with _estimating(model, norms):
        for norm in norms:
            _set_momentum(norm, 0.0)
        yield


@contextmanager
def _estimating(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    momenta = [_momentum(norm) for norm in norms]
    with modes_kept(model):
        model.eval()
        for norm in norms:
            norm.train()
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                _set_momentum(norm, momentum)


def _momentum(norm: _BatchNorm) -> float | None:
    return norm.init_arguments['momentum'] if isinstance(norm, MixedBatchNorm2d) else norm.momentum


def _set_momentum(norm: _BatchNorm, momentum: float | None) -> None:
    # NNI's mixed batch norm calls F.batch_norm itself, with the momentum it was constructed with.
    if isinstance(norm, MixedBatchNorm2d):
        norm.init_arguments['momentum'] = momentum
    else:
        norm.momentum = momentum
