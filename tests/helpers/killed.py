"""Commands in processes of their own, which are killed at a function of the package."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import nni_warmstart
from nni_warmstart.cli import main

PACKAGE = str(Path(nni_warmstart.__file__).parent)

processes = multiprocessing.get_context('forkserver')
processes.set_forkserver_preload(['nni_warmstart.cli', 'nni_warmstart.runs.search', 'nni_warmstart.zoo.probe'])

Point = tuple[str, str]
"""File and name of a function."""


def point_of(frame: Any) -> Point | None:
    file = frame.f_code.co_filename
    return (file[len(PACKAGE) + 1 :], frame.f_code.co_name) if file.startswith(PACKAGE) else None


def ended(command: list[str]) -> None:
    """Run a command to its end, and exit with its status."""
    raise SystemExit(main(command))


def killed(command: list[str], point: Point, moment: str, call: int) -> None:
    """Run a command, and kill the process where a function is called, or returns."""
    left = call

    def watch(frame: Any, event: str, _: Any) -> None:
        nonlocal left
        if event == moment and frame.f_code.co_name == point[1] and point_of(frame) == point:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    raise SystemExit(main(command))
