"""After training nothing is lost: results are written first, and a figure that fails is one warning."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import torch
from helpers.tiny import OwnSpace, make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import LightningDataModule
from torch.utils.data import Dataset, TensorDataset

from nni_warmstart import Supernet, SupernetZoo, WarmStartDARTS, ZooError
from nni_warmstart.cli.main import main
from nni_warmstart.search import collapse
from nni_warmstart.search.evaluation import Evaluation


class Missing(Dataset):
    """Test images that are not there."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __len__(self):
        return 8

    def __getitem__(self, index):
        raise self.error


class Data(LightningDataModule):
    def __init__(self, test) -> None:
        super().__init__()
        task = make_task()
        self.data, self.test = TensorDataset(task.train_x.float() / 255, task.train_y), test

    def train_dataloader(self):
        return DataLoader(self.data, 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data, 8)

    def test_dataloader(self):
        return self.test()


def search(tmp_path, strategy, test=list, module=ClassificationModule, space=None):
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=2, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    engine = SequentialExecutionEngine()
    evaluator = Lightning(module(num_classes=3), trainer, datamodule=Data(test))
    try:
        strategy(RawFormatModelSpace(space or small_space(), evaluator), engine)
    finally:
        (model,) = engine.list_models()
    return model.metrics.final


def images(error):
    return lambda: DataLoader(Missing(error), 4)


def no_loader():
    raise FileNotFoundError('no folder of test images')


FAILING = {
    'images': images(OSError('no such file')),
    'values': images(ValueError('broken image')),
    'loader': no_loader,
    'other images': lambda: DataLoader(TensorDataset(torch.zeros(8, 5, 8, 8), torch.zeros(8, dtype=torch.long)), 4),
    'no pairs': lambda: DataLoader(TensorDataset(torch.zeros(8, 3, 8, 8)), 4),
    'other classes': lambda: DataLoader(TensorDataset(torch.zeros(8, 3, 8, 8), torch.zeros(8, 2)), 4),
}


@pytest.mark.slow
@pytest.mark.parametrize('test', FAILING)
def test_a_test_that_fails_is_one_warning(tmp_path, caplog, test):
    strategy = WarmStartDARTS(save_to=tmp_path / 'zoo')
    final = search(tmp_path, strategy, FAILING[test])
    assert caplog.text.count('The test accuracy cannot be measured') == 1
    assert strategy.oneshot_module.final == strategy.curve[-1]
    assert final == strategy.curve[-1]['default']
    (entry,) = SupernetZoo(tmp_path / 'zoo').entries()
    state = strategy.supernet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in entry.tensors.items())


@pytest.mark.slow
@pytest.mark.parametrize('error', [KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_the_supernet_is_kept_before_the_test_begins(tmp_path, error):
    with suppress(KeyboardInterrupt, SystemExit):
        search(tmp_path, WarmStartDARTS(save_to=tmp_path / 'zoo'), images(error))
    assert len(SupernetZoo(tmp_path / 'zoo').names()) == 1


def test_the_supernet_is_kept_where_a_hook_of_the_evaluator_fails(tmp_path):
    class Plotting(ClassificationModule):
        def on_fit_end(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(tmp_path, WarmStartDARTS(save_to=tmp_path / 'zoo'), module=Plotting)
    assert len(SupernetZoo(tmp_path / 'zoo').names()) == 1


def test_a_zoo_that_cannot_be_written_leaves_the_figures(tmp_path, monkeypatch):
    def full(*_):
        raise OSError('no space left')

    monkeypatch.setattr(SupernetZoo, 'add_numbered', full)
    strategy = WarmStartDARTS(save_to=tmp_path / 'zoo')
    with pytest.raises(OSError, match='no space left'):
        search(tmp_path, strategy)
    assert strategy.oneshot_module.final == strategy.curve[-1]


def test_a_zoo_that_is_full_at_the_end_costs_no_results(folder, monkeypatch, caplog):
    def full(self, *_):
        raise ZooError(f'zoo {self.root} cannot be written: No space left on device')

    monkeypatch.setattr(SupernetZoo, 'add_numbered', full)
    out, zoo = folder / 'run', folder / 'zoo'
    command = ['search', '--config', str(folder / 'search.yml'), '--out', str(out), '--set', 'strategy.name=WarmStartDARTS']
    command += ['--set', 'evaluator.max_epochs=1', '--set', f'strategy.save_to={zoo}']
    assert main(command) == 0
    assert json.loads((out / 'result.json').read_text())['final'] and Supernet.load(out / 'supernet.safetensors')
    message = f'zoo {zoo} cannot be written: No space left on device; add that of a run later by `nni-warmstart zoo'
    assert f'The supernet is not remembered: {message}' in caplog.text
    monkeypatch.undo()
    assert main([*command[:-1], f'strategy.save_to={zoo}2', '--resume']) == 0
    assert len(SupernetZoo(f'{zoo}2').names()) == 1


def test_an_eigenvalue_that_fails_is_one_warning(tmp_path, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError('derivative for this kernel is not implemented')

    monkeypatch.setattr(collapse, 'dominant_eigenvalue', fails)
    strategy = WarmStartDARTS(stop_on_eigenvalue=True)
    search(tmp_path, strategy)
    assert len(strategy.curve) == 2
    assert caplog.text.count('derivative for this kernel is not implemented') == 1


@pytest.mark.slow
def test_a_run_is_written_before_its_test(folder, monkeypatch):
    def fails(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, 'test_accuracy', fails)
    out = folder / 'run'
    with suppress(KeyboardInterrupt, SystemExit):
        main(['search', '--config', str(folder / 'search.yml'), '--out', str(out)])
    assert json.loads((out / 'architecture.json').read_text())['sample']
    assert Supernet.load(out / 'supernet.safetensors').num_parameters
    assert not (out / 'result.json').exists()  # it can be resumed
    monkeypatch.undo()
    assert main(['search', '--config', str(folder / 'search.yml'), '--out', str(out), '--resume']) == 0
    assert 'test_accuracy' in json.loads((out / 'result.json').read_text())['final']


class Fails(ClassificationModule):
    """Its validation, which NNI never runs, fails in the second epoch."""

    def validation_step(self, batch, batch_idx):
        if self.trainer.current_epoch == 1:
            raise IndexError('no such image')
        return super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self):
        assert self.trainer.current_epoch == 0  # there is nothing to conclude


def test_a_validation_that_fails_is_one_warning(tmp_path, caplog):
    strategy = WarmStartDARTS(save_to=tmp_path / 'zoo')
    final = search(tmp_path, strategy, module=Fails, space=OwnSpace())
    assert ['default' in epoch for epoch in strategy.curve] == [True, False]
    assert 0 <= final <= 1  # of training, as in NNI
    assert caplog.text.count('since validation_step fails: no such image') == 1
    assert len(SupernetZoo(tmp_path / 'zoo').names()) == 1
