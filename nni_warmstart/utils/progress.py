"""Progress of long work: a bar after two seconds, and a line in the log with its seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

_logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds of work without a progress bar."""

_Item = TypeVar('_Item')


def tracked(items: Iterable[_Item], title: str, total: int | None = None) -> Iterable[_Item]:
    """Return the same items, with a progress bar on a terminal once they have taken :data:`PATIENCE` seconds."""
    return tqdm(items, title, total, delay=PATIENCE, disable=None, leave=False)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Show on a terminal how long some work has taken, once that is more than :data:`PATIENCE` seconds."""
    clock = tqdm(desc=title, bar_format='{desc} ... {elapsed}', disable=None, leave=False, delay=PATIENCE)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.5):
            if time.monotonic() - begun > PATIENCE:
                clock.refresh()

    begun, ticking = time.monotonic(), threading.Thread(target=tick, daemon=True)
    try:
        if not clock.disable:
            ticking.start()
        yield
    finally:
        over.set()
        if ticking.is_alive():
            ticking.join()
        clock.close()


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Log how many seconds some work takes, unless it fails."""
    start = time.perf_counter()
    yield
    _logger.info('%s: %.2f s.', title, time.perf_counter() - start)
