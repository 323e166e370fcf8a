"""Tasks that come with required packages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .stratified import stratified_split
from .task import Task, checked_task


def digits() -> Task:
    """Return scikit-learn's handwritten digits (1797 grey images of 8x8 pixels), a quarter of them for testing."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    x = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    y = torch.from_numpy(bunch.target).long()
    test, train = stratified_split(y, 0.25, seed=0)
    return checked_task('digits', x[train], y[train], x[test], y[test], [str(digit) for digit in range(10)])


TASKS = {'digits': digits}
"""Embedded tasks by name."""
