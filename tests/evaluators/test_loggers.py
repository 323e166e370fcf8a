"""Boards of others by name: Lightning's loggers, whose packages may not be installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, save_npz

from nni_warmstart.evaluators.loggers import LOGGERS
from nni_warmstart.nni_adapter import trial


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_npz(tmp_path / 'shapes.npz', n=36)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': {**SMALL['evaluator'], 'max_epochs': 1}}))
    return tmp_path


@pytest.mark.parametrize('name', LOGGERS[1:])
def test_without_its_package_it_is_one_line(folder, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert search(folder, '--set', f'evaluator.logger={name}') == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {name} is not installed') and error.count('\n') == 1
    assert f"pip install 'nni-warmstart[{name}]'" in error
    assert not (folder / 'out' / 'run.json').exists()


@pytest.mark.parametrize(
    ('name', 'meant'), [('tensorbord', 'tensorboard'), ('ml_flow', 'mlflow'), ('CSV', ''), ('x' * 40, '')]
)
def test_an_unknown_one_is_one_line(folder, capsys, name, meant):
    assert search(folder, '--set', f'evaluator.logger={name}') == 2
    error = capsys.readouterr().err
    assert f'evaluator.logger = {name!r}, but it must be one of csv, tensorboard, mlflow, wandb.' in error
    assert error.count('\n') == 1
    assert error.rstrip().endswith(f'Did you mean {meant}?' if meant else 'wandb.')


@pytest.mark.slow
def test_tensorboard_has_the_figures(folder):
    pytest.importorskip('tensorboard')
    accumulators = importlib.import_module('tensorboard.backend.event_processing.event_accumulator')
    assert search(folder, '--set', 'evaluator.logger=tensorboard') == 0
    written = accumulators.EventAccumulator(str(folder / 'out' / 'tensorboard'))
    written.Reload()
    assert {'search/default', 'search/train_loss', 'val_acc'} <= set(written.Tags()['scalars'])
    assert (folder / 'out' / 'logs' / 'metrics.csv').is_file()


@pytest.mark.slow
def test_mlflow_has_the_figures(folder):
    mlflow = pytest.importorskip('mlflow')
    assert search(folder, '--set', 'evaluator.logger=mlflow') == 0
    client = mlflow.MlflowClient(f'sqlite:///{folder / "out" / "mlflow.db"}')
    experiment = client.get_experiment_by_name('nni-warmstart')
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == 'out'
    assert {'search/default', 'search/train_loss'} <= run.data.metrics.keys()
    assert (folder / 'out' / 'logs' / 'metrics.csv').is_file()


@pytest.mark.parametrize('pressed', [False, True])
def test_nnis_page_finds_the_logs_of_a_local_trial(tmp_path, monkeypatch, pressed):
    output = tmp_path / 'environments' / 'local-env' / 'trials' / 'AbCdE'
    output.mkdir(parents=True)
    shown = tmp_path / 'trials' / 'AbCdE' / 'output' / 'tensorboard'
    if pressed:
        shown.mkdir(parents=True)
    of_trial = trial.trial_env_vars._replace(NNI_PLATFORM='local', NNI_OUTPUT_DIR=str(output))
    monkeypatch.setattr(trial, 'trial_env_vars', of_trial)
    for _ in range(2):  # as after a resumption
        trial.show_tensorboard()
    (output / 'tensorboard' / 'events').touch()
    assert (shown / 'events').exists()
