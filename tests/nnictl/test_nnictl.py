"""Real NNI experiments, as the REST interface of their web server tells them."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from helpers.browser import until
from helpers.experiment import Experiment, copy_of_digits
from helpers.tiny import ROOT

from nni_warmstart.cli import main

pytestmark = [pytest.mark.xdist_group('nnictl'), pytest.mark.nnictl, pytest.mark.slow]


@pytest.fixture
def digits(tmp_path) -> Path:
    """The demo's experiment with two epochs."""
    return copy_of_digits(tmp_path, epochs=2)


def test_cold_and_warm_trials_are_seen_by_the_page(digits):
    start = time.time()
    with Experiment(digits / 'warmstart.yml') as experiment:
        while not experiment.get('metric-data'):
            assert time.time() - start < 60, 'no point of a curve within 60 s'
            time.sleep(1)
        jobs = experiment.wait(trials=2)
        assert [job['status'] for job in jobs] == ['SUCCEEDED', 'SUCCEEDED']
        first_epoch, last = {}, {}
        for job in jobs:
            name = json.loads(job['hyperParameters'][0])['parameters']['start']['_name']
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
            last[name] = final['default']
        assert first_epoch.keys() == {'cold', 'warm'}
        assert first_epoch['warm'] > first_epoch['cold']
        assert json.loads(jobs[1]['hyperParameters'][0])['parameters']['start']['evaluator.stop_at'] == last['cold']


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


def test_a_resumed_experiment_goes_on_with_its_trial(tmp_path):
    """To the same result, and with one point for every epoch, as if nothing had happened."""
    digits = copy_of_digits(tmp_path, epochs=8, maxTrialNumber=1)
    results = tmp_path / 'experiments'
    with Experiment(digits / 'warmstart.yml') as experiment:
        (checkpoint,) = until(lambda: list(results.rglob('last.ckpt')), 'a checkpoint')
        (job,) = experiment.get('trial-jobs')
        experiment.stop()
        assert not (checkpoint.parents[1] / 'result.json').exists(), 'stopped too late to test anything'
        experiment.resume(results)
        (resumed,) = experiment.wait(trials=1)
        assert (resumed['trialJobId'], resumed['status']) == (job['trialJobId'], 'SUCCEEDED')
        points = [m for m in experiment.get(f'metric-data/{job["trialJobId"]}') if m['type'] == 'PERIODICAL']
        curve = experiment.metrics(job['trialJobId'], 'PERIODICAL')
    assert sorted(int(point['sequence']) for point in points) == list(range(8))
    name = json.loads(job['hyperParameters'][0])['parameters']['start']['strategy.name']
    command = ['search', '--config', str(digits / 'search.yml'), '--out', str(tmp_path / 'whole')]
    assert main([*command, '--set', f'strategy.name={name}']) == 0
    whole = json.loads((tmp_path / 'whole' / 'result.json').read_text())['curve']
    assert [figures['default'] for figures in curve] == [figures['default'] for figures in whole]


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


def test_a_trial_has_its_own_parameters_after_one_that_never_asked(digits):
    command = f'if [ $NNI_TRIAL_SEQ_ID = 0 ]; then exit 1; fi; {sys.executable} -m nni_warmstart.trial --config search.yml'
    values = {'seed': [100, 101], 'strategy.name': ['DARTS'], 'evaluator.max_epochs': [1]}
    space = {key: {'_type': 'choice', '_value': each} for key, each in values.items()}
    experiment = yaml.safe_load((digits / 'warmstart.yml').read_text())
    experiment |= {'searchSpace': space, 'trialCommand': command, 'tuner': {'name': 'GridSearch'}}
    (digits / 'warmstart.yml').write_text(yaml.safe_dump(experiment))
    with Experiment(digits / 'warmstart.yml') as experiment:
        jobs = experiment.wait(trials=2)
        assert [job['status'] for job in jobs] == ['FAILED', 'SUCCEEDED']
        shown = json.loads(jobs[1]['hyperParameters'][0])
        (path,) = digits.parent.rglob(f'trials/{jobs[1]["trialJobId"]}/result.json')
        assert json.loads(path.read_text())['seed'] == shown['parameters']['seed']
        reported = experiment.get(f'metric-data/{jobs[1]["trialJobId"]}')
        assert {metric['parameterId'] for metric in reported} == {str(shown['parameter_id'])}


OWN_TRIAL = """
import nni, sys, torch
sys.path.insert(0, {tests!r})
from helpers.tiny import make_task, small_space
from nni.nas.experiment import NasExperiment
from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer

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
