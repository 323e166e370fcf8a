"""Plans compute what NNI's forward computes: logits, gradients and statistics, in float64 to 1e-12."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from helpers.tiny import Attention, OwnSpace, small_space
from nni.nas.hub.pytorch import (
    DARTS,
    ENAS,
    PNAS,
    AmoebaNet,
    MobileNetV3Space,
    NasBench201,
    NASNet,
    ProxylessNAS,
    ShuffleNetSpace,
)
from nni.nas.nn.pytorch import Cell, LayerChoice, ModelSpace
from torch import nn

from nni_warmstart.fast_forward.forward import FastForward
from nni_warmstart.fast_forward.merging import MergedConvolution
from nni_warmstart.nni_adapter.batchnorm import reestimate
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import DartsSpace, NasBench201Space


class OwnCells(ModelSpace):
    """Cells of a user, whose candidates, processors and surroundings ask for the order of NNI in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.cells = nn.ModuleList(self.cell(label) for label in ('a', 'b'))
        self.head = nn.Linear(8 * 16, 3)

    def cell(self, label: str) -> Cell:
        ops = {
            'flat': lambda *_: Flat(),
            'conv': lambda *_: nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.BatchNorm2d(4)),
            'drop': lambda *_: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.5)),
            'skip': lambda *_: nn.Identity(),
        }
        return Cell(ops, num_nodes=2, num_ops_per_node=1, num_predecessors=1, preprocessor=squared, label=label)

    def forward(self, x):
        x = self.stem(x)
        for cell in self.cells:
            x = cell([x[:, :4]])
            x = x.view(len(x), -1).view_as(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 4).view(len(x), -1))


def squared(inputs):
    return [x.view(len(x), -1).view_as(x).square() for x in inputs]


class Flat(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1).tanh().view_as(x)


class Pair(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor, [x.sin() + self.factor]


class Structured(ModelSpace):
    """Candidates that return more than one tensor, and that take more than one argument."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = LayerChoice({'one': Pair(1.0), 'two': Pair(2.0)}, label='pair')
        self.both = LayerChoice({'bilinear': nn.Bilinear(3, 3, 3), 'other': nn.Bilinear(3, 3, 3)}, label='both')

    def forward(self, x):
        x, (y,) = self.pair(x.mean((2, 3)))
        return self.both(x, y)


class Gates(ModelSpace):
    """Choices of gates, whose candidates have one value per channel, per pixel, or for each of both, in two orders."""

    def __init__(self) -> None:
        super().__init__()
        gates = {
            'channels': lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Sigmoid()),
            'pixels': lambda: nn.Sequential(nn.Conv2d(4, 1, 7, padding=3), nn.Sigmoid()),
            'each': lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
            'same': nn.Identity,
        }
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = LayerChoice({name: make() for name, make in gates.items()}, label='first')
        self.second = LayerChoice({name: gates[name]() for name in ('each', 'pixels', 'channels')}, label='second')
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x * self.first(x) * self.second(x)).mean((2, 3)))


class Written(ModelSpace):
    """Candidates that begin alike, and go on with layers that change their input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        candidates = {
            'written': nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.ReLU(inplace=True)),
            'by code': nn.Sequential(nn.AvgPool2d(3, 1, 1), InPlace()),
            'bounded': nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Hardtanh(-0.1, 0.1, inplace=True)),
            'pool': nn.AvgPool2d(3, 1, 1),
            'rectified': nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.ReLU()),
        }
        self.choice = LayerChoice(candidates, label='choice')
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.choice(self.stem(x)).square().mean((2, 3)))


class InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(2)


def nds(cls, **settings):
    return lambda: cls(width=4, num_cells=3, dataset='cifar', **settings)


SPACES = {
    'nasbench201': small_space,
    'ours nasbench201': lambda: NasBench201Space(width=4, stem_stride=2),
    'ours darts': lambda: DartsSpace(width=4, num_cells=3),
    'hub darts': nds(DARTS),
    'drop path': nds(DARTS, drop_path_prob=0.3),
    'choice': OwnSpace,
    'opaque choice': Attention,
    'own cells': OwnCells,
    'structured': Structured,
    'gates': Gates,
    'written in place': Written,
}
LARGE = {
    'ENAS': nds(ENAS),
    'NASNet': nds(NASNet),
    'PNAS': nds(PNAS),
    'AmoebaNet': nds(AmoebaNet),
    'imagenet': lambda: DARTS(width=4, num_cells=3, dataset='imagenet'),
    'searched widths': lambda: DARTS(width=(4, 8), num_cells=3, dataset='cifar'),
    'MobileNetV3': lambda: MobileNetV3Space(
        3, (16, 16, 16, 24, 24, 32, 32, 32, 32), (0.5, 1.0), (4.0, 6.0), depth_range=(1, 2)
    ),
    'ProxylessNAS': lambda: ProxylessNAS(3, width_mult=0.25),
    'ShuffleNet': lambda: ShuffleNetSpace(3, channel_search=True),
    'NAS-Bench-201': lambda: NasBench201(stem_out_channels=4, num_modules_per_stack=1),
}


def prepared(make, kind: str) -> nn.Module:
    """A supernet in which everything counts."""
    torch.manual_seed(0)
    model = mutate(make(), kind).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    for choice in choices(model).values():
        nn.init.normal_(choice.alpha)
    return model


def computed(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits, gradients and buffers of a step."""
    torch.manual_seed(1)
    logits = model(x)
    (logits * torch.linspace(-1, 1, logits.numel(), dtype=x.dtype).view_as(logits)).sum().backward()
    found = {f'gradient of {name}': p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {'logits': logits.detach(), **found, **dict(model.named_buffers())}


def assert_equal(make, kind: str, side: int, train: bool = True) -> None:
    theirs = prepared(make, kind).train(train)
    ours = copy.deepcopy(theirs)
    x = torch.randn(4, 3, side, side, dtype=torch.float64)
    forward = FastForward(ours)
    assert forward.fits
    assert forward.misfits == {}
    expected = computed(theirs, x)
    with forward.applied():
        found = computed(ours, x)
    assert forward.misfits == {}
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for name, value in expected.items() if name.startswith('gradient'))
    for name, value in expected.items():
        scale = largest if name.startswith('gradient') else 1.0  # some gradients are zero but for rounding
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12 * max(scale, 1.0), msg=name)


@pytest.mark.parametrize('space', SPACES)
def test_spaces(space):
    assert_equal(SPACES[space], 'GumbelDARTS', 8)


@pytest.mark.slow
@pytest.mark.parametrize('space', SPACES)
def test_spaces_of_darts_in_training_and_evaluation(space):
    assert_equal(SPACES[space], 'DARTS', 16)
    assert_equal(SPACES[space], 'DARTS', 16, train=False)


@pytest.mark.parametrize('space', SPACES)
def test_evaluation_without_gradients(space):
    """Convolutions are merged; batch norm that is re-estimated is not."""
    theirs, x = prepared(SPACES[space], 'DARTS'), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    ours = copy.deepcopy(theirs)
    forward = FastForward(ours)
    for model, context in ((theirs, nullcontext()), (ours, forward.applied())):
        with context, torch.no_grad():
            torch.manual_seed(1)
            reestimate(model, x.split(3))
            model.logits = model.eval()(x)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=1e-12, atol=1e-12)


def test_convolutions_are_merged_only_where_nothing_is_estimated_or_learned(monkeypatch):
    model, merged = prepared(SPACES['nasbench201'], 'DARTS'), []
    output = MergedConvolution.output
    monkeypatch.setattr(MergedConvolution, 'output', lambda self: merged.append(self) or output(self))
    with FastForward(model).applied():
        for training, gradients, expected in ((True, True, 0), (True, False, 0), (False, True, 0), (False, False, 1)):
            merged.clear()
            with torch.set_grad_enabled(gradients):
                model.train(training)(torch.randn(2, 3, 8, 8, dtype=torch.float64))
            assert bool(merged) == bool(expected)


@pytest.mark.slow
@pytest.mark.parametrize('space', LARGE)
def test_large_spaces(space):
    # with few images of few pixels batch norm is so ill-conditioned that rounding the images changes as much
    assert_equal(LARGE[space], 'DARTS', 64 if space in ('ProxylessNAS', 'MobileNetV3', 'ShuffleNet') else 32)


@pytest.mark.slow
@pytest.mark.parametrize('side', [9, 10, 18])
def test_images_of_any_size(side):
    assert_equal(nds(DARTS), 'DARTS', side)
