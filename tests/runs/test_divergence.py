"""A training that diverges says so, ends with an error, and leaves nothing behind that others would start from."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, make_task, small_space
from hypothesis import given
from hypothesis import strategies as some
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_warmstart import Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import main
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.search.oneshot_module import DartsSearchModule
from nni_warmstart.supernets.network import Network
from nni_warmstart.utils.divergence import LARGEST, divergence

FAST = ['--set', 'evaluator.learning_rate=3000']


def says_so(capsys, status: int) -> None:
    assert status == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: training diverged in epoch ')
    assert 'Start anew with a lower evaluator.learning_rate.' in error


def test_a_search_that_diverges_remembers_nothing(folder, capsys):
    """Not even in the folder: neither results nor a checkpoint of that epoch."""
    assert search(folder, *FAST, '--set', 'strategy.save_to=zoo') == 1
    says_so(capsys, 1)
    assert SupernetZoo(folder / 'zoo').names() == []
    left = {path.name for path in (folder / 'out').rglob('*') if path.is_file()}
    assert left == {'run.json', 'settings.json', 'metrics.csv', '.run.lock'}


@pytest.mark.slow
def test_the_last_good_checkpoint_is_kept(folder, monkeypatch, capsys):
    """The weights of the second epoch are absurd, and finite; losses stay ordinary behind batch norm."""
    step = DartsSearchModule.training_step

    def diverging(module, batch, batch_idx):
        if module.trainer.current_epoch == 1:
            with torch.no_grad():
                next(parameter for name, parameter in module.model.named_parameters() if 'stem' in name).fill_(3e9)
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DartsSearchModule, 'training_step', diverging)
        assert search(folder) == 1
    error = capsys.readouterr().err
    assert 'diverged in epoch 2: ' in error and 'reaches 3e+09, more than 1e+06; the checkpoint of epoch 1 is kept' in error
    assert torch.load(folder / 'out' / 'checkpoints' / 'last.ckpt', weights_only=True)['epoch'] == 0
    assert search(folder, '--resume') == 0


def test_a_retraining_that_diverges_writes_no_network(folder, capsys):
    assert search(folder, '--set', 'evaluator.max_epochs=1') == 0
    places = ['--config', str(folder / 'search.yml'), '--run', str(folder / 'out'), '--out', str(folder / 'net')]
    capsys.readouterr()
    says_so(capsys, main(['retrain', *places, *FAST]))
    assert not (folder / 'net' / 'network.safetensors').exists()
    assert not (folder / 'net' / 'result.json').exists()
    assert main(['retrain', *places]) == 0  # nothing was there, so nothing is in the way
    network = Network.load(folder / 'net' / 'network.safetensors')
    assert all(bool(tensor.isfinite().all()) for tensor in network.tensors.values())


def test_a_pretraining_that_diverges_adds_no_entry(folder, capsys):
    document = {'data': [SMALL['data']], 'space': SMALL['space'], 'evaluator': {'max_epochs': 2, 'steps_per_epoch': 4}}
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(document))
    command = ['pretrain', '--config', str(folder / 'pretrain.yml'), '--name', 'both', '--zoo', str(folder / 'zoo')]
    says_so(capsys, main([*command, '--out', str(folder / 'p'), *FAST]))
    assert SupernetZoo(folder / 'zoo').names() == []


@pytest.mark.parametrize('rate', [3000.0, 1e20, math.inf])
@pytest.mark.parametrize('warm', [False, True], ids=['cold', 'warm'])
def test_a_search_in_python_goes_on_as_nnis_and_is_not_remembered(tmp_path, caplog, source, rate, warm):
    task = make_task()
    trainer = make_trainer(2, tmp_path, progress=False)
    evaluator = classification(split(task), task.num_classes, trainer, batch_size=8, learning_rate=rate)
    strategy = WarmStartDARTS(source=source if warm else None, save_to=tmp_path / 'zoo', gradient_clip_val=0)
    strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    assert SupernetZoo(tmp_path / 'zoo').names() == []
    assert any('is not remembered in' in record.getMessage() for record in caplog.records)
    assert len(strategy.curve) == 2


def test_zoo_add_refuses_weights_that_are_not_finite(tmp_path, source, capsys):
    alpha = next(iter(source.alphas.values()))
    tensors = {**source.tensors, alpha: torch.full_like(source.tensors[alpha], torch.nan)}
    Supernet(**{**vars(source), 'tensors': tensors}).save(tmp_path / 'x.safetensors')
    assert main(['zoo', 'add', '--zoo', str(tmp_path / 'zoo'), str(tmp_path / 'x.safetensors')]) == 2
    assert 'its training diverged' in capsys.readouterr().err
    assert not (tmp_path / 'zoo').exists() or SupernetZoo(tmp_path / 'zoo').names() == []


@given(some.lists(some.floats(width=32), max_size=5), some.floats())
def test_what_counts_as_diverged(values, loss):
    sound = all(abs(value) <= LARGEST for value in values)
    assert (divergence([('empty', torch.zeros(0)), ('a', torch.tensor(values))]) is None) == sound
    assert (divergence([], {'val_loss': torch.tensor(loss, dtype=torch.float64)}) is None) == math.isfinite(loss)
    assert divergence([], {'val_acc': math.nan, 'lr': 1e30}) is None
    assert divergence([('a.b', torch.tensor([1, -3e26]))]) == 'a.b reaches 3e+26, more than 1e+06'
    assert divergence([], {'train_loss': math.nan}) == 'train_loss is nan'
