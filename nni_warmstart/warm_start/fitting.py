"""Fitting of a warm network to the target's data: batch-norm statistics, and a classifier on its features."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.labelled import check_range
from ..errors import TransferError
from ..nni_adapter import batchnorm
from ..nni_adapter.classifier import dropout_before, features_of, write_head
from ..supernets.supernet import Supernet
from ..utils.inputs import to_device
from .heads.base import BOLDNESS, HeadData
from .heads.registry import HEADS
from .settings import TransferSettings

Batches = Sequence[tuple[Any, Tensor]]


def fit_other_classes(
    model: nn.Module, head_name: str, source: Supernet, batches: Batches, settings: TransferSettings, classes: list[int]
) -> None:
    """Fit the rows of some classes by 'ridge', in place, on the scale of the logits of the others.

    Parameters as in :func:`fit_head`; ``classes`` are the rows to fit.
    """
    module = model.get_submodule(head_name)
    assert isinstance(module, nn.Linear)
    before = copy.deepcopy(module)
    fit_head(model, head_name, source, batches, replace(settings, head='ridge'))
    features, _ = features_of(model, head_name, batches, settings.device)
    others = [row for row in range(module.out_features) if row not in classes]
    if not others:
        return
    with torch.no_grad():
        factor, offset = _on_one_scale(before(features)[:, others], module(features)[:, others])
        weight, bias = before.weight.clone(), None if before.bias is None else before.bias.clone()
        weight[classes] = module.weight[classes] * factor
        if bias is not None:
            bias[classes] = factor * module.bias[classes] + offset
        write_head(module, weight, bias)


def reestimate_statistics(model: nn.Module, batches: Batches, device: torch.device | str) -> Iterator[str]:
    """Replace batch-norm statistics in place; yield the names of the buffers that changed.

    A path that was not run (Proxyless) keeps its own.
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    batchnorm.reestimate(model, (x.to(device) for x, _ in batches))
    return (name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name]))


def fit_head(model: nn.Module, head_name: str, source: Supernet, batches: Batches, settings: TransferSettings) -> None:
    """Fit the classifier to the warm features of some data, in place.

    Parameters
    ----------
    model
        Warm network, on the device of ``settings``.
    head_name
        Path of its classifier.
    source
        Supernet that it started from; the first of several.
    batches
        Images and their classes.
    settings
        Settings of the warm start: the head, and the rows of each dataset.

    Raises
    ------
    TransferError
        If the classes, the rows or the features do not fit the classifier, or its weights cannot be set.
    """
    module = model.get_submodule(head_name)
    fit = HEADS[settings.head].fit
    assert isinstance(module, nn.Linear) and fit is not None
    rows_of: Mapping[str, tuple[int, int]] = {'': (0, module.out_features)} if settings.heads is None else settings.heads
    if any(not 0 <= start < stop <= module.out_features for start, stop in rows_of.values()):
        raise TransferError(f'heads = {dict(rows_of)}, but the classifier has rows 0 to {module.out_features} only.')
    ends = sorted(rows_of.values())
    if any(stop > start for (_, stop), (start, _) in itertools.pairwise(ends)):
        raise TransferError(f'heads = {dict(rows_of)}, but rows of two datasets must not overlap.')
    features, labels = features_of(model, head_name, batches, settings.device)
    dropout = dropout_before(model, head_name, to_device(batches[0][0], settings.device))
    check_range(labels, module.out_features)
    if not torch.isfinite(features).all():
        raise TransferError('the features of data are not finite; look for NaN or infinite pixels in the images.')
    members = [(labels >= start) & (labels < stop) for start, stop in rows_of.values()]
    others = labels[~torch.stack(members).any(0)]
    if len(others):
        raise TransferError(f'heads = {dict(rows_of)}, but images are of class {int(others.min())}, which no dataset has.')
    with torch.no_grad():
        weight, bias = module.weight.clone(), None if module.bias is None else module.bias.clone()
    for (start, stop), chosen in zip(rows_of.values(), members, strict=True):
        if not chosen.any():  # the first images have none of this dataset
            continue
        own = HeadData(
            features[chosen], labels[chosen] - start, stop - start, module.bias is not None, source, head_name, dropout
        )
        fitted = fit(own)
        weight[start:stop] = fitted.weight
        if bias is not None:
            bias[start:stop] = fitted.bias
    if not write_head(module, weight, bias):
        raise TransferError(
            f'head {settings.head!r} cannot be fitted to {head_name!r}, whose weight is computed from other tensors and '
            "cannot be set (spectral norm, say); use head='random'."
        )


def _on_one_scale(copied: Tensor, fitted: Tensor) -> tuple[float, float]:
    """Return the factor and the offset by which fitted logits come nearest to copied ones of the same classes.

    The factor is at most the one that makes timid logits calibrated ones.

    Parameters
    ----------
    copied, fitted
        Logits of both classifiers for the same images and classes, shape ``(n, n_classes)``.
    """
    centred = fitted - fitted.mean()
    factor = float((centred * (copied - copied.mean())).sum() / centred.square().sum().clamp_min(1e-12))
    factor = min(max(factor, 0.0), 1 / BOLDNESS)  # of few samples, fitted logits may hardly differ
    return factor, float(copied.mean() - factor * fitted.mean())
