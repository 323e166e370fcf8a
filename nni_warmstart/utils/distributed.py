"""Which process this is, where a run has one for each of several devices."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this is the process that talks, writes and reports; Lightning and torchrun number those of a run."""
    return os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0')) == '0'
