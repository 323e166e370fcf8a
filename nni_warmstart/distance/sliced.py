r"""Sliced dataset distance: near-linear in the samples, independent of the number of classes.

A sample is represented by its features :math:`x` and its class, and a class by its mean :math:`m` and the root
:math:`\Sigma^{1/2}` of its covariance. For classes whose covariances commute, the Euclidean distance between the latter is
the Bures-Wasserstein distance. The optimal transport dataset distance is therefore approximated by transport between points
of one Euclidean space, and that by a mean over random projections to a line, where transport is sorting (Bonneel et al.,
*Sliced and Radon Wasserstein Barycenters of Measures*, J. Math. Imaging Vis. 51, 2015). A projection is :math:`\theta^\top
x + \eta^\top m + \phi^\top \Sigma^{1/2} \psi` with independent standard normal :math:`\theta, \eta, \phi, \psi`: the mean
square of its differences is :math:`\|\Delta x\|^2 + \|\Delta m\|^2 + \|\Delta \Sigma^{1/2}\|_F^2`.

The published sliced distance (s-OTDD: Nguyen et al., *Lightspeed Geometric Dataset Distance via Sliced Optimal Transport*,
ICML 2025) projects a class to its scaled moments up to high order, which vary much between projections; the first two
moments in the units of the features are stable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .label_distances import Spread


class Classed(NamedTuple):
    """Samples with the Gaussians of their classes.

    Shapes are ``(n, d)`` for samples, ``(n,)`` for their classes, ``(n_classes, d)`` for the means of the classes and
    ``(n_classes, d, d)`` for their covariances, which very many classes give by their leading directions.
    """

    samples: Tensor
    labels: Tensor
    means: Tensor
    covariances: Tensor | Spread


def sliced_distance(source: Classed, target: Classed, *, projections: int = 512, seed: int = 0) -> tuple[float, float]:
    """Return the squared distance, and its standard error over projections.

    Parameters
    ----------
    source, target
        The datasets.
    projections
        Number of random directions.
    seed
        Seed of the directions.
    """
    directions = _directions(source.samples.shape[1], projections, seed)
    roots = [_root(each.covariances) for each in (source, target)]
    values = torch.cat(
        [
            _squared_distance_1d(_projected(source, roots[0], some), _projected(target, roots[1], some))
            for some in directions.split(32, dim=2)  # chunks of lines fit the processor's cache
        ]
    )
    return float(values.mean()), float(values.std() / projections**0.5)


def upper_bound(source: Classed, target: Classed, label_distances: Tensor, *, projections: int = 16, seed: int = 0) -> float:
    """Return an upper bound of the squared dataset distance: the least cost of couplings that sort along random lines.

    Parameters
    ----------
    source, target
        The datasets.
    label_distances
        Squared distances between classes, shape ``(n_source_classes, n_target_classes)``.
    projections, seed
        Number of lines, and seed of their directions.
    """
    directions = _directions(source.samples.shape[1], projections, seed)
    orders = [_projected(each, _root(each.covariances), directions).argsort(0) for each in (source, target)]
    n, m = len(source.samples), len(target.samples)
    starts, widths = _quantiles(n, m)
    costs = []
    for column in range(projections):
        i, j = orders[0][starts // m, column], orders[1][starts // n, column]
        moved = (source.samples[i].double() - target.samples[j].double()).square().sum(1)
        costs.append(float(widths @ (moved + label_distances[source.labels[i], target.labels[j]])))
    return min(costs)


def _directions(d: int, projections: int, seed: int) -> Tensor:
    """Draw directions, shape ``(4, d, projections)``, that vary less than independent ones.

    They are orthogonal within blocks of ``d``, with every combination of signs between features, means and covariances.
    """
    generator = torch.Generator().manual_seed(seed)
    base = -(-projections // 4)
    blocks = torch.randn(4, -(-base // d), d, d, generator=generator, dtype=torch.float64)
    orthogonal = torch.linalg.qr(blocks).Q.movedim(1, 2).flatten(2) * d**0.5
    theta, eta, phi, psi = (part[:, torch.randperm(part.shape[1], generator=generator)[:base]] for part in orthogonal)
    return torch.stack(
        [
            theta.repeat(1, 4),
            torch.cat([eta, -eta, eta, -eta], 1),
            torch.cat([phi, phi, -phi, -phi], 1),
            psi.repeat(1, 4),
        ]
    )[:, :, :projections]


def _root(covariances: Tensor | Spread) -> Tensor | Spread:
    """Return symmetric square roots, shape ``(n_classes, d, d)``, float64; leading directions are as good as these."""
    if isinstance(covariances, Spread):
        return covariances
    values, vectors = torch.linalg.eigh(covariances.double())
    return (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mT


def _projected(data: Classed, roots: Tensor | Spread, directions: Tensor) -> Tensor:
    """Project samples to the lines, shape ``(n, projections)``."""
    theta, eta, phi, psi = directions
    if isinstance(roots, Spread):
        seen = (roots.directions.mT @ phi) * (roots.directions.mT @ psi)  # (n_classes, r, projections)
        spreads = (roots.lifts[:, :, None] * seen).sum(1) + roots.remainders.sqrt()[:, None] * (phi * psi).sum(0)
    else:
        spreads = ((roots @ psi) * phi).sum(1)
    classes = data.means.double() @ eta + spreads
    return data.samples.double() @ theta + classes[data.labels]


def _squared_distance_1d(p: Tensor, q: Tensor) -> Tensor:
    """Return squared 2-Wasserstein distances between the columns of ``(n, k)`` and ``(m, k)``, shape ``(k,)``."""
    n, m = len(p), len(q)
    starts, widths = _quantiles(n, m)
    p, q = (values.T.contiguous().sort(1).values for values in (p, q))  # sorting along memory is twice as fast
    return (p[:, starts // m] - q[:, starts // n]).square() @ widths


def _quantiles(n: int, m: int) -> tuple[Tensor, Tensor]:
    """Return the starts, in units of 1 / nm, and the masses of the pieces that two sorted sets have in common."""
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    return starts, (ends - starts).double() / (n * m)
