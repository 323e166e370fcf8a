"""NNI's penalties act, with a warm start and without, and the found architecture keeps to the budget."""

from __future__ import annotations

import logging

import pytest
import torch
from helpers.tiny import make_task, run
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.profiler.pytorch.flops import FlopsProfiler, NumParamsProfiler
from torch import nn

from nni_warmstart import Supernet, WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.nni_adapter.penalty import DifferentiablePenalty, affordable


def convolution(size: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, size, padding=size // 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())


class Stack(ModelSpace):
    """Six layers of convolutions, the last two of which may be left out."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        ops = {'conv5': convolution(5), 'conv3': convolution(3), 'conv1': convolution(1)}
        self.layers = nn.Sequential(
            *(LayerChoice(ops if i < 4 else {**ops, 'skip': nn.Identity()}, label=f'layer{i}') for i in range(6))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.layers(self.stem(x)))
        return self.head(x.view(x.size(0), -1))


EXPENSIVE = {f'layer{i}': 'conv5' for i in range(6)}
PICTURE = torch.zeros(1, 3, 8, 8)


def penalty(profiler, share: float, **settings) -> ExpectationProfilerPenalty:
    """Budget: a share of the most expensive architecture."""
    return ExpectationProfilerPenalty(profiler, baseline=share * profiler.profile(EXPENSIVE), **settings)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Trained without a budget; it prefers what is expensive."""
    torch.manual_seed(0)
    strategy = run(WarmStartDARTS(), tmp_path_factory.mktemp('source'), space=Stack())
    for choice in strategy.supernet.modules():
        if hasattr(choice, '_arch_alpha') and 'conv5' in getattr(choice, 'names', ()):
            choice._arch_alpha.data[choice.names.index('conv5')] += 0.5
    return Supernet.from_strategy(strategy, name='source')


@pytest.mark.parametrize('strategy', [WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless])
def test_a_penalty_reaches_the_alphas(tmp_path, strategy):
    """In NNI 3.0 it does not."""
    expected = []
    for scale in (0.0, 30.0):
        torch.manual_seed(0)
        profiler = FlopsProfiler(Stack(), PICTURE)
        cheap = penalty(profiler, 0.1, scale=scale)
        done = run(strategy(penalty=cheap, arc_learning_rate=0.05), tmp_path, space=Stack(), epochs=2, task=make_task(96))
        module = done.oneshot_module
        expected.append(float(module.penalty.profile(module.probabilities())))
    assert expected[1] < 0.8 * expected[0]


def test_a_penalty_may_be_changed_while_it_acts():
    model = mutate(Stack(), 'DARTS')
    given = penalty(FlopsProfiler(Stack(), PICTURE), 0.1, scale=2.0)
    live = DifferentiablePenalty(given, lambda: model)
    uniform = {
        label: dict.fromkeys(choice.candidates, 1 / len(choice.candidates)) for label, choice in choices(model).items()
    }
    loss = torch.tensor(1.0)
    first = live(loss, uniform)[0] - loss
    given.scale = 1.0
    assert float(live(loss, uniform)[0] - loss) == pytest.approx(float(first) / 2)


def test_the_penalty_that_is_given_stays_as_it_is(tmp_path):
    profiler = FlopsProfiler(Stack(), PICTURE)
    given, before = penalty(profiler, 0.1), repr(profiler.expression)
    for _ in range(2):
        run(WarmStartDARTS(penalty=given), tmp_path, space=Stack(), epochs=1)
    assert given.profiler is profiler
    assert repr(profiler.expression) == before


@pytest.mark.parametrize('kind', [FlopsProfiler, NumParamsProfiler])
@pytest.mark.parametrize('warm', [False, True], ids=['cold', 'warm'])
def test_the_found_architecture_keeps_to_the_budget(source, tmp_path, kind, warm):
    torch.manual_seed(0)
    profiler = kind(Stack(), PICTURE)
    budget = penalty(profiler, 0.3, scale=3.0, nonlinear='positive')
    settings = {'penalty': budget, 'arc_learning_rate': 0.03, 'gradient_clip_val': 0}  # few steps, which have to be long
    strategy = WarmStartDARTS(source=source if warm else None, **settings)
    done = run(strategy, tmp_path, space=Stack(), epochs=2, task=make_task(96))
    found = done.oneshot_module.export()
    assert profiler.profile(found) <= 1.05 * budget.baseline
    assert done.oneshot_module.samples[-1] == found
    assert bool(done.report) == warm
    if warm:
        assert profiler.profile(found) > 0.5 * budget.baseline  # what there is, is spent


COSTS = {'big': 10.0, 'small': 4.0, 'none': 0.0}


def cost(sample: dict) -> float:
    return sum(COSTS[op] for op in sample.values())


def test_what_is_least_missed_is_given_up():
    probabilities = {
        'a': {'big': 0.5, 'small': 0.3, 'none': 0.2},
        'b': {'big': 0.5, 'small': 0.45, 'none': 0.05},
        'c': {'big': 0.9, 'small': 0.05, 'none': 0.05},
    }
    best = {'a': 'big', 'b': 'big', 'c': 'big'}
    assert affordable(best, probabilities, cost, 30) == best
    assert affordable(best, probabilities, cost, 24) == {**best, 'b': 'small'}
    assert affordable(best, probabilities, cost, 14) == {'a': 'none', 'b': 'small', 'c': 'big'}
    assert cost(affordable(best, probabilities, cost, 0)) == 0
    assert affordable(best, {}, cost, 0) == best


def test_a_budget_that_cannot_be_kept_is_a_warning(source, tmp_path, caplog):
    profiler = NumParamsProfiler(Stack(), PICTURE)
    budget = penalty(profiler, 0.01, nonlinear='positive')
    with caplog.at_level(logging.WARNING, logger='nni_warmstart'):
        done = run(WarmStartDARTS(source=source, penalty=budget), tmp_path, space=Stack(), epochs=1)
    assert 'No architecture was found that costs at most' in caplog.text
    cheapest = {f'layer{i}': 'conv1' if i < 4 else 'skip' for i in range(6)}
    assert done.oneshot_module.export() == cheapest
