"""Networks without choices as sources of a warm start: the path that is the network computes what it does."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from helpers.networks import WIDTHS, mobile_like
from nni.nas.hub.pytorch import ProxylessNAS
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.strategy import DARTS
from torch import nn

from nni_warmstart import Supernet, TransferError, transfer
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.nni_adapter.paths import best_path


def supernet(widths=WIDTHS, classes=5):
    torch.manual_seed(0)
    return DARTS().mutate_model(ProxylessNAS(num_labels=classes, base_widths=widths)).eval()


def started(network, **settings):
    source = Supernet.from_network(network, name='network', input_shape=(3, 64, 64))
    target = supernet()
    report = transfer(source, target, **{'head': 'copy', 'keep': 1.0, 'noise': 0.0} | settings)
    return target, report


def selected(target):
    """Return the supernet with the most probable candidate and depth of every choice alone."""
    target = copy.deepcopy(target)
    with torch.no_grad():
        for choice in choices(target).values():
            choice.alpha.copy_(100.0 * (choice.alpha == choice.alpha.max()))
    return target.eval()


@pytest.mark.parametrize('same', [False, True])
def test_the_path_computes_what_the_network_does(same):
    network = mobile_like(same=same)
    target, report = started(network)
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(selected(target)(x), network(x), atol=1e-5)
    mapped = {origin.target for origin in report.origins if origin.how not in ('fresh', 'identity')}
    assert all(f'blocks.1.blocks.0.{name}.0.weight' in mapped for name in ('k3e3', 'k7e3', 'k3e6', 'k5e6'))
    best = {label: choice.candidates[int(choice.alpha.argmax())] for label, choice in choices(target).items()}
    assert best['s2_i0'] == ('k5e6' if same else 'k3e6')  # the smallest kernel that contains all taps
    assert best['s2_depth'] == '2' and best['s3_depth'] == '1' and best['s4_i2'] == 'k7e3'


def test_other_depths_and_expansions_keep_their_order():
    blocks = [[(1, 3)], [(4, 3)] * 6, [(6, 5)], [(6, 3)], [(6, 5)], [(6, 5)], [(6, 3)]]
    target, _ = started(mobile_like(blocks=blocks))
    best = {label: choice.candidates[int(choice.alpha.argmax())] for label, choice in choices(target).items()}
    assert best['s2_depth'] == '4' and best['s2_i0'] in ('k3e3', 'k3e6') and best['s3_i0'] == 'k5e6'


def test_alphas_of_the_path_are_preferred_or_left():
    target, _ = started(mobile_like(), alpha='reset')
    assert all(torch.equal(c.alpha, choices(supernet())[label].alpha) for label, c in choices(target).items())


def test_a_network_with_nothing_in_common_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.raises(TransferError, match='in common') as refused:
        started(network)
    assert '\n' not in str(refused.value)


def test_other_candidates_are_fitted_to_the_path():
    network = mobile_like()
    x, y = torch.randn(64, 3, 64, 64), torch.arange(64) % 5
    errors = []
    for data in (None, (x, y)):
        target, _ = started(network, data=data, val_data=data)
        site, seen = target.get_submodule('blocks.1.blocks.0'), []
        site.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            selected_again = target.eval()(x)
            path, other = site['k3e6'](seen[0]), site['k3e3'](seen[0])
        assert selected_again.isfinite().all()
        errors.append(float((path - other).norm() / path.norm()))
    assert errors[1] < 0.8 * errors[0] and errors[1] < 0.7


def test_statistics_of_a_network_are_kept():
    network = mobile_like()
    x, y = 3 + torch.randn(20, 3, 64, 64), torch.arange(20) % 5
    target, _ = started(network, head='ridge', data=(x, y), val_data=(x, y))
    assert torch.equal(target.state_dict()['stem.1.running_mean'], network.state_dict()['first.1.running_mean'])


class Plain(ModelSpace):
    """Convolutions without norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.choice = LayerChoice({'3': nn.Conv2d(8, 8, 3, padding=1), '5': nn.Conv2d(8, 8, 5, padding=2)}, label='choice')
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(torch.relu(self.choice(torch.relu(self.stem(x)))).mean((2, 3)))


def normed(**settings) -> nn.Sequential:
    layers = [[nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8, **settings), nn.ReLU()] for width in (3, 8)]
    network = nn.Sequential(*layers[0], *layers[1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    for _ in range(20):
        network(2 * torch.randn(16, 3, 16, 16) + 1)
    return network.eval()


def test_norms_without_an_affine_part_go_into_the_layers_before_them():
    network, target, x = normed(affine=False), mutate(Plain(), 'DARTS'), torch.randn(4, 3, 16, 16)
    report = transfer(
        Supernet.from_network(network, name='n', input_shape=(3, 16, 16)), target, head='copy', keep=1, noise=0
    )
    assert not report.notes
    with torch.no_grad(), best_path(target):
        torch.testing.assert_close(target.eval()(x), network(x), rtol=1e-4, atol=1e-5)


class Normalising(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network((x - 0.45) / 0.22)


def test_what_a_network_does_to_its_images_is_said():
    source = Supernet.from_network(Normalising(normed()), name='mine', input_shape=(3, 16, 16))
    report = transfer(source, mutate(Plain(), 'DARTS'), head='copy', keep=1, noise=0)
    assert "'mine' changes its images before its first layer" in ' '.join(report.notes)


def test_norms_without_statistics_are_refused():
    with pytest.raises(TransferError, match='cannot be a source: 1 has no running statistics'):
        Supernet.from_network(normed(track_running_stats=False), name='n', input_shape=(3, 16, 16))


@pytest.mark.parametrize(
    ('activation', 'note'),
    [
        (nn.LeakyReLU(0.2), r'followed by relu where the network has leaky_relu\(0.2,\)'),
        (nn.PReLU(), 'followed by relu where the network has prelu'),
    ],
)
def test_activations_with_numbers_are_told_apart(activation, note):
    network = normed()
    network[2] = activation
    source = Supernet.from_network(network, name='n', input_shape=(3, 16, 16))
    report = transfer(source, mutate(Plain(), 'DARTS'), head='copy', keep=1, noise=0)
    assert re.search(note, ' '.join(report.notes))
