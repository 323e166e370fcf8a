"""Couplings of two channel spaces, shape (n_source, n_target): identity, replication, optimal transport."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def replicated(n_source: int, n_target: int) -> Tensor:
    """Make a coupling in which each target channel copies one source channel.

    Source channels have nearly equal numbers of copies; for equal widths the coupling is the identity.
    """
    coupling = torch.zeros(n_source, n_target, dtype=torch.float64)
    coupling[torch.arange(n_target) % n_source, torch.arange(n_target)] = 1.0
    return coupling


def aligned(cost: Tensor) -> Tensor:
    """Find the optimal coupling with one source channel per target channel, source channels used as evenly as possible.

    For equal widths it is the optimal permutation; in a wider target each source channel has at least one copy, which
    preserves the network's function; in a narrower one (``n_target < n_source``) every source channel is merged into one
    target channel.

    Parameters
    ----------
    cost
        Cost of moving each source channel to each target channel, shape ``(n_source, n_target)``.
    """
    n_source, n_target = cost.shape
    if n_target < n_source:
        return aligned(cost.T).T.contiguous()
    copies, extra = divmod(n_target, n_source)
    values = cost.double().numpy()
    rows = np.repeat(values, copies, 0)
    if extra:  # rows for one more copy may stay empty, at a cost that fills the other rows first
        spread = 1 + n_target * (values.max() - values.min())
        rows = np.concatenate([rows, values + spread])
    row, column = linear_sum_assignment(rows)
    coupling = torch.zeros(n_source, n_target, dtype=torch.float64)
    coupling[torch.from_numpy(np.where(row < n_source * copies, row // copies, row - n_source * copies)), column] = 1.0
    return coupling
