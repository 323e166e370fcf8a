"""A search and a pretraining on two devices: processes on the CPU, whose gradients Lightning averages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml
from helpers.tiny import ROOT, SMALL, save_npz

from nni_warmstart import Supernet
from nni_warmstart.cli import main

SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path

from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import NasBench201
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything

from helpers.tiny import make_task
from nni_warmstart import SupernetZoo
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.search import strategies
from nni_warmstart.utils.distributed import leave_group

seed_everything(0, verbose=False)  # the architecture that NNI's Proxyless exports is drawn at random
name, arguments, out = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
task = make_task(96)
evaluator = classification(split(task), 3, make_trainer(2, out, progress=False, devices=2), batch_size=8, learning_rate=0.05)
strategy = getattr(strategies, name)(arc_learning_rate=0.05, zoo=SupernetZoo(out / 'zoo'), **arguments)
space = NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=3)
strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
module = strategy.oneshot_module
digest = hashlib.sha256()
for tensor in strategy.supernet.parameters():
    digest.update(tensor.detach().numpy().tobytes())
told = {
    'weights and alphas': digest.hexdigest(), 'probabilities': module.probabilities(), 'alphas': module.alphas,
    'export': module.export(), 'final': module.final, 'accuracy': [f['default'] for f in strategy.curve],
    'report': strategy.report and strategy.report.to_dict(),
}
(out / f'rank{module.trainer.global_rank}.json').write_text(json.dumps(told, default=str))
leave_group()
"""


@pytest.fixture
def folder(tmp_path):
    save_npz(tmp_path / 'shapes.npz', n=72)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(SMALL))
    return tmp_path


def run(folder, command: list[str]) -> str:
    environment = {
        'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}',
        'PATH': '/usr/bin:/bin',
        'HOME': str(folder),
        'OMP_NUM_THREADS': '1',
    }
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('WarmStartDARTS', {'source': 'auto', 'stop_on_eigenvalue': True}), ('WarmStartProxyless', {}),
        ('WarmStartGumbelDARTS', {'average': 1.0}),
    ],
)  # fmt: skip
def test_every_device_has_the_same_supernet_architecture_and_source(folder, name, arguments):
    if arguments.get('source'):
        for number in range(2):
            assert (
                main(
                    [
                        'search',
                        '--config',
                        str(folder / 'search.yml'),
                        '--out',
                        str(folder / 'out'),
                        '--seed',
                        f'{number}',
                        '--overwrite',
                    ]
                )
                == 0
            )
            source = str(folder / 'out' / 'supernet.safetensors')
            assert main(['zoo', 'add', source, '--zoo', str(folder / 'zoo'), '--name', f'source{number}']) == 0
    (folder / 'search.py').write_text(SCRIPT)
    run(folder, [str(folder / 'search.py'), name, json.dumps(arguments), str(folder)])
    first, second = (json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(2))
    assert first == second
    assert bool(first['report']) == bool(arguments.get('source'))
    assert len(first['accuracy']) == 2


@pytest.mark.slow
def test_a_search_on_two_devices_writes_once(folder):
    command = ['-m', 'nni_warmstart.cli', 'search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'out')]
    shown = run(folder, [*command, '--set', 'evaluator.devices=2'])
    assert shown.count('Results in') == 1
    result = json.loads((folder / 'out' / 'result.json').read_text())
    supernet = Supernet.load(folder / 'out' / 'supernet.safetensors')
    checkpoint = torch.load(folder / 'out' / 'checkpoints' / 'last.ckpt', weights_only=True)
    prefix = 'training_module._model.'
    assert all(
        torch.equal(tensor, checkpoint['state_dict'][prefix + name])
        for name, tensor in supernet.state_dict().items()
        if 'running' not in name
    )
    assert checkpoint['global_step'] == 2 * 2 * 5  # epochs; weights and alphas; of 36 images 18 on a device, four at a time
    assert len(result['curve']) == 2


@pytest.mark.slow
def test_a_pretraining_on_two_devices(folder):
    save_npz(folder / 'others.npz', n=30, classes=2)
    settings = {'max_epochs': 2, 'steps_per_epoch': 3, 'batch_size': 4, 'devices': 2}
    data = [{'npz': {'path': f'{name}.npz'}} for name in ('shapes', 'others')]
    (folder / 'pretrain.yml').write_text(yaml.safe_dump({**SMALL, 'data': data, 'evaluator': settings}))
    command = ['-m', 'nni_warmstart.cli', 'pretrain', '--config', str(folder / 'pretrain.yml'), '--name', 'both']
    shown = run(folder, [*command, '--zoo', str(folder / 'zoo'), '--out', str(folder / 'out')])
    assert shown.count('Kept as') == 1
    supernet = Supernet.load(folder / 'zoo' / 'both.safetensors')
    assert all(torch.isfinite(tensor).all() for tensor in supernet.tensors.values())
    assert set(supernet.history['datasets']) == {'shapes', 'others'}


def test_devices_that_are_not_there_are_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert (
        main(
            ['search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'out'), '--set', 'evaluator.devices=0']
        )
        == 2
    )
    assert 'evaluator.devices = 0, but it must be 1 or more' in capsys.readouterr().err


@pytest.mark.parametrize(('command', 'left'), [(['spaces'], True), (['zoo', 'show', 'nowhere', '--zoo', 'here'], False)])
def test_a_command_that_succeeds_leaves_the_group_of_its_processes(tmp_path, monkeypatch, command, left):
    monkeypatch.chdir(tmp_path)
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        assert (main(command) == 0) is left
        assert torch.distributed.is_initialized() is not left
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
