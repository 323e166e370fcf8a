"""Seconds and memory of the distance beside the peer, microsoft/otdd: each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nni_warmstart.data import from_npz

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peer:
    """Where microsoft/otdd is, the interpreter that can import it, and the folders of both kinds of inputs."""

    checkout: Path
    python: Path
    peers: Path
    data: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(self.python), str(HERE / 'peer_otdd.py'), str(self.checkout), *arguments]

    def inputs(self, kind: str, name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The first n samples: the peer's own 64 principal components, or raw pixels."""
        if kind == '64-d':
            file = np.load(self.peers / f'{name}.npz')
            return file['x'][:n], file['y'][:n]
        task = from_npz(self.data / f'{name}.npz')
        x = task.train_x[:n, 0].float() / 255
        if kind == '784-d':
            x = x[:, 2:30, 2:30]
        return x.flatten(1).numpy(), task.train_y[:n].numpy()

    @contextlib.contextmanager
    def saved(self, kind: str, pair: tuple[str, str], n: int) -> Iterator[str]:
        """Path of a file with the inputs of both datasets, for as long as it is needed."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'pair.npz'
            (x, y), (u, v) = (self.inputs(kind, name, n) for name in pair)
            np.savez(path, x=x, y=y, u=u, v=v)
            yield str(path)


def ours(path: str, method: str, repeats: str) -> dict[str, Any]:
    return call([sys.executable, str(HERE / 'ours_otdd.py'), path, method, repeats])


def speed(peer: Peer, kind: str, pair: tuple[str, str], n: int, method: str) -> dict[str, Any]:
    """Ours and the peer's, in turns, each in its own process; the linear programme alone; peak memory above the start's."""
    with peer.saved(kind, pair, n) as path:
        found: dict[str, Any] = {'ours': ours(path, method, '3')}
        found['peer'] = call(peer.command(path, method, 'single', '3' if kind == '64-d' else '2'))
        if kind != '64-d' and method == 'gaussian':
            found['peer, double'] = call(peer.command(path, method, 'double', '1'))
        again = ours(path, method, '3')
        found['ours']['seconds'] += again['seconds']
        found['ours']['bare_emd'] += again['bare_emd']
    return {'values': found, **{side: statistics.median(each['seconds'] or [0]) for side, each in found.items()}}


def memory(peer: Peer, kind: str, pair: tuple[str, str], method: str) -> dict[str, Any]:
    """Peak above the start in MB, ours and the peer's, at 2000 samples; an n x n matrix of doubles has 32 MB."""
    with peer.saved(kind, pair, 2000) as path:
        theirs = call(peer.command(path, method, 'single', '1'))
        return {'ours': ours(path, method, '1')['peak_mb'], 'peer': theirs['peak_mb']}


def call(command: list[str]) -> dict[str, Any]:
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
