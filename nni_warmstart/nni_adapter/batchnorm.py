"""Re-estimation of batch-norm statistics on given data, since inherited ones describe other images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from nni.nas.oneshot.pytorch.supermodule.operation import MixedBatchNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ..utils.inputs import size_of
from ..utils.modules import modes_kept
from .mixed import momentum_of


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the modules with running statistics, NNI's mixed ones included."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def reestimate(model: nn.Module, inputs: Iterable[Any], norms: Sequence[_BatchNorm] | None = None) -> int:
    """Replace running means and variances by their averages over batches, each batch weighted by its size.

    A module that runs several times per batch gets the average over all of its calls. Everything else (dropout, drop path)
    runs as in evaluation. The variance is the mean of the batches' variances, by which the network was normalised in
    training (cf. "PreciseBN", Wu & Johnson, arXiv 2105.07576).

    Parameters
    ----------
    model
        Network, of which only the running statistics are changed, in place. Modes and momenta are restored.
    inputs
        Batches in the form that ``model`` takes.
    norms
        Modules whose statistics are estimated; None for all of the model.

    Returns
    -------
    int
        Number of images used; with 0 the statistics are unchanged.
    """
    norms = batch_norms(model) if norms is None else norms
    if not norms:
        return 0
    seen = 0
    with torch.no_grad(), _estimating(model, norms), _Averages(norms) as averages:
        for x in inputs:
            size = size_of(x)
            if size < 2:  # batch norm cannot train on a single image
                continue
            seen += size
            averages.size = size
            for norm in norms:  # for modules that do not go through F.batch_norm, such as SyncBatchNorm on several devices
                _set_momentum(norm, size / seen)
            model(x)
    return seen


class _Averages(TorchFunctionMode):
    """Make running statistics the averages over all calls, weighted by ``size``, the number of images of a call."""

    def __init__(self, norms: Sequence[_BatchNorm]) -> None:
        super().__init__()
        self.size = 0
        self.seen = {cast(Tensor, norm.running_mean).data_ptr(): 0 for norm in norms}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs['training'] and args[1] is not None and args[1].data_ptr() in self.seen:
            place = args[1].data_ptr()  # a path of NNI's mixed batch norm has the first part of its statistics
            self.seen[place] += self.size
            kwargs = {**kwargs, 'momentum': self.size / self.seen[place]}
        return func(*args, **kwargs)


@contextmanager
def by_batch(model: nn.Module) -> Iterator[None]:
    """Normalise each batch by its own statistics, without changing the running ones."""
    norms = batch_norms(model)
    with _estimating(model, norms):
        for norm in norms:
            _set_momentum(norm, 0.0)
        yield


@contextmanager
def _estimating(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    momenta = [momentum_of(norm) for norm in norms]
    with modes_kept(model):
        model.eval()
        for norm in norms:
            norm.train()
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                _set_momentum(norm, momentum)


def _set_momentum(norm: _BatchNorm, momentum: float | None) -> None:
    # NNI's MixedBatchNorm2d ignores its attribute and passes the constructor's momentum to F.batch_norm.
    if isinstance(norm, MixedBatchNorm2d):
        norm.init_arguments['momentum'] = momentum
    else:
        norm.momentum = momentum
