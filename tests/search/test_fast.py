"""Searches by plans: when they are used, what the log says, and that a resumed search goes on as it began."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import make_task, run, small_space
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint

from nni_warmstart import ConfigError, WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.runs.strategies import make_strategy, parse_strategy
from nni_warmstart.search import collapse
from nni_warmstart.search.fast import Fast


@pytest.mark.parametrize(
    ('settings', 'fast'),
    [({}, False), ({'source': 'joint'}, True), ({'fast': True}, True), ({'source': 'joint', 'fast': False}, False)],
)
def test_a_warm_start_is_fast_and_a_cold_one_is_nnis(settings, fast):
    assert WarmStartDARTS(**settings).settings.fast is fast
    assert WarmStartGumbelDARTS(**settings).settings.fast is fast


@pytest.mark.parametrize('value', ['yes', 1, 0.0, []])
def test_fast_is_true_or_false(value):
    with pytest.raises(ConfigError, match=r'fast = .*, but it must be true or false, or None'):
        WarmStartDARTS(fast=value)


def test_fast_in_a_file(tmp_path):
    strategy = make_strategy(parse_strategy({'name': 'WarmStartDARTS', 'fast': True}), tmp_path)
    assert strategy.settings.fast
    with pytest.raises(ConfigError, match=r"strategy.fast = 'maybe', but it must be true or false"):
        parse_strategy({'name': 'WarmStartDARTS', 'fast': 'maybe'})


def test_the_log_says_which_plan_each_kind_has(tmp_path, caplog):
    caplog.set_level('INFO', 'nni_warmstart')
    strategy = run(WarmStartDARTS(fast=True), tmp_path, epochs=1)
    assert "cells.0 and 2 more (NasBench201Cell): run by the plan 'NAS-Bench-201'." in caplog.text
    assert not any('forward' in vars(module) for module in strategy.supernet.modules())


def test_no_plan_is_one_line(tmp_path, caplog):
    run(WarmStartProxyless(fast=True), tmp_path, epochs=1)
    lines = [record.getMessage() for record in caplog.records if 'fast=True' in record.getMessage()]
    assert lines == [
        "fast=True, but no plan fits, and the search runs NNI's forward: "
        'cells.0: its choices are not mixed as in DARTS.'
    ]  # fmt: skip


class Stop(Callback):
    """Stops a search early."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def searched(tmp_path, epochs: int, checkpoint=None, **settings):
    torch.manual_seed(0)
    task = make_task()
    callbacks = [ModelCheckpoint(tmp_path / 'checkpoints', save_last=True), Stop(epochs)]
    trainer = make_trainer(3, tmp_path, progress=False, callbacks=callbacks)
    evaluator = classification(split(task), 3, trainer, batch_size=8, learning_rate=0.05, weight_decay=3e-4)
    strategy = WarmStartDARTS(arc_learning_rate=0.01, **settings)
    if checkpoint is not None:
        strategy.resume_from(checkpoint)
    strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    return strategy


@pytest.mark.slow
@pytest.mark.parametrize('fast', [True, False])
def test_a_resumed_search_goes_on_by_the_arithmetic_it_began_with(tmp_path, fast, caplog):
    caplog.set_level('INFO', 'nni_warmstart')
    whole = searched(tmp_path / 'whole', 3, fast=fast).supernet.state_dict()
    searched(tmp_path / 'part', 2, fast=fast)
    resumed = searched(tmp_path / 'part', 3, tmp_path / 'part' / 'checkpoints' / 'last.ckpt', fast=not fast)
    assert f'The search goes on as it began, with fast={fast}.' in caplog.text
    assert resumed.oneshot_module.fast.on is fast
    assert [name for name, value in resumed.supernet.state_dict().items() if not torch.equal(value, whole[name])] == []


def test_a_checkpoint_of_before_goes_on_with_nnis_forward():
    callback = Fast(on=True)
    callback.on_load_checkpoint(None, None, {'callbacks': {}})
    assert not callback.on


@pytest.mark.slow
def test_the_hessian_of_the_guard_is_that_of_nnis_forward(tmp_path, monkeypatch):
    found = []

    def hessian(loss, alphas):
        gradients = torch.autograd.grad(loss(), alphas, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradients])
        rows = [torch.cat([r.flatten() for r in torch.autograd.grad(g, alphas, retain_graph=True)]) for g in flat]
        return torch.stack(rows).detach()

    def eigenvalue(loss, alphas):
        model = strategy.supernet
        assert not any('forward' in vars(module) for module in model.modules())
        found.append(hessian(loss, alphas))
        with strategy.oneshot_module.fast.applied():
            found.append(hessian(loss, alphas))
        return 1.0

    monkeypatch.setattr(collapse, 'dominant_eigenvalue', eigenvalue)
    strategy = WarmStartDARTS(fast=True, stop_on_eigenvalue=True, arc_learning_rate=0.5)
    run(strategy, tmp_path, epochs=1)
    nnis, ours = found
    assert nnis.abs().max() > 1e-3
    torch.testing.assert_close(ours, nnis, rtol=1e-3, atol=1e-5 * float(nnis.abs().max()) + 1e-7)
    torch.testing.assert_close(nnis, nnis.T, rtol=1e-3, atol=1e-4 * float(nnis.abs().max()))
