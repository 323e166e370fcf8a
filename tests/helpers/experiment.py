"""Real NNI experiments: started with nnictl, read back through the REST interface of its web server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml
from helpers.tiny import ROOT

ENVIRONMENT = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def copy_of_digits(tmp_path: Path, epochs: int | None = None, **keys: object) -> Path:
    """The demo's experiment, which keeps everything in `tmp_path`; `keys` replace those of warmstart.yml."""
    folder = tmp_path / 'digits'
    shutil.copytree(ROOT / 'examples' / 'digits', folder)
    if epochs:
        search = yaml.safe_load((folder / 'search.yml').read_text())
        search['evaluator']['max_epochs'] = epochs
        (folder / 'search.yml').write_text(yaml.safe_dump(search))
    experiment = yaml.safe_load((folder / 'warmstart.yml').read_text()) | keys
    experiment |= {'experimentWorkingDirectory': str(tmp_path / 'experiments'), 'trialCodeDirectory': str(folder)}
    (folder / 'warmstart.yml').write_text(yaml.safe_dump(experiment))
    return folder


class Experiment:
    """One experiment in a folder of its own; stopped at the end, whatever happens."""

    def __init__(self, config: Path, environment: dict[str, str] = ENVIRONMENT) -> None:
        self.port, self.environment = free_port(), environment
        started = subprocess.run(
            ['nnictl', 'create', '--config', str(config), '--port', str(self.port)],
            capture_output=True, text=True, env=self.environment, timeout=120,
        )  # fmt: skip
        assert started.returncode == 0, started.stdout + started.stderr
        self.id = self.get('experiment')['id']

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        subprocess.run(['nnictl', 'stop', self.id], env=self.environment, capture_output=True, timeout=60)

    def resume(self, folder: Path) -> None:
        """Go on after a stop; ``folder`` is where experiments are kept."""
        command = ['nnictl', 'resume', self.id, '--port', str(self.port), '--experiment_dir', str(folder)]
        resumed = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=120)
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr

    def get(self, path: str):
        with urllib.request.urlopen(f'http://127.0.0.1:{self.port}/api/v1/nni/{path}', timeout=20) as answer:
            return json.loads(answer.read())

    def wait(self, trials: int, seconds: float = 240) -> list[dict]:
        deadline = time.time() + seconds
        while time.time() < deadline:
            jobs = self.get('trial-jobs')
            if len(jobs) == trials and all(
                job['status'] not in ('WAITING', 'RUNNING', 'UNKNOWN', 'ADD_RESUMED') for job in jobs
            ):
                return jobs
            time.sleep(1)
        raise AssertionError(f'trials did not end in {seconds} s: {self.get("trial-jobs")}')

    def metrics(self, trial: str, kind: str) -> list[dict]:
        found = [metric for metric in self.get(f'metric-data/{trial}') if metric['type'] == kind]
        return [json.loads(json.loads(m['data'])) for m in sorted(found, key=lambda m: int(m['sequence']))]
