"""Distances between classes: each class is a distribution of features."""

from __future__ import annotations

from typing import NamedTuple

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


class Spread(NamedTuple):
    r"""Covariances of classes by their few leading directions: :math:`Q \operatorname{diag}(s^2) Q^\top + \rho I`.

    Shapes are ``(n_classes, d, r)`` for the orthonormal directions, ``(n_classes, r)`` for their standard deviations and
    ``(n_classes,)`` for the variance in all directions; float64.
    """

    directions: Tensor
    deviations: Tensor
    remainders: Tensor

    @property
    def lifts(self) -> Tensor:
        """Amount by which the root of a covariance exceeds that of its remainder in each direction, ``(n_classes, r)``."""
        remainders = self.remainders[:, None]
        return (self.deviations.square() + remainders).sqrt() - remainders.sqrt()


def leading(factors: Tensor, remainders: Tensor) -> Spread:
    """Find the directions of covariances from their factors, shape ``(n_classes, d, r)``, and remainders."""
    directions, deviations, _ = torch.linalg.svd(factors.double(), full_matrices=False)
    return Spread(directions, deviations, remainders.double().clamp_min(0))


def few_directions_label_distances(mean_a: Tensor, spread_a: Spread, mean_b: Tensor, spread_b: Spread) -> Tensor:
    r"""Return what :func:`gaussian_label_distances` does, for covariances with few leading directions.

    Both roots are multiples of the identity on all but the :math:`r + r'` directions of a pair of classes, so that a matrix
    of that size takes the place of one of size :math:`d`. It needs ``r + r' <= d``.

    Parameters
    ----------
    mean_a, mean_b
        Class means, shapes ``(n_source_classes, d)`` and ``(n_target_classes, d)``.
    spread_a, spread_b
        Covariances of the classes.

    Returns
    -------
    Tensor
        Squared distances, shape ``(n_source_classes, n_target_classes)``, float64.
    """
    d, rank = spread_a.directions.shape[1], spread_a.directions.shape[2] + spread_b.directions.shape[2]
    roots_a, roots_b = spread_a.remainders.sqrt(), spread_b.remainders.sqrt()
    traces = [each.deviations.square().sum(1) + d * each.remainders for each in (spread_a, spread_b)]
    nuclear = torch.stack(  # row by row, as above
        [
            _nuclear_norms(directions, lifts, root, spread_b.directions, spread_b.lifts, roots_b)
            + root * roots_b * (d - rank)
            for directions, lifts, root in zip(spread_a.directions, spread_a.lifts, roots_a, strict=True)
        ]
    )
    return (squared_distances(mean_a, mean_b) + traces[0][:, None] + traces[1] - 2 * nuclear).clamp_min(0)


def _nuclear_norms(q: Tensor, lift: Tensor, root: Tensor, others: Tensor, lifts: Tensor, roots: Tensor) -> Tensor:
    """Return the nuclear norms of the products of one root of a covariance with many, on their joint directions, ``(n,)``.

    The basis of these is made of the directions ``q`` ``(d, r)`` of the one, and of what those of the ``others``
    ``(n, d, r')`` add to them.
    """
    inside = q.T @ others
    left = torch.eye(others.shape[2], dtype=q.dtype) - inside.mT @ inside
    values, vectors = torch.linalg.eigh(left)
    added = vectors @ (values.clamp_min(0).sqrt()[:, :, None] * vectors.mT)
    basis = torch.cat([inside, added], 1)
    size = basis.shape[1]
    first = torch.zeros(size, dtype=q.dtype)
    first[: len(lift)] = lift
    second = basis @ (lifts[:, :, None] * basis.mT) + roots[:, None, None] * torch.eye(size, dtype=q.dtype)
    product = (first + root)[:, None] * second
    if size == 2:  # the closed form of two singular values
        determinant = product[:, 0, 0] * product[:, 1, 1] - product[:, 0, 1] * product[:, 1, 0]
        return (product.square().sum((1, 2)) + 2 * determinant.abs()).sqrt()
    return torch.linalg.svdvals(product).sum(-1)
