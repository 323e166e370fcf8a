"""Killed at any moment, out of disk: nothing is lost, and the run goes on to the same result."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers.tiny import SMALL, save_npz

from nni_warmstart import Supernet
from nni_warmstart.cli import main

KILLS = 10
LONG = {**SMALL, 'strategy': {'name': 'WarmStartDARTS', 'arc_learning_rate': 0.01, 'average': 1.0, 'refit_head': True}}
LONG['evaluator'] = {**SMALL['evaluator'], 'max_epochs': 4 * KILLS, 'crop': 0.1}

processes = multiprocessing.get_context('forkserver')
processes.set_forkserver_preload(['nni_warmstart.cli', 'nni_warmstart.runs.search'])


@pytest.fixture
def folder(tmp_path):
    save_npz(tmp_path / 'shapes.npz', n=36)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(LONG))
    return tmp_path


def started(command: list[str]) -> multiprocessing.process.BaseProcess:
    process = processes.Process(target=main, args=(command,))
    process.start()
    return process


def replaced(checkpoint: Path) -> int:
    """A number that changes whenever the checkpoint is replaced."""
    return checkpoint.stat().st_ino if checkpoint.is_file() else 0


@pytest.mark.slow
def test_a_search_killed_at_ten_random_moments_ends_at_the_same_result(folder):
    command = ['search', '--config', str(folder / 'search.yml'), '--seed', '5', '--out']
    whole = started([*command, str(folder / 'whole')])
    chance = random.Random(0)
    checkpoint = folder / 'killed' / 'checkpoints' / 'last.ckpt'
    resume: list[str] = []
    for kill in range(KILLS):
        process = started([*command, str(folder / 'killed'), *resume])
        for _ in range(chance.randint(0 if kill else 1, 3)):  # epochs, and then somewhere in or around the next
            before = replaced(checkpoint)
            while replaced(checkpoint) == before:
                assert process.is_alive()
                time.sleep(0.001)
        time.sleep(chance.uniform(0, 1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        resume = ['--resume']
    last = started([*command, str(folder / 'killed'), *resume])
    for process in (whole, last):
        process.join()
        assert process.exitcode == 0
    supernets = [Supernet.load(folder / name / 'supernet.safetensors') for name in ('whole', 'killed')]
    assert all(torch.equal(tensor, supernets[1].tensors[name]) for name, tensor in supernets[0].tensors.items())
    checkpoints = [
        torch.load(folder / name / 'checkpoints' / 'last.ckpt', weights_only=True) for name in ('whole', 'killed')
    ]
    for part in ('state_dict', 'optimizer_states', 'lr_schedulers'):
        torch.testing.assert_close(checkpoints[1][part], checkpoints[0][part], rtol=0, atol=0)
    results = [json.loads((folder / name / 'result.json').read_text()) for name in ('whole', 'killed')]
    for result in results:
        for figures in result['curve']:
            figures.pop('epoch_seconds')
    for part in ('curve', 'architecture', 'alphas'):
        assert results[0][part] == results[1][part]
    assert [path.name for path in checkpoint.parent.iterdir()] == ['last.ckpt']


def limited(command: list[str], size: int, messages: Path) -> None:
    """Run a command that can write no file larger than ``size`` bytes, as on a disk that is full."""
    with messages.open('w') as file:
        os.dup2(file.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        raise SystemExit(main(command))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(folder):
    command = ['search', '--config', str(folder / 'search.yml'), '--seed', '5', '--out', str(folder / 'out')]
    assert main([*command, '--set', 'evaluator.max_epochs=1']) == 0
    checkpoint = folder / 'out' / 'checkpoints' / 'last.ckpt'
    before = checkpoint.read_bytes()
    more = [*command, '--resume', '--set', 'evaluator.max_epochs=2']
    process = processes.Process(target=limited, args=(more, len(before) // 2, folder / 'messages'))
    process.start()
    process.join()
    assert process.exitcode == 1
    *_, error = (folder / 'messages').read_text().strip().splitlines()
    assert error == f"error: [Errno 27] File too large: '{checkpoint}'"
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ['last.ckpt']
    assert main(more) == 0
