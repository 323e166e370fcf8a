"""Commands in processes of their own that begin with everything imported, with their output, processor time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

PRELOADED = (
    'nni_warmstart.cli.main',
    'nni_warmstart.runs.search',
    'nni_warmstart.zoo.zoo',
    'rich.table',
    'sklearn.datasets',
)


class Measured(NamedTuple):
    """Result of a command: status (None if it was killed), output, processor seconds, and megabytes above the imports."""

    status: int | None
    output: str
    seconds: float
    megabytes: float


def _run(command: list[str], out: Path) -> None:
    os.environ['OMP_NUM_THREADS'] = '1'
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    before = _peak()
    began = time.process_time()
    status: int | str | None = 70
    try:
        import torch

        torch.set_num_threads(1)
        from nni_warmstart.cli import main

        status = main(command)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    figures = f'{status} {time.process_time() - began} {(_peak() - before) / 1e3}'
    out.with_suffix('.figures').write_text(figures)
    os._exit(0)  # threads that wait for a server do not matter


def _peak() -> int:
    """Largest resident memory of this process so far, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured(command: list[str], out: Path, limit: float = 60) -> Measured:
    """Run a command of the command line, at most ``limit`` seconds."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(PRELOADED))
    figures = out.with_suffix('.figures')
    figures.unlink(missing_ok=True)
    process = context.Process(target=_run, args=(command, out))
    process.start()
    process.join(limit)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    output = out.read_text(errors='surrogateescape') if out.exists() else ''
    if not figures.exists():
        return Measured(None, output, limit, float('nan'))
    status, seconds, megabytes = figures.read_text().split()
    return Measured(int(status), output, float(seconds), float(megabytes))
