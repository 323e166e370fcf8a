"""A training ends once a validation accuracy is reached and held, and stays ended."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, make_task, save_npz
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_warmstart import DataError, JointClassification
from nni_warmstart.cli import main
from nni_warmstart.evaluators.stop_at import StopAt
from nni_warmstart.utils.metrics import epochs_to, final_accuracy


def ended_after(curve: list[float], accuracy: float, resumed_after: int | None = None) -> int:
    """Epochs of a training with these accuracies, perhaps with another callback from some epoch on."""
    callback = StopAt(accuracy)
    for epoch, value in enumerate(curve, 1):
        metrics = {'val_acc': torch.tensor(value)}
        strategy = SimpleNamespace(root_device='cpu', reduce=lambda value, reduce_op: value)
        trainer = SimpleNamespace(should_stop=False, sanity_checking=False, callback_metrics=metrics, strategy=strategy)
        callback.on_validation_end(trainer, None)
        if trainer.should_stop:
            return epoch
        if epoch == resumed_after:
            state, callback = callback.state_dict(), StopAt(accuracy)
            callback.load_state_dict(state)
    return len(curve)


def test_known_curves():
    assert ended_after([0.5, 0.9, 0.9, 0.9, 0.9], 0.9) == 4
    assert ended_after([0.5, 0.95, 0.6, 0.9, 0.92, 0.91, 0.9], 0.9) == 6  # an epoch that is not held does not count
    assert ended_after([0.9, 0.9], 0.9) == 2
    assert ended_after([0.1] * 5, 0.0) == 3
    assert ended_after([0.9] * 5, 1.0) == 5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=12), st.integers(0, 10), st.integers(1, 12))
def test_what_was_reached_is_held(tenths, accuracy, resumed_after):
    """Also by the measure of the benchmarks and the report; a kill in between changes nothing."""
    curve, accuracy = [each / 10 for each in tenths], accuracy / 10
    ended = ended_after(curve, accuracy)
    assert ended == ended_after(curve, accuracy, resumed_after)
    if ended < len(curve):
        assert epochs_to(curve[:ended], accuracy) == ended - 2
        assert final_accuracy(curve[:ended]) >= accuracy - 1e-6


@pytest.fixture
def folder(tmp_path):
    save_npz(tmp_path / 'shapes.npz', n=36)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': {**SMALL['evaluator'], 'max_epochs': 6}}))
    return tmp_path


def result(folder) -> dict:
    return json.loads((folder / 'out' / 'result.json').read_text())


@pytest.mark.slow
def test_a_search_ends_and_stays_ended_until_it_is_to_reach_more(folder, capsys):
    """Accuracy 0 is reached by the first epoch and held by the two after it; no other epoch is different for that."""
    assert search(folder, '--set', 'evaluator.stop_at=0') == 0
    assert 'Validation accuracy 0 was reached in epoch 1, and held' in capsys.readouterr().out
    stopped = result(folder)
    assert len(stopped['curve']) == 3
    assert stopped['stop_at'] == {'accuracy': 0.0, 'epoch': 1}
    assert search(folder, '--resume', '--set', 'evaluator.stop_at=0') == 0
    again = result(folder)
    assert [len(again[key]) for key in ('curve', 'alphas')] == [3, 3]
    assert again['architecture'] == stopped['architecture']
    assert again['final']['default'] == stopped['final']['default']
    assert search(folder, '--resume', '--set', 'evaluator.stop_at=1') == 0
    went_on = result(folder)
    assert went_on['stop_at'] == {'accuracy': 1.0, 'epoch': None}
    assert search(folder) == 0
    whole = result(folder)
    assert whole['stop_at'] is None
    for each in (*went_on['curve'], *whole['curve']):
        each.pop('epoch_seconds')
    assert went_on['curve'] == whole['curve'] and len(whole['curve']) == 6
    assert went_on['alphas'] == whole['alphas']


@pytest.mark.parametrize('value', ['1.5', '-0.1', 'high', '.nan', 'true', '[0.9]'])
def test_what_is_no_accuracy_is_one_line(folder, capsys, value):
    assert search(folder, '--set', f'evaluator.stop_at={value}') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: evaluator.stop_at = ') and error.count('\n') == 1
    assert 'must be from 0 to 1' in error or 'must be a number, from 0 to 1' in error


def test_joint_training_in_python(tmp_path):
    tasks = [make_task(name='a'), make_task(name='b', seed=1)]
    stop = JointClassification(tasks, stop_at=0.5).trainer.callbacks[0]
    assert isinstance(stop, StopAt) and stop.accuracy == 0.5
    assert not any(isinstance(each, StopAt) for each in JointClassification(tasks).trainer.callbacks)
    with pytest.raises(DataError, match='stop_at = 2, but it must be from 0 to 1'):
        JointClassification(tasks, stop_at=2)


@pytest.mark.slow
def test_pretraining_ends_and_retraining_does_not(folder):
    """What ends a retraining must not be its test images."""
    pretrain = {
        'data': [{'npz': {'path': 'shapes.npz'}, 'label': 'one', 'licence': 'CC0-1.0'}],
        'space': SMALL['space'],
        'evaluator': {**SMALL['evaluator'], 'max_epochs': 5, 'steps_per_epoch': 2, 'stop_at': 0.0},
    }
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(pretrain))
    command = ['pretrain', '--config', str(folder / 'pretrain.yml'), '--zoo', str(folder / 'zoo'), '--name', 'mine']
    assert main([*command, '--out', str(folder / 'pre')]) == 0
    rows = (folder / 'pre' / 'logs' / 'metrics.csv').read_text().splitlines()
    epochs = {row.split(',')[rows[0].split(',').index('epoch')] for row in rows[1:]} - {''}
    assert epochs == {'0', '1', '2'}
    settings = ['--set', 'evaluator.stop_at=0', '--set', 'evaluator.max_epochs=5']
    assert search(folder, *settings) == 0
    config = ['--config', str(folder / 'search.yml'), '--run', str(folder / 'out')]
    assert main(['retrain', *config, '--out', str(folder / 'net'), *settings]) == 0
    assert len(json.loads((folder / 'net' / 'result.json').read_text())['curve']) == 5
