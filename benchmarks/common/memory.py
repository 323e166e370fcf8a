"""Resident memory of a process."""

from __future__ import annotations

import gc
import resource
import threading
from pathlib import Path


def resident() -> float:
    """Resident memory in MiB."""
    gc.collect()
    return rss()


def rss() -> float:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Peak(threading.Thread):
    """Largest resident memory while it runs, looked at a hundred times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.value, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.01):
            self.value = max(self.value, rss())

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()
