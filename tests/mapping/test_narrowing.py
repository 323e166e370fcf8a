"""Fewer channels: redundant ones are found and nothing is lost; otherwise what is lost is less than by a plain cut."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nni_warmstart.mapping.mapper import evenly, map_tensors
from nni_warmstart.mapping.narrowing import narrow, regressing, select_channels, selecting, weight_covariances
from nni_warmstart.mapping.regression import observe, ridge_solution
from nni_warmstart.nni_adapter.batchnorm import reestimate
from nni_warmstart.tracing.structure import structure_of

SHAPE = (2, 3, 8, 8)


class Net(nn.Module):
    """A residual network with a depthwise convolution, max pooling, a concatenation and a classifier with a bias."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.back = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.wide = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.head = nn.Linear(3 * width, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.back(self.depthwise(self.inner(x))))
        x = torch.cat([x, F.relu(self.wide(F.max_pool2d(x, 2, 1, 1)[:, :, :8, :8]))], 1)
        return self.head(x.mean((2, 3)))


def pictures(count: int = 64, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def redundant(kind: str) -> nn.Module:
    """A network of width 8 with the function of one of width 4: its channels occur twice, or half of them are dead."""
    small, wide = Net(4, seed=1), Net(8)
    reestimate(small, [pictures()])
    source, target = structure_of(small, SHAPE), structure_of(wide, SHAPE)
    mapping = map_tensors(small.state_dict(), source, target)
    wide.load_state_dict(mapping.tensors, strict=False)
    if kind == 'dead':
        state = wide.state_dict()
        for name, axes in target.channels.tensors.items():
            for axis, (role, channels) in enumerate(zip(axes.roles, axes.channels, strict=True)):
                if role and channels is not None and len(channels) > 5 and not name.endswith('running_var'):
                    half = len(channels) // 2
                    concatenated = [*range(4, 8), *range(16, 24)]
                    for index in concatenated if len(channels) == 24 else range(half, len(channels)):
                        state[name].select(axis, index).zero_()
                    if role == 'in':  # the dead channels' share goes to the living ones
                        state[name] *= 2
        wide.load_state_dict(state)
        torch.testing.assert_close(wide.eval()(pictures()), small.eval()(pictures()), atol=1e-5, rtol=1e-4)
    return wide.eval()


def loaded(model: nn.Module, options: dict) -> nn.Module:
    """Half the width; the first channels without options."""
    target = Net(4)
    mapping = map_tensors(model.state_dict(), structure_of(model, SHAPE), structure_of(target, SHAPE), **options)
    target.load_state_dict(mapping.tensors, strict=False)
    return target.eval()


def test_layers_at_another_resolution_are_not_refitted():
    def net(stride: int) -> nn.Sequential:
        torch.manual_seed(stride)
        first = nn.Conv2d(3, 8 // stride, 3, stride, 1, bias=False)
        return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 // stride, 5)).eval()

    source, target, many = net(1), net(2), pictures(8192)
    of_source, of_target = structure_of(source, SHAPE), structure_of(target, SHAPE)
    mapping = narrow(source, of_source, target, of_target, many)  # so many that one place of each image is looked at
    kept = source[0].weight.flatten(1)
    for row in mapping.tensors['0.weight'].flatten(1):
        assert (kept - row).abs().amax(1).min() < 1e-6


def without_data(model: nn.Module) -> dict:
    source, state = structure_of(model, SHAPE), model.state_dict()
    covariances = weight_covariances(state, source)
    return {'couple': selecting(state, source, covariances), 'share': regressing(covariances)}


def narrowed(model: nn.Module, **options) -> nn.Module:
    target = Net(4)
    mapping = narrow(model, structure_of(model, SHAPE), target, structure_of(target, SHAPE), pictures(), **options)
    target.load_state_dict(mapping.tensors, strict=False)
    return target.eval()


@pytest.mark.parametrize('kind', ['twice', 'dead'])
def test_redundant_channels_are_dropped_without_loss(kind):
    model = redundant(kind)
    with torch.no_grad():
        expected = model(pictures(seed=6))
        torch.testing.assert_close(loaded(model, without_data(model))(pictures(seed=6)), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(narrowed(model)(pictures(seed=6)), expected, atol=1e-3, rtol=1e-3)


def test_less_is_lost_than_by_the_first_channels():
    model = Net(8, seed=3)
    reestimate(model, [pictures(256)])
    x = pictures(256, seed=7)
    with torch.no_grad():
        expected = model.eval()(x)

    def lost(other: nn.Module) -> float:
        reestimate(other, [pictures()])
        with torch.no_grad():
            return float((other.eval()(x) - expected).square().mean() / expected.var(0).mean())

    first, free, fitted = lost(loaded(model, {})), lost(loaded(model, without_data(model))), lost(narrowed(model))
    assert fitted < free < first
    assert fitted < 0.5 * first


def test_the_same_call_gives_the_same_weights_and_changes_nothing_else():
    model, target = Net(8, seed=3).train(), Net(4)
    before = [{name: tensor.clone() for name, tensor in net.state_dict().items()} for net in (model, target)]
    structures = structure_of(model, SHAPE), structure_of(target, SHAPE)
    left, right = (narrow(model, structures[0], target, structures[1], pictures(), tries=4) for _ in range(2))
    assert left.tensors.keys() == right.tensors.keys() == structures[1].channels.tensors.keys()
    assert all(torch.equal(left.tensors[name], right.tensors[name]) for name in left.tensors)
    for net, saved in zip((model, target), before, strict=True):
        assert net.training
        assert all(torch.equal(tensor, saved[name]) for name, tensor in net.state_dict().items())


def test_a_classifier_left_out_stays_out():
    model, target = Net(8, seed=3), Net(4)
    skip = frozenset({'head.weight', 'head.bias'})
    mapping = narrow(model, structure_of(model, SHAPE), target, structure_of(target, SHAPE), pictures(), skip=skip)
    assert skip.isdisjoint(mapping.tensors)
    assert mapping.tensors['wide.weight'].shape == (8, 4, 3, 3)


def test_selection_is_the_best_single_channel_and_near_the_best_set():
    generator = torch.Generator().manual_seed(0)
    factors, weights = (torch.randn(3, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    covariances, demands = factors @ factors.mT, weights @ weights.mT

    def explained(chosen: tuple[int, ...]) -> float:
        kept = covariances[:, :, list(chosen)]
        predicted = kept @ torch.linalg.inv(kept[:, list(chosen)]) @ kept.mT
        return float(((predicted * demands).sum((1, 2)) / (covariances * demands).sum((1, 2))).sum())

    for count in (1, 2, 3):
        best = max(itertools.combinations(range(6), count), key=explained)
        chosen = tuple(select_channels(covariances, demands, count))
        assert explained(chosen) >= (1.0 if count == 1 else 0.9) * explained(best) - 1e-6


def test_spaces_that_do_not_shrink_are_coupled_evenly():
    model, same = Net(8), Net(8, seed=1)
    source, target = structure_of(model, SHAPE), structure_of(same, SHAPE)
    mapping = map_tensors(model.state_dict(), source, target, **without_data(model))
    plain = map_tensors(model.state_dict(), source, target, couple=evenly(source))
    assert all(torch.equal(mapping.tensors[name], plain.tensors[name]) for name in plain.tensors)


def test_what_is_observed_is_what_the_layers_do():
    model = Net(8, seed=3).eval()
    x = pictures()
    seen = observe(model, x, rows=10**6)
    with torch.no_grad():
        read = model.stem(x).permute(0, 2, 3, 1).flatten(0, 2).double()
        torch.testing.assert_close(seen.covariances['inner.0.weight'], torch.cov(read.T, correction=0))
        spread = model.inner[0](model.stem(x)).double().std((0, 2, 3), correction=0)
        torch.testing.assert_close(seen.spread['inner.1.weight'], spread, rtol=1e-5, atol=0)
        torch.testing.assert_close(seen.made['head.weight'], model(x))
    fewer = observe(model, x, rows=128)
    assert len(fewer.made['inner.0.weight']) == 128


def test_ridge_is_least_squares_on_augmented_rows():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 4, generator=generator).double(), torch.randn(20, 2, generator=generator).double()
    weight = 0.1 * (x.T @ x).diagonal().mean()
    rows = torch.cat([x, weight.sqrt() * torch.eye(4).double()]), torch.cat([y, torch.zeros(4, 2).double()])
    torch.testing.assert_close(ridge_solution(x.T @ x, x.T @ y, 0.1), torch.linalg.lstsq(*rows).solution)
