"""Rank of this process in a run with a process for each of several devices."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Check whether this process has rank 0, and so logs, writes and reports; Lightning and torchrun set the ranks."""
    return os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0')) == '0'
