"""Rows of logs/metrics.csv: a resumed run has those of a run that was not interrupted, each once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from helpers.tiny import SMALL, save_npz
from helpers.tiny import run as run_tiny

from nni_warmstart import WarmStartDARTS
from nni_warmstart.cli import main
from nni_warmstart.evaluators.classification import ClassificationOnTest, CosineClassification
from nni_warmstart.evaluators.joint_module import JointModule

EVALUATOR = {**SMALL['evaluator'], 'max_epochs': 3, 'batch_size': 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_npz(tmp_path / 'shapes.npz', n=48)
    files = {
        'darts.yml': {**SMALL, 'evaluator': EVALUATOR},
        'gumbel.yml': {**SMALL, 'evaluator': EVALUATOR, 'strategy': {'name': 'GumbelDARTS', 'temperature': 2.0}},
        'pretrain.yml': {
            'data': [{'npz': {'path': 'shapes.npz'}, 'label': name, 'licence': 'CC0-1.0'} for name in ('one', 'two')],
            'space': SMALL['space'],
            'evaluator': EVALUATOR,
            'strategy': {'name': 'DARTS'},
        },
    }
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    return tmp_path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / 'logs' / 'metrics.csv').open(newline='') as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key != 'search/epoch_seconds'} for row in found]


class Stop(Exception):
    """Ends a run, as a kill would."""


def interrupt(patched: pytest.MonkeyPatch, module: type, call: int) -> None:
    step, calls = module.training_step, []

    def training_step(*args):
        calls.append(1)
        if len(calls) == call:
            raise Stop
        return step(*args)

    patched.setattr(module, 'training_step', training_step)


def run(command: list[str], out: Path, *interruptions: tuple[type, int], over: bool = False) -> list[dict[str, str]]:
    """Run a command that is interrupted at some training steps of its processes, and resumed each time.

    If it is ``over``, a run that has ended is resumed.
    """
    command = [*command, '--out', str(out)]
    if command[0] == 'pretrain':
        command += ['--name', out.name]
    resume = ['--resume'] if over else []
    for module, call in interruptions:
        with pytest.MonkeyPatch.context() as patched:
            interrupt(patched, module, call)
            with pytest.raises(Stop):
                main([*command, *resume])
        resume = ['--resume']
    assert main([*command, *resume]) == 0
    return rows(out)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['darts', 'gumbel', 'pretrain', 'retrain'])
def test_a_resumed_run_has_all_rows_once(folder, kind):
    steps, module = 12, CosineClassification  # calls of training_step in an epoch
    command = ['search', '--config', str(folder / f'{kind}.yml')]
    if kind == 'pretrain':
        command = ['pretrain', '--config', str(folder / 'pretrain.yml'), '--zoo', str(folder / 'zoo')]
        module = JointModule
    elif kind == 'retrain':
        search = ['search', '--config', str(folder / 'darts.yml'), '--set', 'evaluator.max_epochs=1']
        assert main([*search, '--out', str(folder / 'found')]) == 0
        command = ['retrain', '--config', str(folder / 'darts.yml'), '--run', str(folder / 'found')]
        module = ClassificationOnTest
    whole = run(command, folder / 'whole')
    assert {row['epoch'] for row in whole if 'epoch' in row} == {'0', '1', '2'}
    assert any('val_acc' in row or 'test_acc' in row for row in whole)
    again = [] if kind == 'pretrain' else [(module, 2), (module, steps + 1)]
    assert run(command, folder / 'killed', (module, steps + 3), *again) == whole
    assert run(command, folder / 'killed', over=True) == whole


def test_a_new_run_has_no_rows_of_an_older_one(tmp_path):
    found = []
    for epochs in (2, 1):
        torch.manual_seed(0)
        run_tiny(WarmStartDARTS(), tmp_path, epochs=epochs)
        found.append(rows(tmp_path))
    assert 0 < len(found[1]) < len(found[0])
    assert found[0][: len(found[1])] == found[1]
