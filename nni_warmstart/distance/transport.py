"""Discrete optimal transport on POT, in float64, with a certificate for every answer."""

from __future__ import annotations

import warnings
from typing import NamedTuple, cast

import numpy as np
import ot
import torch
from torch import Tensor

from ..errors import DataError

TOLERANCE = 1e-4
"""Tolerance of Sinkhorn's algorithm: deviation of the marginals, relative to their norm. Rounding removes the rest."""


class Transport(NamedTuple):
    """Solution of a discrete optimal transport problem.

    Attributes
    ----------
    coupling
        Transported masses, shape ``(n_source, n_target)``, float64; its marginals are exact up to rounding.
    cost
        Transported cost, the sum of ``coupling * cost``.
    regularised_cost
        ``cost`` plus ``reg`` times the relative entropy of the coupling to the product of its marginals.
    marginal_error
        Largest deviation of the solver's coupling from the given masses, relative to the largest of them.
    gap
        Upper bound of ``cost`` minus the optimal cost without regularisation, from the dual potentials.
    converged
        Whether the solver reached its tolerance.
    """

    coupling: Tensor
    cost: float
    regularised_cost: float
    marginal_error: float
    gap: float
    converged: bool


def solve(
    cost: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, reg: float = 0.0, max_iterations: int = 1000
) -> Transport:
    """Transport masses at least cost.

    Parameters
    ----------
    cost
        Ground cost, shape ``(n_source, n_target)``.
    a, b
        Masses, shapes ``(n_source,)`` and ``(n_target,)``, each summing to 1; uniform when None.
    reg
        Entropic regularisation in the units of ``cost``, as in POT; 0 solves the linear programme exactly.
    max_iterations
        Largest number of iterations of Sinkhorn's algorithm at each of its falling regularisations.

    Raises
    ------
    DataError
        If costs or masses are not finite, or ``reg`` is negative.
    """
    matrix = np.ascontiguousarray(cost.detach().cpu().double().numpy())
    if not np.isfinite(matrix).all():
        raise DataError('the ground cost has NaN or infinite entries; check the features for such values.')
    if not 0 <= reg < float('inf'):
        raise DataError(f'reg = {reg}, but it must be 0 (exact) or a positive number in the units of the ground cost.')
    masses_a, masses_b = (_masses(given, size) for given, size in zip((a, b), matrix.shape, strict=True))
    return _exact(matrix, masses_a, masses_b) if reg == 0 else _entropic(matrix, masses_a, masses_b, reg, max_iterations)


def _masses(given: Tensor | None, size: int) -> np.ndarray:
    if given is None:
        return np.full(size, 1 / size)
    masses = given.detach().cpu().double().numpy()
    return masses / masses.sum()


def _exact(matrix: np.ndarray, a: np.ndarray, b: np.ndarray) -> Transport:
    scale = float(np.ldexp(1.0, np.frexp(matrix.max(initial=0))[1]))  # POT's tolerances are absolute, so costs are scaled
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # POT warns about convergence, which is part of the result
        coupling, log = ot.emd(a, b, matrix / scale, numItermax=10_000_000, log=True)
    cost, dual = scale * float(log['cost']), scale * float(a @ log['u'] + b @ log['v'])
    gap = abs(cost - dual)
    return Transport(
        torch.from_numpy(coupling),
        cost,
        cost,
        _marginal_error(coupling, a, b),
        gap,
        bool(log['warning'] is None and gap <= 1e-6 * max(abs(dual), matrix.max(initial=0))),
    )


def _entropic(matrix: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, max_iterations: int) -> Transport:
    """Solve by Sinkhorn's algorithm in the log domain, warm-started along falling regularisations."""
    source, target, ground = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(matrix)
    levels = [reg]
    while levels[0] * 4 < matrix.max(initial=0):
        levels.insert(0, levels[0] * 4)
    f, g = torch.zeros_like(source), torch.zeros_like(target)
    for level in levels:  # POT's potentials are scaled by the regularisation and hold the masses
        start = (f / level + source.log(), g / level + target.log())
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # POT warns about convergence, which is part of the result
            coupling, log = ot.bregman.sinkhorn_log(
                source, target, ground, level, warmstart=start, log=True, warn=False,
                numItermax=max_iterations if level == reg else 50, stopThr=TOLERANCE * np.linalg.norm(b),
            )  # fmt: skip
        u, v = cast('tuple[Tensor, Tensor]', (log['log_u'], log['log_v']))
        f, g = level * (u - source.log()), level * (v - target.log())
    error = _marginal_error(coupling.numpy(), a, b)
    coupling = rounded(coupling, source, target)
    cost = float((coupling * ground).sum())
    dual = float(source @ f + target @ (ground - f[:, None]).amin(0))  # feasible without regularisation
    entropy = float(torch.special.xlogy(coupling, coupling / (source[:, None] * target)).sum())
    return Transport(
        coupling,
        cost,
        cost + reg * entropy,
        error,
        max(cost - dual, 0.0),
        bool(log['err'][-1] <= TOLERANCE * np.linalg.norm(b)),
    )


def rounded(coupling: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Round a coupling to a nearby one whose marginals are exact.

    Parameters
    ----------
    coupling
        Masses, shape ``(n_source, n_target)``, non-negative.
    a, b
        Marginals that the result has, shapes ``(n_source,)`` and ``(n_target,)``.

    References
    ----------
    Altschuler, Weed & Rigollet, *Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration*,
    NeurIPS 2017, algorithm 2.
    """
    coupling = coupling * (a / coupling.sum(1)).clamp_max(1)[:, None]
    coupling = coupling * (b / coupling.sum(0)).clamp_max(1)
    left_a, left_b = (a - coupling.sum(1)).clamp_min(0), (b - coupling.sum(0)).clamp_min(0)
    total = left_a.sum()
    return coupling if total <= 0 else coupling + left_a[:, None] * left_b / total


def _marginal_error(coupling: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return float(max(np.abs(coupling.sum(1) - a).max() / a.max(), np.abs(coupling.sum(0) - b).max() / b.max()))
