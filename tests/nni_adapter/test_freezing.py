"""One network out of a supernet gives what the supernet gives on that path; weights are never lost silently."""

from __future__ import annotations

import nni.nas.hub.pytorch as hub
import pytest
import torch
from nni.nas.oneshot.pytorch.supermodule.operation import MixedConv2d

from nni_warmstart import Supernet, TransferError
from nni_warmstart.nni_adapter.architectures import best_sample
from nni_warmstart.nni_adapter.choices import NOT_CHOSEN, arch_parameters, choices
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.supernets.network import inherited, is_blind

SPACES = {
    'darts': lambda: create('darts', {'width': 4, 'num_cells': 4, 'drop_path_prob': 0.2}, 5),
    'PNAS': lambda: hub.PNAS(width=4, num_cells=3, dataset='cifar'),
    'nasbench201': lambda: create('nasbench201', {'width': 4}, 5),
    'ShuffleNetSpace': lambda: hub.ShuffleNetSpace(num_labels=5),
    'MobileNetV3Space': lambda: hub.MobileNetV3Space(num_labels=5, base_widths=(8, 8, 8, 8, 8, 8, 8, 16, 16)),
    'ProxylessNAS': lambda: hub.ProxylessNAS(num_labels=5, base_widths=(8, 8, 8, 8, 8, 8, 8, 8, 16)),
}


def found(space):
    """A supernet with random alphas, and its most probable architecture."""
    model = mutate(space, 'DARTS')
    with torch.no_grad():
        for alpha in arch_parameters(model):
            alpha.normal_()
    return model, best_sample(model)


def follow(model, architecture) -> None:
    """Set the alphas so that the supernet computes this architecture alone."""
    for label, choice in choices(model).items():
        chosen = str(architecture.get(label))
        if NOT_CHOSEN in choice.candidates:  # an edge of a cell
            cell, _, edge = label.rpartition('/')
            node, place = edge.split('_')
            ops = [
                architecture[f'{cell}/op_{node}_{k}']
                for k in (0, 1)
                if architecture[f'{cell}/input_{node}_{k}'] == [int(place)]
            ]
            (chosen,) = ops or [NOT_CHOSEN]
        with torch.no_grad():
            choice.alpha.fill_(-60)[choice.candidates.index(chosen)] = 60


@pytest.mark.slow
@pytest.mark.parametrize('name', SPACES)
def test_an_inherited_network_computes_what_the_supernet_does_on_its_path(name):
    model, architecture = found(SPACES[name]())
    network = inherited(Supernet.from_model(model, name='mine'), architecture, SPACES[name]()).eval()
    follow(model, architecture)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs, mine = model.eval()(x), network(x)
    assert torch.allclose(theirs, mine, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.slow
def test_a_supernet_that_computes_another_shape_is_refused():
    model, architecture = found(hub.ENAS(width=4, num_cells=3, dataset='cifar'))
    source = Supernet.from_model(model, name='mine')
    with pytest.raises(
        TransferError, match=r'cannot inherit weights: of .*, its supernet has it as .*; train it from scratch'
    ):
        inherited(source, architecture, hub.ENAS(width=4, num_cells=3, dataset='cifar'))


@pytest.mark.slow
def test_freezing_leaves_the_supernet_as_it_was():
    model, architecture = found(hub.ShuffleNetSpace(num_labels=5))
    freeze(model, architecture)
    assert not any('freeze_weight' in vars(module) for module in model.modules())
    assert any(isinstance(module, MixedConv2d) and module.bias is None for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_a_deep_fresh_network_is_not_blind(seed):
    torch.manual_seed(seed)
    space = hub.ProxylessNAS(num_labels=5)
    _, architecture = found(hub.ProxylessNAS(num_labels=5))
    network = freeze(space, architecture)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert not is_blind(network, (3, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
