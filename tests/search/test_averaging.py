"""Averaged weights: what is validated and kept, while the training goes its own way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.resumed import search
from helpers.tiny import make_task, run, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning
from nni.nas.evaluator.pytorch import Trainer as NniTrainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import IterableDataset

from nni_warmstart import ConfigError, Supernet, WarmStartDARTS, WarmStartProxyless
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter import batchnorm
from nni_warmstart.nni_adapter.choices import arch_parameters
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.nni_adapter.paths import best_path
from nni_warmstart.search.averaging import WeightAverage
from nni_warmstart.utils.metrics import accuracy_on


def test_an_average_reaches_back_some_steps():
    model = mutate(small_space(), 'DARTS')
    alphas = arch_parameters(model)
    average = WeightAverage(model, steps=4)
    weight = average.weights[0]
    assert not {id(alpha) for alpha in alphas} & {id(each) for each in average.weights}
    start = weight.detach().clone()
    for value in (1.0, 2.0):
        with torch.no_grad():
            weight.fill_(value)
        average.update()
    expected = 0.75 * (0.75 * start + 0.25 * 1.0) + 0.25 * 2.0
    with average.applied():
        assert torch.allclose(weight, expected)
    assert (weight == 2.0).all()
    average.apply()
    assert torch.allclose(weight, expected)


@pytest.mark.slow
def test_small_steps_are_not_lost_in_half_precision():
    model = mutate(small_space(), 'DARTS').bfloat16()
    average = WeightAverage(model, steps=500)
    with torch.no_grad():
        for value, weight in zip(average.values, average.weights, strict=True):
            value.fill_(1.0)
            weight.fill_(1.5)
    for _ in range(3000):
        average.update()
    with average.applied():
        assert all(abs(float(weight.mean()) - 1.5) < 0.01 and weight.dtype == torch.bfloat16 for weight in average.weights)
    again = WeightAverage(model, steps=500)
    again.load(average.values)
    assert all(map(torch.equal, again.values, average.values))


def test_data_of_no_length_are_not_averaged(caplog):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(task.train_x[i].float(), task.train_y[i]) for i in range(24)])

    task = make_task()
    trainer = NniTrainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loaders = {f'{part}_dataloaders': DataLoader(Stream(), 8) for part in ('train', 'val')}
    evaluator = Lightning(ClassificationModule(num_classes=3), trainer, **loaders)
    model, strategy = small_space(3), WarmStartDARTS(average=1.0)
    before = model.classifier.weight.detach().clone()
    strategy(RawFormatModelSpace(model, evaluator), SequentialExecutionEngine())
    assert 'The weights are not averaged: the training data have no length' in caplog.text
    assert not torch.equal(strategy.supernet.classifier.weight, before)


@pytest.mark.slow
def test_averaging_leaves_the_training_as_it_is(tmp_path):
    task, searches = make_task(), {}
    for average in (0.0, 1.0):
        torch.manual_seed(0)
        searches[average] = run(WarmStartDARTS(average=average, arc_learning_rate=0.1), tmp_path, epochs=3, task=task)
    plain, averaged = searches.values()
    for one, other in zip(*(arch_parameters(each.supernet) for each in searches.values()), strict=True):
        assert torch.equal(one, other)
    assert [figures['train_loss'] for figures in plain.curve] == [figures['train_loss'] for figures in averaged.curve]
    assert not torch.equal(plain.supernet.classifier.weight, averaged.supernet.classifier.weight)
    assert [figures['val_loss'] for figures in plain.curve] != [figures['val_loss'] for figures in averaged.curve]


@pytest.mark.slow
def test_what_is_kept_has_the_statistics_of_the_averaged_weights(tmp_path):
    task, searches = make_task(n=64), {}
    for average in (0.0, 1.0):
        torch.manual_seed(0)
        searches[average] = run(WarmStartDARTS(average=average), tmp_path, epochs=3, task=task).oneshot_module
    kept, trained = ({n: t.clone() for n, t in searches[a].model.state_dict().items() if 'running' in n} for a in (1.0, 0.0))
    assert not any(map(torch.equal, kept.values(), trained.values()))
    module = searches[1.0]
    module.evaluation.fit_averaged(module)  # those of the averages: estimated once more, they stay
    again = searches[1.0].model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in kept.items())


class Trained(Callback):
    """Notes the weights at the end of the training."""

    def on_train_end(self, trainer, pl_module) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in pl_module.model.named_parameters()}


@pytest.mark.parametrize('reason', ['not asked for', 'given up'])
def test_averages_of_a_checkpoint_do_not_replace_what_was_trained_after_it(tmp_path, monkeypatch, reason):
    search(WarmStartDARTS(average=1.0), tmp_path, ModelCheckpoint(tmp_path, '{epoch}'), max_epochs=1)
    if reason == 'given up':

        def fails(*_):
            raise RuntimeError('CUDA out of memory')

        monkeypatch.setattr(batchnorm, 'reestimate', fails)
    trained = Trained()
    again = WarmStartDARTS(average=float(reason == 'given up'))
    strategy = search(again, tmp_path, trained, resume=tmp_path / 'epoch=0.ckpt', max_epochs=3)
    assert all(torch.equal(weight, trained.weights[name]) for name, weight in strategy.supernet.named_parameters())


def test_weights_of_a_search_that_diverged_are_its_own():
    average = WeightAverage(mutate(small_space(), 'DARTS'), steps=4)
    with torch.no_grad():
        average.weights[0].fill_(float('nan'))
    trained = average.trained()
    assert not average.exchanged(trained)
    trained[1] += 1
    assert average.exchanged(trained)


@pytest.mark.parametrize('cls', [WarmStartDARTS, WarmStartProxyless])
def test_the_test_accuracy_is_that_of_the_supernet_that_is_kept(tmp_path, source, cls):
    task = hard_task()
    strategy = run(cls(source=source), tmp_path, task=task)
    with best_path(strategy.supernet):
        kept = accuracy_on(strategy.supernet, DataLoader(split(task).test, 8), 'cpu')
    assert strategy.oneshot_module.final['test_accuracy'] == pytest.approx(kept, abs=1e-6)


def hard_task():
    """One with labels at random: a few epochs make mistakes."""
    task = make_task(n=64)
    return replace(task, train_y=task.train_y[torch.randperm(len(task.train_y), generator=torch.Generator().manual_seed(0))])


@pytest.mark.slow
def test_a_refitted_head_is_judged_while_the_training_goes_its_own_way(tmp_path):
    task, searches = hard_task(), []
    for average, refit_head in ((1.0, False), (1.0, True), (0.0, True), (0.0, False)):
        torch.manual_seed(0)
        searches.append(run(WarmStartDARTS(average=average, refit_head=refit_head), tmp_path, epochs=3, task=task))
    averaged, refitted, last, plain = searches
    losses = [[figures['train_loss'] for figures in each.curve] for each in searches]
    assert all(each == losses[0] for each in losses)
    differs = [a['val_loss'] != b['val_loss'] for a, b in zip(averaged.curve, refitted.curve, strict=True)]
    assert differs == [True, True, False]
    for one, other in ((averaged, refitted), (last, plain)):  # after the last epoch, and of weights that are not averaged
        state = other.supernet.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.supernet.state_dict().items())


@pytest.mark.slow
def test_proxyless_has_its_refitted_head_to_the_end(tmp_path):
    task, searches = hard_task(), []
    for refit_head in (False, True):
        torch.manual_seed(0)
        strategy = WarmStartProxyless(average=1.0, refit_head=refit_head)
        searches.append(run(strategy, tmp_path, epochs=3, task=task))
    without, refitted = searches
    assert [figures['train_loss'] for figures in without.curve] == [figures['train_loss'] for figures in refitted.curve]
    assert all(a['val_loss'] != b['val_loss'] for a, b in zip(without.curve, refitted.curve, strict=True))
    assert not torch.equal(without.supernet.classifier.weight, refitted.supernet.classifier.weight)


@pytest.mark.slow
def test_a_search_that_stops_early_keeps_the_head_that_was_judged(tmp_path):
    class Stop(Callback):
        def on_validation_end(self, trainer, _):
            trainer.should_stop = trainer.current_epoch == 1

    task, heads = hard_task(), []
    for refit_head in (False, True):
        torch.manual_seed(0)
        trainer = make_trainer(8, tmp_path, progress=False, callbacks=[Stop()])
        evaluator = classification(split(task), 3, trainer, batch_size=8, learning_rate=0.05, weight_decay=3e-4)
        strategy = WarmStartDARTS(average=1.0, refit_head=refit_head)
        strategy(RawFormatModelSpace(small_space(3), evaluator), SequentialExecutionEngine())
        assert len(strategy.curve) == 2
        heads.append(strategy.supernet.classifier.weight)
    assert not torch.equal(*heads)


@pytest.mark.parametrize(('head', 'refitted'), [('ridge', True), ('prototype', True), ('random', False), ('copy', False)])
def test_only_a_warm_start_with_a_fitted_head_refits_it_by_itself(source, head, refitted):
    assert not WarmStartDARTS(head=head).settings.refit_head
    assert WarmStartDARTS(source=source, head=head).settings.refit_head is refitted
    assert not WarmStartDARTS(source=source, head=head, refit_head=False).settings.refit_head


def test_only_a_warm_start_averages_by_itself(tmp_path):
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path, epochs=1), name='source')
    assert WarmStartDARTS().settings.average == 0
    assert WarmStartDARTS(source=source).settings.average == 1
    assert WarmStartDARTS(source=source, average=0).settings.average == 0


@pytest.mark.parametrize('average', [-1, float('inf'), float('nan'), True, 'one'])
def test_an_average_is_a_number_of_epochs(average):
    with pytest.raises(ConfigError, match='average = '):
        WarmStartDARTS(average=average)
