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

import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.xdist_group('nnictl')

ENVIRONMENT = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Experiment:
    """One experiment in a folder of its own; stopped at the end, whatever happens."""

    def __init__(self, config: Path, environment: dict[str, str] = ENVIRONMENT) -> None:
        self.port = free_port()
        self.environment = environment
        started = subprocess.run(
            ['nnictl', 'create', '--config', str(config), '--port', str(self.port)],
            capture_output=True, text=True, env=environment, timeout=120,
        )  # fmt: skip
        assert started.returncode == 0, started.stdout + started.stderr
        self.id = self.get('experiment')['id']

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(['nnictl', 'stop', self.id], env=self.environment, capture_output=True, timeout=60)

    def get(self, path: str):
        with urllib.request.urlopen(f'http://127.0.0.1:{self.port}/api/v1/nni/{path}', timeout=20) as answer:
            return json.loads(answer.read())

    def wait(self, trials: int, seconds: float = 240) -> list[dict]:
        deadline = time.time() + seconds
        while time.time() < deadline:
            jobs = self.get('trial-jobs')
            if len(jobs) == trials and all(job['status'] not in ('WAITING', 'RUNNING', 'UNKNOWN') for job in jobs):
                return jobs
            time.sleep(1)
        raise AssertionError(f'trials did not end in {seconds} s: {self.get("trial-jobs")}')

    def metrics(self, trial: str, kind: str) -> list[dict]:
        found = [metric for metric in self.get(f'metric-data/{trial}') if metric['type'] == kind]
        return [json.loads(json.loads(m['data'])) for m in sorted(found, key=lambda m: int(m['sequence']))]


@pytest.fixture
def digits(tmp_path) -> Path:
    """The demo's experiment with two epochs."""
    folder = tmp_path / 'digits'
    shutil.copytree(ROOT / 'examples' / 'digits', folder)
    document = yaml.safe_load((folder / 'search.yml').read_text())
    document['evaluator']['max_epochs'] = 2
    (folder / 'search.yml').write_text(yaml.safe_dump(document))
    experiment = yaml.safe_load((folder / 'warmstart.yml').read_text())
    experiment['experimentWorkingDirectory'] = str(tmp_path / 'experiments')
    experiment['trialCodeDirectory'] = str(folder)
    (folder / 'warmstart.yml').write_text(yaml.safe_dump(experiment))
    return folder


def test_cold_and_warm_trials_are_seen_by_the_page(digits):
    start = time.time()
    with Experiment(digits / 'warmstart.yml') as experiment:
        while not experiment.get('metric-data'):
            assert time.time() - start < 60, 'no point of a curve within 60 s'
            time.sleep(1)
        jobs = experiment.wait(trials=2)
        assert [job['status'] for job in jobs] == ['SUCCEEDED', 'SUCCEEDED']
        first_epoch = {}
        for job in jobs:
            name = json.loads(job['hyperParameters'][0])['parameters']['strategy.name']
            curve = experiment.metrics(job['trialJobId'], 'PERIODICAL')
            assert len(curve) == 2
            for figures in curve:
                assert {
                    'default',
                    'val_loss',
                    'train_loss',
                    'alpha_entropy',
                    'skip_share',
                    'epoch_seconds',
                } == figures.keys()
            (final,) = experiment.metrics(job['trialJobId'], 'FINAL')
            assert final['default'] == curve[-1]['default']
            assert 0 < final['test_accuracy'] <= 1
            first_epoch[name] = curve[0]['default']
        assert first_epoch.keys() == {'DARTS', 'WarmStartDARTS'}
        assert first_epoch['WarmStartDARTS'] > first_epoch['DARTS']


def test_a_source_that_falls_behind_is_stopped(tmp_path):
    folder = tmp_path / 'sources'
    shutil.copytree(ROOT / 'examples' / 'sources', folder)
    experiment = yaml.safe_load((folder / 'sources.yml').read_text())
    experiment |= {'experimentWorkingDirectory': str(tmp_path / 'experiments'), 'trialCodeDirectory': str(folder)}
    experiment |= {'maxTrialNumber': 2}
    experiment['searchSpace']['strategy.source']['_value'] = ['joint-nasbench201-w8', 'none']
    (folder / 'sources.yml').write_text(yaml.safe_dump(experiment))
    search = yaml.safe_load((folder / 'search.yml').read_text())
    search['evaluator']['max_epochs'] = 5
    (folder / 'search.yml').write_text(yaml.safe_dump(search))
    with Experiment(folder / 'sources.yml') as experiment:
        jobs = experiment.wait(trials=2)
        source = {json.loads(job['hyperParameters'][0])['parameters']['strategy.source']: job for job in jobs}
        assert source['joint-nasbench201-w8']['status'] == 'SUCCEEDED'
        assert source['none']['status'] != 'SUCCEEDED'  # NNI's local service calls a stopped trial FAILED
        assert len(experiment.metrics(source['none']['trialJobId'], 'PERIODICAL')) < 5
        log = tmp_path / 'experiments' / experiment.id / 'log' / 'nnimanager.log'
        assert f'cancelTrialJob: "{source["none"]["trialJobId"]}"' in log.read_text()


def test_a_trial_on_two_devices_reports_once(digits):
    """Its second process must neither ask NNI for parameters nor report to it."""
    document = yaml.safe_load((digits / 'search.yml').read_text())
    document['evaluator']['devices'] = 2
    document['space']['width'] = 4
    (digits / 'search.yml').write_text(yaml.safe_dump(document))
    experiment = yaml.safe_load((digits / 'warmstart.yml').read_text()) | {'maxTrialNumber': 1}
    (digits / 'warmstart.yml').write_text(yaml.safe_dump(experiment))
    with Experiment(digits / 'warmstart.yml') as experiment:
        (job,) = experiment.wait(trials=1)
        assert job['status'] == 'SUCCEEDED'
        assert len(experiment.metrics(job['trialJobId'], 'PERIODICAL')) == 2
        (final,) = experiment.metrics(job['trialJobId'], 'FINAL')
        assert 0 < final['test_accuracy'] <= 1


def test_wrong_settings_fail_the_trial_with_one_line(digits):
    document = yaml.safe_load((digits / 'search.yml').read_text())
    document['evaluator']['epochs'] = 3
    (digits / 'search.yml').write_text(yaml.safe_dump(document))
    with Experiment(digits / 'warmstart.yml') as experiment:
        jobs = experiment.wait(trials=2)
        assert [job['status'] for job in jobs] == ['FAILED', 'FAILED']
        for job in jobs:  # what the page shows under "View trial error"
            url = f'http://127.0.0.1:{experiment.port}/api/v1/nni/trial-file/{job["trialJobId"]}/stderr'
            with urllib.request.urlopen(url, timeout=20) as answer:
                shown = answer.read().decode()
            assert 'error: key evaluator.epochs is unknown; did you mean max_epochs?' in shown
            assert 'Traceback' not in shown


OWN_TRIAL = """
import nni, sys, torch
sys.path.insert(0, {tests!r})
from conftest import make_task, small_space
from nni.nas.experiment import NasExperiment
from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.evaluator import classification, make_trainer

parameters = nni.get_next_parameter()
task = make_task()
evaluator = classification(split(task), 3, make_trainer(parameters['epochs'], '.', progress=False), batch_size=8,
                           learning_rate=0.05, weight_decay=0.0)
NasExperiment(small_space(), evaluator, WarmStartDARTS()).run()
"""


def test_a_users_own_experiment_inside_a_trial_is_seen(tmp_path):
    code = tmp_path / 'code'
    code.mkdir()
    (code / 'own_trial.py').write_text(OWN_TRIAL.format(tests=str(ROOT / 'tests')))
    config = {
        'searchSpace': {'epochs': {'_type': 'choice', '_value': [3]}},
        'tuner': {'name': 'GridSearch'},
        'trialCodeDirectory': str(code),
        'trialCommand': 'OMP_NUM_THREADS=1 python own_trial.py',
        'trialConcurrency': 1,
        'maxTrialNumber': 1,
        'experimentWorkingDirectory': str(tmp_path / 'experiments'),
        'trainingService': {'platform': 'local'},
    }
    (tmp_path / 'config.yml').write_text(yaml.safe_dump(config))
    with Experiment(tmp_path / 'config.yml') as experiment:
        (job,) = experiment.wait(trials=1)
        assert job['status'] == 'SUCCEEDED'
        assert len(experiment.metrics(job['trialJobId'], 'PERIODICAL')) == 3
        assert len(experiment.metrics(job['trialJobId'], 'FINAL')) == 1
