"""LogME: how well features explain labels, without training.

You et al., *LogME: Practical Assessment of Pre-trained Models for Transfer Learning*, ICML 2021.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def logme(features: Tensor, labels: Tensor, *, iterations: int = 100) -> float:
    r"""Return the logarithm of the maximum evidence per sample, averaged over one-against-rest labels.

    For each class the labels are modelled as :math:`y = F w + \epsilon` with :math:`w \sim N(0, \alpha^{-1} I)` and
    :math:`\epsilon \sim N(0, \beta^{-1} I)`; :math:`\alpha` and :math:`\beta` maximise the evidence (fixed-point iteration
    of You et al., in the singular basis of the features).

    Parameters
    ----------
    features
        Features of the samples, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64, from 0.
    iterations
        Largest number of fixed-point iterations.

    Returns
    -------
    float
        LogME score: larger is better; comparable between features of one dataset.
    """
    x = features.double()
    n, d = x.shape
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    y = torch.nn.functional.one_hot(labels).double()
    projected = (u.T @ y).square()  # (rank, n_classes)
    outside = (y.square().sum(0) - projected.sum(0)).clamp_min(0)
    spectrum = s.square()[:, None]
    alpha, beta = torch.ones(y.shape[1], dtype=torch.float64), torch.ones(y.shape[1], dtype=torch.float64)
    weights = residual = torch.zeros_like(alpha)
    for _ in range(iterations):
        ratio = alpha / beta
        gamma = (spectrum / (spectrum + ratio)).sum(0)
        weights = (spectrum * projected / (spectrum + ratio).square()).sum(0)  # squared norm of w
        residual = outside + (projected * (ratio / (spectrum + ratio)).square()).sum(0)
        new_alpha, new_beta = gamma / weights.clamp_min(1e-12), (n - gamma) / residual.clamp_min(1e-12)
        done = ((new_alpha / new_beta - ratio).abs() <= 1e-3 * ratio).all()
        alpha, beta = new_alpha, new_beta
        if done:
            break
    determinant = torch.log(alpha + beta * spectrum).sum(0) + (d - len(s)) * torch.log(alpha)
    evidence = (
        n * torch.log(beta)
        + d * torch.log(alpha)
        - n * math.log(2 * math.pi)
        - beta * residual
        - alpha * weights
        - determinant
    ) / 2
    return float((evidence / n).mean())
