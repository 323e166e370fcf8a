"""Head 'prototype': a classifier by class means."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import TransferError
from .base import BOLDNESS, Head, HeadData, LinearHead, check_every_class, sharpness


def prototype(features: Tensor, labels: Tensor, n_classes: int, *, boldness: float = BOLDNESS) -> LinearHead:
    r"""Return the nearest class mean as a linear classifier.

    With class means :math:`\mu_c`, logits are proportional to :math:`\mu_c^\top x - \mu_c^\top \mu_c / 2`: linear
    discriminant analysis with an isotropic covariance. Their scale is ``boldness`` times the one that minimises the
    cross-entropy.

    Parameters and return value as in :func:`~nni_warmstart.warm_start.heads.ridge.ridge`; every class needs a sample.
    """
    x = features.double()
    membership = torch.nn.functional.one_hot(labels, n_classes).double()
    check_every_class(labels, n_classes, 'prototype')
    means = (membership.T @ x) / membership.sum(0)[:, None]
    centre = x.mean(0)
    weight = means - centre
    bias = -0.5 * (weight**2).sum(1) - weight @ centre
    unit = (x - centre).square().mean().clamp_min(1e-12)  # the scale is looked for around 1
    scale = boldness * sharpness((x @ weight.T + bias) / unit, labels) / unit
    return LinearHead((scale * weight).to(features.dtype), (scale * bias).to(features.dtype))


def _fit(data: HeadData) -> LinearHead:
    if not data.bias:
        raise TransferError("head 'prototype' needs a classifier with a bias; use head='ridge'.")
    return prototype(data.features, data.labels, data.n_classes)


HEAD = Head(fit=_fit)
