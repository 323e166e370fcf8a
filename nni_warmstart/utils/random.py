"""Random generators: their state as plain data, and a context that leaves them unchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def quiet_randomness() -> Iterator[None]:
    """Restore the global generators of torch, numpy and Python at the end, as :func:`random_state` knows them.

    Iterating a loader draws a worker seed from torch's generator, and data of users draw from any of them.
    """
    state = random_state([])
    try:
        yield
    finally:
        set_random_state(state, [])


def random_state(generators: list[torch.Generator]) -> dict[str, Any]:
    """Return the states of the global generators, of the current GPU's generator, and of ``generators``."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        'torch': torch.get_rng_state(),
        'loaders': [generator.get_state() for generator in generators],
        'cuda': [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
        'python': random.getstate(),
        'numpy': (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
    }


def set_random_state(state: dict[str, Any], generators: list[torch.Generator]) -> None:
    """Restore the states that :func:`random_state` returned."""
    torch.set_rng_state(state['torch'].cpu())
    for generator, value in zip(generators, state['loaders'], strict=False):
        generator.set_state(value.cpu())
    if torch.cuda.is_available() and state['cuda']:
        device = torch.cuda.current_device() if len(state['cuda']) > 1 else 0  # old files hold those of all GPUs
        torch.cuda.set_rng_state(state['cuda'][device].cpu())
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))


def draw_again(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Advance the global generators as between two results of :func:`random_state`, but for one that has moved since."""
    now = random_state([])
    set_random_state({**now, **{name: after[name] for name in after if _same(now[name], before[name])}}, [])


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
