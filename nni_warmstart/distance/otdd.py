r"""Optimal transport dataset distance.

Alvarez-Melis & Fusi, *Geometric Dataset Distances via Optimal Transport*, NeurIPS 2020. Samples are compared by their
features and by the distributions of their classes: the ground cost between :math:`(x, y)` and :math:`(x', y')` is
:math:`\|x - x'\|^2 + W_2^2(P(\cdot | y), P(\cdot | y'))`, and the distance is the square root of the optimal cost, so that
the triangle inequality holds for ``reg = 0``.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from .label_distances import (
    exact_label_distances,
    few_directions_label_distances,
    gaussian_label_distances,
    squared_distances,
)
from .sketch import DatasetSketch, as_sketch
from .sliced import Classed, sliced_distance, upper_bound
from .transport import Transport, solve

_logger = logging.getLogger(__name__)

LARGEST = 4000
"""Largest number of samples on either side of a linear programme; beyond it, the sliced distance is used."""

MANY = 64
"""Number of classes above which those with few directions are compared by these, which differs by rounding only."""


@dataclass(frozen=True)
class DatasetDistance:
    """Distance between two labelled datasets, and the correspondence of their classes.

    Attributes
    ----------
    value
        Distance in the units of the features: the square root of the optimal cost.
    label_coupling
        Transported masses between classes, shape ``(n_source_classes, n_target_classes)``, float64, summing to 1.
    coupling
        Transported masses between samples, shape ``(n_source, n_target)``; None for the sliced method, which has none.
    marginal_error
        Largest deviation of the solver's coupling from the given masses, relative to the largest of them.
    converged
        Whether every solver involved reached its tolerance.
    seconds
        Wall-clock time of the computation.
    method
        Method that was used; 'sliced' also where it replaced a linear programme that was too large.
    error
        Bound on the solver's error in ``value`` (for ``reg > 0`` before debiasing), by duality. For 'sliced', the standard
        error over projections; where it replaced a linear programme, the distance by which the Gaussian distance may exceed
        ``value``, from a coupling that was found (the sliced distance is no larger than the Gaussian one, except for
        covariances that do not commute).
    """

    value: float
    label_coupling: Tensor = field(repr=False)
    coupling: Tensor | None = field(repr=False)
    marginal_error: float
    converged: bool
    seconds: float
    method: str
    error: float


def dataset_distance(
    a: Any, b: Any, *, method: str = 'gaussian', reg: float = 0.0, projections: int = 512, seed: int = 0
) -> DatasetDistance:
    """Compute the optimal transport distance between two labelled datasets.

    Parameters
    ----------
    a, b
        Two :class:`~nni_warmstart.DatasetSketch` in the same embedding, or labelled data in any form that
        :meth:`DatasetSketch.from_dataset` takes (all samples are then used).
    method
        Key of :data:`METHODS`. 'gaussian' compares classes as Gaussians (Bures-Wasserstein), 'exact' by optimal transport
        between their samples, 'sliced' by one-dimensional projections, near-linear in the number of samples.
    reg
        Entropic regularisation of the outer problem, in the units of the squared distance; 0 solves it exactly. Otherwise
        ``value`` is debiased (the Sinkhorn divergence: Feydy et al., *Interpolating between Optimal Transport and MMD*,
        AISTATS 2019), so that the distance of a dataset to itself is 0.
    projections, seed
        Number of projections of the sliced method, and seed of their directions.

    Returns
    -------
    DatasetDistance
        Distance, couplings and diagnostics. If a linear programme would have more than 4,000 samples on a side, the sliced
        distance with a warning.

    Raises
    ------
    DataError
        If the embeddings differ, the method is unknown, or the data have no labels, or features that are not finite.
    """
    start = time.perf_counter()
    if projections < 2:
        raise DataError(f'projections = {projections}, but it must be 2 or more.')
    if method not in METHODS:
        raise DataError(f'method = {method!r} is unknown; choose one of {", ".join(METHODS)}.')
    a, b = as_sketch(a), as_sketch(b)
    check_comparable(a, b)
    result = METHODS[method].distance(a, b, reg=reg, projections=projections, seed=seed)
    return replace(result, seconds=time.perf_counter() - start)


def _with_coupling(
    a: DatasetSketch, b: DatasetSketch, *, method: str, reg: float, projections: int, seed: int
) -> DatasetDistance:
    """Return the distance by a coupling of the samples; classes are compared as Gaussians or by their samples."""
    if _too_large(a, b, method, reg):
        _logger.warning(
            'A linear programme of %d x %d samples is too large (limit %d): the sliced distance is computed instead, and '
            'its error says how far the Gaussian one may be above. Sketch fewer samples (max_samples) to have a coupling.',
            len(a.samples), len(b.samples), LARGEST,
        )  # fmt: skip
        return _sliced(a, b, reg=reg, projections=projections, seed=seed, bounded=True)
    transport = _transport(a, b, method, reg)
    squared, gap = transport.cost, transport.gap
    converged, error = transport.converged, transport.marginal_error
    if reg > 0:
        selves = [_transport(each, each, method, reg) for each in (a, b)]
        squared = transport.regularised_cost - sum(each.regularised_cost for each in selves) / 2
        converged = converged and all(each.converged for each in selves)
        error = max(error, *(each.marginal_error for each in selves))
    value = max(squared, 0.0) ** 0.5
    return DatasetDistance(
        value=value,
        label_coupling=label_coupling(transport.coupling, a, b),
        coupling=transport.coupling,
        marginal_error=error,
        converged=converged,
        seconds=0.0,
        method=method,
        error=value - max(squared - gap, 0.0) ** 0.5,
    )


def _too_large(a: DatasetSketch, b: DatasetSketch, method: str, reg: float) -> bool:
    """Check whether a linear programme, between all samples or those of two classes, exceeds the limit."""
    if reg == 0 and max(len(a.samples), len(b.samples)) > LARGEST:
        return True
    return method == 'exact' and max(int(each.labels.bincount().max()) for each in (a, b)) > LARGEST


def check_comparable(a: DatasetSketch, b: DatasetSketch) -> None:
    """Raise an error for sketches of different embeddings or dimensions, and for features that are not finite."""
    if a.embedding != b.embedding or a.dimension != b.dimension:
        raise DataError(
            f'the sketches of {a.name} ({a.embedding}, {a.dimension} dimensions) and {b.name} ({b.embedding}, '
            f'{b.dimension}) have different embeddings; sketch both with one.'
        )
    for sketch in (a, b):
        if not all(torch.isfinite(part).all() for part in (sketch.samples, sketch.means, sketch.factors)):
            raise DataError(f'the sketch of {sketch.name} has NaN or infinite features.')


def label_coupling(coupling: Tensor, a: DatasetSketch, b: DatasetSketch) -> Tensor:
    """Sum masses between samples into masses between classes, shape ``(n_source_classes, n_target_classes)``."""
    rows = torch.zeros(a.num_classes, coupling.shape[1], dtype=coupling.dtype).index_add_(0, a.labels, coupling)
    return torch.zeros(a.num_classes, b.num_classes, dtype=coupling.dtype).index_add_(1, b.labels, rows)


def label_distances(a: DatasetSketch, b: DatasetSketch) -> Tensor:
    """Return squared Bures-Wasserstein distances of classes, float64, shape ``(n_source_classes, n_target_classes)``."""
    if are_many(a, b):
        return few_directions_label_distances(a.means, a.spread(), b.means, b.spread())
    return gaussian_label_distances(a.means, a.full_factors(), b.means, b.full_factors())


def are_many(a: DatasetSketch, b: DatasetSketch) -> bool:
    """Check whether two datasets have so many classes, each with few directions, that these are the faster way."""
    few = a.factors.shape[2] + b.factors.shape[2] <= a.dimension
    return few and max(a.num_classes, b.num_classes) > MANY


def _transport(a: DatasetSketch, b: DatasetSketch, method: str, reg: float) -> Transport:
    cost = squared_distances(a.samples, b.samples)
    if method == 'exact':
        between = exact_label_distances(cost, a.labels, b.labels, (a.num_classes, b.num_classes))
    else:
        between = label_distances(a, b)
    for index in range(a.num_classes):  # in place: one n x n matrix is enough
        cost[a.labels == index] += between[index][b.labels]
    return solve(cost, reg=reg)


def _sliced(
    a: DatasetSketch, b: DatasetSketch, *, reg: float, projections: int, seed: int, bounded: bool = False
) -> DatasetDistance:
    """Return the sliced distance, which ignores ``reg``; ``bounded`` sets ``error`` to a bound for the Gaussian distance."""
    many = are_many(a, b)
    source, target = (
        Classed(each.samples, each.labels, each.means, each.spread() if many else each.covariances()) for each in (a, b)
    )
    squared, spread = sliced_distance(source, target, projections=projections, seed=seed)
    value = squared**0.5
    error = spread / (2 * value) if value else 0.0
    between = label_distances(a, b)
    if bounded:
        error = max(error, upper_bound(source, target, between, seed=seed) ** 0.5 - value)
    classes = solve(between, a.counts, b.counts)  # classes as wholes: projections couple no samples
    return DatasetDistance(
        value=value,
        label_coupling=classes.coupling,
        coupling=None,
        marginal_error=classes.marginal_error,
        converged=classes.converged,
        seconds=0.0,
        method='sliced',
        error=error,
    )


class Method(NamedTuple):
    """A distance between datasets.

    Attributes
    ----------
    distance
        Function of two comparable sketches, with the keyword arguments ``reg``, ``projections`` and ``seed``; the caller
        fills in ``seconds``.
    ranking
        Name of the ranking of sources by this distance; None where there is none.
    text
        Short description.
    """

    distance: Callable[..., DatasetDistance]
    ranking: str | None
    text: str


METHODS: dict[str, Method] = {
    'gaussian': Method(functools.partial(_with_coupling, method='gaussian'), 'otdd', 'optimal transport between datasets'),
    'exact': Method(
        functools.partial(_with_coupling, method='exact'), None, 'optimal transport, of the samples of every class, too'
    ),
    'sliced': Method(_sliced, 'sliced', 'optimal transport by projections'),
}
"""Distances by name; a new one is a function and a line here, which also makes it a ranking."""
