"""Head 'ridge': a classifier by ridge regression on warm features."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...data.labelled import has_classes, in_range
from ...nni_adapter.classifier import dropout_before, features_of, find_head, write_head
from ...utils.inputs import to_device
from .base import BOLDNESS, Head, HeadData, LinearHead, sharpness

LONGEST = 30.0
"""Largest norm of the weights, in units of that of fresh ones. On twelve tasks the classifiers of the shipped supernets of
`nasbench201` have 0.3 to 6, those of `darts` up to 12."""


def ridge(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    bias: bool = True,
    boldness: float = BOLDNESS,
    dropout: float = 0.0,
) -> LinearHead:
    r"""Fit a ridge regression to one-hot classes, and scale its predictions to logits.

    The penalty minimises the leave-one-out squared error, which has a closed form for ridge regression,
    :math:`(y_i - \hat y_i) / (1 - H_{ii})` with the hat matrix :math:`H`. Predictions lie near 0 and 1; as logits they
    would be far too small, so they are multiplied by ``boldness`` times the scale that minimises the cross-entropy of the
    leave-one-out predictions.

    Parameters
    ----------
    features
        Inputs of the classifier, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64.
    n_classes
        Rows of the classifier.
    bias
        Whether the classifier has a bias; without one, features are not centred.
    boldness
        Share of the calibrated scale; 1 gives the logits of a calibrated classifier.
    dropout
        Probability p of dropout in front of the classifier. Its noise adds :math:`p / (1 - p) \sum_{ij} x_{ij}^2 w_j^2` to
        the squared error in the mean, so that weights whose terms cancel out are not used.

    Returns
    -------
    LinearHead
        Classifier with dtype and device of ``features``, computed in float64.

    References
    ----------
    Hoerl & Kennard, *Ridge Regression*, Technometrics 12(1), 1970; Allen, *The Relationship between Variable Selection
    and Data Augmentation and a Method for Prediction*, Technometrics 16(1), 1974 (the leave-one-out formula); Wager, Wang &
    Liang, *Dropout Training as Adaptive Regularization*, NeurIPS 2013.
    """
    return ridge_and_left_out(features, labels, n_classes, bias, boldness, dropout)[0]


def ridge_and_left_out(
    features: Tensor, labels: Tensor, n_classes: int, bias: bool, boldness: float, dropout: float = 0.0
) -> tuple[LinearHead, Tensor]:
    """Return the classifier of :func:`ridge`, and the leave-one-out predictions of the regression."""
    x, unit = features.double(), torch.ones(features.shape[1], dtype=torch.float64, device=features.device)
    if dropout:  # in units of their root mean square, noise has the same variance in all features
        unit = x.square().mean(0).sqrt().clamp_min(1e-12)
        x = x / unit
    noise = len(x) * dropout / max(1 - dropout, 1e-3)
    y = torch.nn.functional.one_hot(labels, n_classes).double()
    mean_x = x.mean(0) if bias else torch.zeros_like(x[0])
    mean_y = y.mean(0) if bias else torch.zeros_like(y[0])
    u, s, v = torch.linalg.svd(x - mean_x, full_matrices=False)
    target = u.T @ (y - mean_y)
    scale_of_penalty = (s**2).mean().clamp_min(1e-12)
    best: tuple[float, Tensor, Tensor] | None = None
    for exponent in range(-6, 3):
        penalty = scale_of_penalty * 10.0**exponent + noise
        shrink = s**2 / (s**2 + penalty)
        leverage = (u**2 * shrink).sum(1) + (1 / len(x) if bias else 0)
        fitted = mean_y + u @ (shrink[:, None] * target)
        left_out = y - (y - fitted) / (1 - leverage).clamp_min(1e-6)[:, None]
        error = ((y - left_out) ** 2).sum().item()
        if best is None or error < best[0]:
            best = (error, v.T @ ((shrink / s.clamp_min(1e-12))[:, None] * target), left_out)
    assert best is not None
    _, weight, left_out = best
    scale = boldness * sharpness(left_out, labels)
    intercept = mean_y - mean_x @ weight
    weight = weight / unit[:, None]
    return LinearHead((scale * weight.T).to(features.dtype), (scale * intercept).to(features.dtype)), left_out


def blend_ridge_head(
    model: nn.Module, batches: Iterable[tuple[Any, Tensor]], device: torch.device | str, share: float
) -> None:
    """Move the classifier towards the calibrated :func:`ridge` classifier of these images, by ``share`` of the way.

    It is moved less if it makes fewer errors on the images than the leave-one-out predictions of the regression: on features
    that overfit the images, the regression gives a poor classifier. It is not changed if labels are not its classes,
    features are not finite, or its weights cannot be set (spectral norm).

    Raises
    ------
    TransferError
        If the model has no classifier.
    """
    others = iter(batches)
    first = next(others, None)
    if first is None or not has_classes([first]):
        return
    name = find_head(model, to_device(first[0], device))
    head = cast(nn.Linear, model.get_submodule(name))
    features, labels = features_of(model, name, itertools.chain([first], others), device)
    if not torch.isfinite(features).all() or not in_range(labels, head.out_features):
        return
    labels, dropout = labels.long(), dropout_before(model, name, to_device(first[0], device))
    with torch.no_grad():
        new, left_out = ridge_and_left_out(features, labels, head.out_features, head.bias is not None, 1.0, dropout)
        mistakes, without = (int((logits.argmax(1) != labels).sum()) for logits in (head(features), left_out))
        share *= min(1.0, mistakes / max(1, without))
        weight, bias = head.weight, head.bias
        bias = None if bias is None else bias.lerp(new.bias.to(bias), share)
        write_head(head, weight.lerp(new.weight.to(weight), share), bias)


def _fit(data: HeadData) -> LinearHead:
    return bounded(ridge(data.features, data.labels, data.n_classes, bias=data.bias, dropout=data.dropout))


def bounded(head: LinearHead) -> LinearHead:
    r"""Divide the logits of a classifier whose weights are longer than :data:`LONGEST` times those of a fresh one.

    Fresh weights of c classes, uniform in :math:`\pm 1 / \sqrt d`, have a norm of :math:`\sqrt{c / 3}` in the mean. Where
    features hardly vary, in networks without batch norm, say, fitted ones can be hundreds of times as long, and so are the
    first gradients of the body.
    """
    norm = float(head.weight.norm()) / (len(head.weight) / 3) ** 0.5
    share = min(1.0, LONGEST / max(norm, 1e-12))
    return head if share == 1 else LinearHead(share * head.weight, share * head.bias)


HEAD = Head(fit=_fit)
