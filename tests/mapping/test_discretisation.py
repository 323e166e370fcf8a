"""Frozen networks that are fitted to the mixtures of their supernets."""

from __future__ import annotations

import copy

import nni
import nni.nas.hub.pytorch as hub
import pytest
import torch
from nni.nas.hub.pytorch.nasbench201 import NasBench201
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d
from nni.nas.strategy import DARTS
from torch import nn

from nni_warmstart import Supernet
from nni_warmstart.mapping.discretisation import refit
from nni_warmstart.nni_adapter import batchnorm
from nni_warmstart.nni_adapter.architectures import best_sample
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.classifier import find_head, resize_head
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.nni_adapter.paths import every_path
from nni_warmstart.supernets.network import inherited
from nni_warmstart.warm_start.fitted_network import fitted
from search_spaces.darts import DartsSpace


def block(kernel: int, *after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(8), *after)


class Own(ModelSpace):
    """One choice between linear blocks, with which the larger kernel can compute what any mixture does."""

    def __init__(self, *after: nn.Module, norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        plain = [nn.Conv2d(8, 8, kernel, padding=kernel // 2) for kernel in (3, 1)]
        self.choice = LayerChoice([block(3, *after), block(1, *after)] if norm else plain, label='choice')
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.choice(self.stem(x).relu()).relu().mean((2, 3)))


class Widths(ModelSpace):
    """A stem whose width is searched, before a choice."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice('width', [4, 6])
        self.stem = nn.Sequential(MutableConv2d(3, width, 3, padding=1), MutableBatchNorm2d(width))
        self.choice = LayerChoice(
            [MutableConv2d(width, 8, kernel, padding=kernel // 2) for kernel in (3, 1)], label='choice'
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.choice(self.stem(x).relu()).relu().mean((2, 3)))


SPACES = {
    'NasBench201': lambda: NasBench201(stem_out_channels=8, num_modules_per_stack=1, num_labels=4),
    'DARTS': lambda: DartsSpace(width=4, num_cells=3, num_classes=4),
    'choice': Own,
    'choice of convolutions with biases': lambda: Own(norm=False),
    'choice of blocks that end with an activation': lambda: Own(nn.ReLU()),
}


def images(count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    colours = torch.randn(count, 3, 1, 1, generator=generator)
    return colours + torch.randn(count, 3, 16, 16, generator=generator).cumsum(2) / 3


def supernet_of(name: str) -> nn.Module:
    """A supernet whose norms have seen images, and whose alphas prefer a candidate a little."""
    torch.manual_seed(0)
    model = DARTS().mutate_model(SPACES[name]())
    with torch.no_grad():
        for choice in choices(model).values():
            choice.alpha.copy_(torch.randn_like(choice.alpha))
        if 'choice' in choices(model):
            choices(model)['choice'].alpha.copy_(torch.tensor([0.3, 0.0]))
    batchnorm.reestimate(model, [images()])
    return model.eval()


def agreement(network: nn.Module, model: nn.Module) -> float:
    """Correlation of the logits."""
    with torch.no_grad(), every_path(model):
        pair = torch.stack([(each - each.mean(0)).flatten() for each in (network.eval()(images()), model(images()))])
    return float(torch.corrcoef(pair)[0, 1])


@pytest.mark.parametrize('name', list(SPACES))
def test_fitted_networks_compute_nearly_what_the_supernet_does(name):
    model = supernet_of(name)
    source = Supernet.from_model(model, name='found')
    plain = inherited(source, space=SPACES[name]())
    network = fitted(source, space=SPACES[name](), images=images())
    assert agreement(network, model) > max(agreement(plain, model), 0.9)


def test_sums_of_another_width_than_in_the_supernet_are_left():
    torch.manual_seed(0)
    model = DARTS().mutate_model(Widths()).eval()
    network = freeze(copy.deepcopy(model), {'width': 4, 'choice': 0})
    stem = network.get_submodule('stem.0').weight.clone()
    fits = refit(network, model, images())
    assert fits.keys() == {'choice', 'head'} and torch.equal(network.get_submodule('stem.0').weight, stem)


@pytest.mark.parametrize('name', ['choice', 'choice of convolutions with biases'])
def test_what_the_chosen_candidate_can_compute_is_found(name):
    model = supernet_of(name)
    network = freeze(copy.deepcopy(model), best_sample(model))
    fit = refit(network, model, images())['choice']
    assert fit.after < 0.01 < fit.before
    assert agreement(network, model) > 0.99


def test_a_fit_of_no_use_is_undone():
    model = supernet_of('choice')
    choices(model)['choice'].alpha.data.copy_(torch.tensor([50.0, 0.0]))  # a mixture of the chosen candidate alone
    network = freeze(copy.deepcopy(model), best_sample(model))
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    refit(network, model, images())
    assert all(torch.allclose(tensor, before[name], atol=1e-4) for name, tensor in network.named_parameters())


def test_a_network_that_already_computes_what_the_supernet_does_keeps_its_statistics():
    model = supernet_of('choice')
    choices(model)['choice'].alpha.data.copy_(torch.tensor([50.0, 0.0]))
    batchnorm.reestimate(model, [10 * images()])  # of other images than those of the fit
    source = Supernet.from_model(model, name='found')
    plain = inherited(source, space=Own()).state_dict()
    found = fitted(source, space=Own(), images=images(32)).state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in found.items())


def test_a_fit_leaves_modes_and_hooks_alone():
    model = supernet_of('NasBench201')
    network = freeze(copy.deepcopy(model), best_sample(model)).train()
    refit(network, model, images())
    assert network.training and not model.training
    assert not any(module._forward_hooks for each in (network, model) for module in each.modules())


def test_the_network_of_a_joint_supernet_has_the_rows_of_all_datasets():
    """In NNI's DARTS their number is that of CIFAR-10, without an argument for it."""
    model = mutate(hub.DARTS(width=4, num_cells=3, dataset='cifar'), 'DARTS')
    resize_head(model, 5)
    classes = {'letters': {'classes': ['a', 'b']}, 'digits': {'classes': ['0', '1', '2']}}
    network = inherited(Supernet.from_model(model, name='joint', history={'datasets': classes}))
    name = find_head(network)
    assert torch.equal(network.get_submodule(name).weight, model.get_submodule(name).weight)
    assert len(network.get_submodule(name).weight) == 5
