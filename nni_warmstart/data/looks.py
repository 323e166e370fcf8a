"""Looks at the data besides training: a bounded sample, drawn by labels alone, which all looks share.

Choosing a source, sketches, statistics of the channels, the first classifier, batch norm and remembering look at the data.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from .lazy import AnyImages, LazyImages
from .stratified import stratified_part

_logger = logging.getLogger(__name__)

LOOK = 4096
"""Largest number of images that a look reads; small sets in memory are looked at as a whole."""


def sample(x: AnyImages, y: Tensor, title: str, share: float = 1.0) -> Tensor:
    """Return the positions of images for a look, in random order, and read lazy ones, which stay in memory for later looks.

    Parameters
    ----------
    x, y
        Images and their classes; every class is drawn in proportion, and at least once.
    title
        What the look is for, for the log and the progress bar.
    share
        Share of :data:`LOOK` that is enough. Of lazy images, no more are drawn than fill a quarter of their cache times
        ``share``.

    Returns
    -------
    Tensor
        Positions, shape ``(n,)``, the same for the same classes.
    """
    size = LOOK * share
    if isinstance(x, LazyImages):
        size = min(size, share * x.kept.capacity / 4 / (x.nbytes / max(len(x), 1)))
    index = stratified_part(y, max(int(size), 1), seed=0)
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
    if isinstance(x, LazyImages):
        start = time.perf_counter()
        read = x.subset(index).keep(title)
        if read:
            _logger.info('%s: %d of %d images read, %.2f s.', title, read, len(x), time.perf_counter() - start)
    return index
