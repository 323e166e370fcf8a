"""Distances between classes: each class is a distribution of features."""

from __future__ import annotations

import torch
from torch import Tensor

from .transport import solve


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return squared Euclidean distances in float64, shape ``(len(x), len(y))``, never negative."""
    x, y = x.double(), y.double()
    center = x.mean(0)  # centred data lose fewest digits to cancellation
    x, y = x - center, y - center
    distances = torch.addmm(y.square().sum(1)[None, :], x, y.T, alpha=-2)
    return distances.add_(x.square().sum(1)[:, None]).clamp_min_(0)


def exact_label_distances(distances: Tensor, source_labels: Tensor, target_labels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return squared 2-Wasserstein distances between the samples of all pairs of classes, by linear programmes.

    Parameters
    ----------
    distances
        Squared distances between samples, shape ``(n_source, n_target)``.
    source_labels, target_labels
        Classes of the samples, int64; every class has at least one.
    shape
        Numbers of classes ``(n_source_classes, n_target_classes)``.

    Returns
    -------
    Tensor
        Distances, of shape ``shape``, float64.
    """
    rows = [(source_labels == label).nonzero().squeeze(1) for label in range(shape[0])]
    columns = [(target_labels == label).nonzero().squeeze(1) for label in range(shape[1])]
    return torch.tensor(
        [[solve(distances[row[:, None], column]).cost for column in columns] for row in rows], dtype=torch.float64
    )


def gaussian_label_distances(mean_a: Tensor, factor_a: Tensor, mean_b: Tensor, factor_b: Tensor) -> Tensor:
    r"""Return squared Bures-Wasserstein distances between class Gaussians, all pairs at once.

    With covariances :math:`\Sigma = R R^\top`, the distance is :math:`\|m - m'\|^2 + \operatorname{tr}\Sigma +
    \operatorname{tr}\Sigma' - 2 \|R^\top R'\|_*`. The nuclear norm needs no matrix square root and no eigenvectors, so it
    is exact for singular covariances, where the usual formula gives NaN, and cheap for few samples in many dimensions.

    Parameters
    ----------
    mean_a, mean_b
        Class means, shapes ``(n_source_classes, d)`` and ``(n_target_classes, d)``.
    factor_a, factor_b
        Factors of the covariances, shapes ``(n_source_classes, d, r)`` and ``(n_target_classes, d, r')``; columns of zeros
        are harmless.

    Returns
    -------
    Tensor
        Squared distances, shape ``(n_source_classes, n_target_classes)``, float64.

    References
    ----------
    Takatsu, *Wasserstein geometry of Gaussian measures*, Osaka J. Math. 48(4), 2011.
    """
    mean_a, factor_a, mean_b, factor_b = (tensor.double() for tensor in (mean_a, factor_a, mean_b, factor_b))
    traces = factor_a.square().sum((1, 2))[:, None] + factor_b.square().sum((1, 2))[None, :]
    nuclear = torch.stack(  # row by row: all cross products at once would need many n x n matrices
        [torch.linalg.svdvals(factor.T @ factor_b).sum(-1) for factor in factor_a]
    )
    return (squared_distances(mean_a, mean_b) + traces - 2 * nuclear).clamp_min(0)
