"""Programs of torch.export as sources of a warm start: the same as the networks that were exported."""

from __future__ import annotations

import pytest
import torch
import torchvision
from helpers.networks import WIDTHS, mobile_like
from helpers.tiny import make_task, run
from nni.nas.hub.pytorch import ProxylessNAS
from torch import nn

from nni_warmstart import Supernet, TransferError, WarmStartDARTS, transfer
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.tracing.exported import with_layers

SHAPE = (3, 32, 32)


class Unusual(nn.Module):
    """Shared layers, padding by name, weights that are no layer's, and layers without biases or scales."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding='same', bias=False)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8), nn.BatchNorm1d(8)])
        self.kernel, self.factor = nn.Parameter(torch.randn(8, 8, 1, 1)), nn.Parameter(torch.rand(8, 1, 1))
        self.drop, self.classifier = nn.Dropout(0.5), nn.Linear(8, 4, bias=False)

    def forward(self, x):
        x = torch.relu(self.norms[0](self.first(x)))
        for _ in range(2):
            x = x + self.norms[1](self.shared(x))
        x = nn.functional.conv2d(x, self.kernel) * self.factor
        return self.classifier(self.drop(self.norms[2](x.mean((2, 3)))))


def exported(model):
    return torch.export.export(model, (torch.zeros(2, *SHAPE),))


@pytest.mark.parametrize('train', [False, True])
def test_it_has_the_layers_of_the_network(train):
    torch.manual_seed(0)
    model = Unusual().train(train)
    for norm in model.norms:
        norm.running_mean, norm.running_var = torch.randn(8), torch.rand(8) + 0.5
    network = with_layers(exported(model))
    x = torch.randn(5, *SHAPE)  # another number of images than in the export
    assert torch.equal(network(x), model.eval()(x))
    theirs, ours = (dict(each.named_modules()) for each in (model, network))
    for name in ('first', 'shared', 'norms.0', 'norms.1', 'norms.2', 'classifier'):
        assert type(ours[name]) is type(theirs[name])
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items() if name in state)
    assert torch.equal(state['kernel.weight'], model.kernel) and torch.equal(state['factor'], model.factor)


@pytest.mark.parametrize('name', ['mobilenet_v3_small', 'resnet18'])
def test_a_source_made_of_it_is_that_of_the_network(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10).eval()
    one, other = (Supernet.from_network(each, name=name, input_shape=SHAPE) for each in (model, exported(model)))
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(tensor, other.tensors[path]) for path, tensor in one.tensors.items())
    assert one.layers == other.layers


def test_a_warm_start_from_it_is_that_from_the_network():
    model, targets = mobile_like(), []
    for source in (model, exported(model)):
        torch.manual_seed(0)
        target = mutate(ProxylessNAS(num_labels=3, base_widths=WIDTHS, dropout_rate=0.0), 'DARTS')
        transfer(Supernet.from_network(source, name='network', input_shape=SHAPE), target, head='random')
        targets.append(target.state_dict())
    assert all(torch.equal(tensor, targets[1][name]) for name, tensor in targets[0].items())


def test_a_search_starts_from_a_program(tmp_path):
    space = ProxylessNAS(num_labels=make_task().num_classes, base_widths=WIDTHS, dropout_rate=0.0)
    strategy = run(WarmStartDARTS(source=exported(mobile_like())), tmp_path, space=space, epochs=1, task=make_task())
    assert strategy.report is not None and strategy.report.share_inherited > 0.4


def test_programs_of_other_inputs_and_outputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Pair(nn.Module):
        def forward(self, x):
            return x, x + 1

    x = torch.zeros(2, *SHAPE)
    with pytest.raises(TransferError, match='2 inputs; a source takes images'):
        with_layers(torch.export.export(Two(), (x, x)))
    with pytest.raises(TransferError, match='2 outputs'):
        with_layers(torch.export.export(Pair(), (x,)))
