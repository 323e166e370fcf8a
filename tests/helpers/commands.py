"""Searches at the command line, whole, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from nni_warmstart.cli import main

from .killed import ended, processes


def search(folder, *arguments: str) -> int:
    """Search in ``out``; without ``--resume`` in place of an earlier search."""
    again = [] if '--resume' in arguments else ['--overwrite']
    return main(['search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'out'), *again, *arguments])


def run_killed_and_resumed(folder, command, last: str) -> None:
    """Once in one go, and once killed with SIGKILL after the first checkpoint and resumed, in three processes.

    ``command`` makes the command for a folder of results, in which the file ``last`` is written at the end.
    """
    assert main(command(folder / 'whole')) == 0
    killed = command(folder / 'killed')
    process = subprocess.Popen(
        [sys.executable, '-m', 'nni_warmstart.cli', *killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = folder / 'killed' / 'checkpoints' / 'last.ckpt'
    deadline = time.time() + 60
    while not checkpoint.is_file() and time.time() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / 'killed' / last).exists(), 'killed too late to test anything'
    resumed = processes.Process(target=ended, args=([*killed, '--resume'],))
    resumed.start()
    resumed.join()
    assert resumed.exitcode == 0
