"""Rank of this process in a run with a process for each of several devices."""

from __future__ import annotations

import os
import sys
from typing import Any


def is_first() -> bool:
    """Check whether this process has rank 0, and so logs, writes and reports; Lightning and torchrun set the ranks."""
    return os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0')) == '0'


def leave_group() -> None:
    """Leave the group of the processes of a run that has ended.

    Metrics of the next run don't wait for them then, and torch ends without an abort, since it joins threads of gloo only
    here.
    """
    torch: Any = sys.modules.get('torch')  # this module imports nothing heavy
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
