"""Batch norm in searches that start from a pretrained network: inherited statistics are held, also by a resumed search."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from helpers.networks import WIDTHS, mobile_like
from helpers.tiny import make_task, run
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import ProxylessNAS
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.callbacks import ModelCheckpoint

from nni_warmstart import Supernet, WarmStartDARTS, transfer
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.runs.retrain import HELD_CLIP, HELD_RATE, gentle, learning, some_images, train
from nni_warmstart.search.alpha_rate import NNIS
from nni_warmstart.warm_start.fitted_network import fitted


def task():
    small = make_task()
    large = [torch.nn.functional.interpolate(x.float(), 32).byte() for x in (small.train_x, small.test_x)]
    return replace(small, train_x=large[0], test_x=large[1])


def space():
    torch.manual_seed(0)
    return ProxylessNAS(num_labels=task().num_classes, base_widths=WIDTHS, dropout_rate=0.0)


def searched(tmp_path, epochs=1, **settings):
    return run(WarmStartDARTS(source=mobile_like(), **settings), tmp_path, space=space(), epochs=epochs, task=task())


@pytest.fixture(scope='module')
def strategy(tmp_path_factory):
    """A search of an epoch that started from a network."""
    return searched(tmp_path_factory.mktemp('searched'))


def test_statistics_are_held_and_scales_learn(strategy, monkeypatch):
    source = Supernet.from_network(mobile_like(), name='network', input_shape=(3, 32, 32))
    before = mutate(space(), 'DARTS')
    transfer(source, before, head='random')
    after = strategy.supernet.state_dict()
    held = strategy.oneshot_module.statistics.names
    assert len(held) > 50
    assert all(torch.equal(after[f'{name}.running_var'], before.state_dict()[f'{name}.running_var']) for name in held[:5])
    assert not torch.equal(after[f'{held[0]}.weight'], before.state_dict()[f'{held[0]}.weight'])
    module = strategy.oneshot_module
    others = module.statistics.others(strategy.supernet)
    monkeypatch.setattr(module.statistics, 'names', held[1:])  # what a network lacks is estimated as ever
    assert len(module.statistics.others(strategy.supernet)) == len(others) + 1
    assert {f'{held[0]}.weight', 'classifier.weight'} <= {*module.inherited_rate.names}
    assert module.architecture_optimizers().param_groups[0]['lr'] == NNIS  # untrained candidates do not outrun the network


def test_the_supernet_of_such_a_search_is_held_by_what_starts_from_it(strategy, tmp_path):
    supernet = Supernet.from_strategy(strategy, name='around a network')
    supernet.save(tmp_path / 'supernet.safetensors')
    supernet = Supernet.load(tmp_path / 'supernet.safetensors')
    assert supernet.holds_statistics
    again = run(WarmStartDARTS(source=supernet), tmp_path / 'again', space=space(), epochs=1, task=task())
    held = strategy.oneshot_module.statistics.names
    assert set(held) <= set(again.oneshot_module.statistics.names)
    before, after = strategy.supernet.state_dict(), again.supernet.state_dict()
    assert all(torch.equal(before[f'{name}.running_mean'], after[f'{name}.running_mean']) for name in held)


def test_its_network_is_not_fitted_and_holds_them_too(strategy, tmp_path):
    supernet, architecture = Supernet.from_strategy(strategy, name='found'), strategy.oneshot_module.export()
    splits = learning(task(), val_share=0.5)
    network = fitted(supernet, architecture, space(), images=some_images(splits.train))
    before = copy.deepcopy(network.state_dict())
    settings, statistics = gentle({'max_epochs': 1, 'batch_size': 8, 'learning_rate': 0.01}, supernet, network, splits.train)
    assert (settings['learning_rate'], settings['gradient_clip_val']) == (0.01 * HELD_RATE, HELD_CLIP)
    train(network, splits, task().num_classes, settings, tmp_path / 'out', callbacks=[statistics], progress=False)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if 'running_' in name)
    assert not torch.equal(before['classifier.weight'], after['classifier.weight'])


def test_a_resumed_search_holds_them_too(tmp_path):
    def search(folder, *callbacks):
        strategy = WarmStartDARTS(source=mobile_like())
        if not callbacks:
            strategy.resume_from(tmp_path / 'epoch=0.ckpt')
        trainer = make_trainer(2, folder, progress=False, callbacks=list(callbacks))
        evaluator = classification(split(task()), task().num_classes, trainer, batch_size=8)
        strategy(RawFormatModelSpace(space(), evaluator), SequentialExecutionEngine())
        return strategy.supernet.state_dict()

    whole = search(tmp_path / 'whole', ModelCheckpoint(tmp_path, '{epoch}', save_top_k=-1))
    again = search(tmp_path / 'resumed')
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_gradients_are_clipped_as_the_strategy_says(tmp_path):
    module = searched(tmp_path, gradient_clip_val=0.5).oneshot_module
    assert module.gradient_clip_val == 0.5


def test_a_supernet_holds_nothing(tmp_path):
    module = run(WarmStartDARTS(source='joint'), tmp_path, epochs=1).oneshot_module
    assert module.statistics.names == module.inherited_rate.names == []
    assert module.gradient_clip_val is None


@pytest.mark.parametrize(('network', 'kept'), [(True, 1.0), (False, 0.8)])
def test_a_network_keeps_all_of_its_weights_and_a_supernet_most(network, kept):
    source = Supernet.from_network(mobile_like(), name='network', input_shape=(3, 32, 32))
    targets = []
    if not network:
        first = mutate(space(), 'DARTS')
        source = Supernet.from_model(first, name='supernet')
    for keep in (None, kept):
        torch.manual_seed(1)
        targets.append(mutate(space(), 'DARTS'))
        transfer(source, targets[-1], head='random', keep=keep)
    assert all(torch.equal(a, b) for a, b in zip(targets[0].parameters(), targets[1].parameters(), strict=True))
