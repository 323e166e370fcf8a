"""The demo as `make demo WAIT=0` runs it, with two epochs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.tiny import ROOT

pytestmark = [pytest.mark.xdist_group('nnictl'), pytest.mark.nnictl, pytest.mark.slow]


@pytest.fixture
def demo(tmp_path) -> Path:
    folder = tmp_path / 'examples' / 'digits'
    shutil.copytree(ROOT / 'examples' / 'digits', folder)
    change(folder / 'search.yml', evaluator={'max_epochs': 2, 'batch_size': 64})
    change(
        folder / 'warmstart.yml', experimentWorkingDirectory=str(tmp_path / 'experiments'), trialCodeDirectory=str(folder)
    )
    return folder


def change(path: Path, **keys: object) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))


def run(demo: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}', 'COLUMNS': '160'}
    command = [sys.executable, str(demo / 'demo.py'), '--no-wait', *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_demo_compares_cold_and_warm_and_moves_to_a_free_port(demo, tmp_path):
    with socket.socket() as busy:
        busy.bind(('127.0.0.1', 0))
        busy.listen()
        port = busy.getsockname()[1]
        done = run(demo, '--port', str(port))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'Port {port} is busy, trying {port + 1}.' in done.stdout
    assert f'http://localhost:{port + 1}' in done.stdout
    result = json.loads((tmp_path / '.demo' / 'result.json').read_text())
    for side in ('cold', 'warm'):
        row = result[side]
        assert {'epochs_to_target', 'seconds_to_target', 'final_accuracy', 'curve', 'architecture'} <= row.keys()
        assert len(row['curve']) == 2
        assert row['final_accuracy'] == row['curve'][-1]
        assert set(row['architecture']) == {'cell/0_1', 'cell/0_2', 'cell/0_3', 'cell/1_2', 'cell/1_3', 'cell/2_3'}
    assert result['cold']['epochs_to_target'] is not None
    assert result['warm']['curve'][0] > result['cold']['curve'][0]
    assert 'final accuracy' in done.stdout
    assert re.search(r'the warm search took [\d.]+ times fewer epochs, [\d.]+ times less time', done.stdout)
    assert result['target'] == result['cold']['final_accuracy']


def test_a_failed_trial_shows_the_end_of_its_log(demo):
    change(demo / 'search.yml', space={'name': 'nasbench201', 'width': -8})
    done = run(demo, '--port', '18080')
    assert done.returncode == 1
    assert 'ended as FAILED' in done.stdout
    assert 'error: space.width = -8, but it must not be negative' in done.stdout
