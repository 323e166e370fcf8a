"""Batch norm in searches that start from a pretrained network: inherited statistics are held, also by a resumed search."""

from __future__ import annotations

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
from nni_warmstart.search.alpha_rate import NNIS


def task():
    small = make_task()
    large = [torch.nn.functional.interpolate(x.float(), 32).byte() for x in (small.train_x, small.test_x)]
    return replace(small, train_x=large[0], test_x=large[1])


def space():
    torch.manual_seed(0)
    return ProxylessNAS(num_labels=task().num_classes, base_widths=WIDTHS, dropout_rate=0.0)


def searched(tmp_path, epochs=1, **settings):
    return run(WarmStartDARTS(source=mobile_like(), **settings), tmp_path, space=space(), epochs=epochs, task=task())


def test_statistics_are_held_and_scales_learn(tmp_path):
    strategy = searched(tmp_path)
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
    module.statistics.names = held[1:]  # what a network lacks is estimated as ever
    assert len(module.statistics.others(strategy.supernet)) == len(others) + 1
    assert {f'{held[0]}.weight', 'classifier.weight'} <= {*module.inherited_rate.names}
    assert module.architecture_optimizers().param_groups[0]['lr'] == NNIS  # untrained candidates do not outrun the network


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


def test_a_supernet_holds_nothing(tmp_path):
    module = run(WarmStartDARTS(source='joint'), tmp_path, epochs=1).oneshot_module
    assert module.statistics.names == module.inherited_rate.names == []


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
