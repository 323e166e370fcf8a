"""A target for the cost of the found network: in cells of both kinds, and among layers."""

from __future__ import annotations

import itertools
import logging
import random

import nni
import pytest
import torch
from helpers.tiny import OwnSpace, make_task, run
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d
from torch import nn

from nni_warmstart import ConfigError, WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.nni_adapter import decisions
from nni_warmstart.nni_adapter.architectures import best_sample
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.cost_penalty import CostPenalty
from nni_warmstart.nni_adapter.cost_profiler import CostProfiler
from nni_warmstart.nni_adapter.decisions import Decision, inclusion
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.nni_adapter.penalty import bound
from nni_warmstart.search_spaces import DartsSpace, NasBench201Space
from nni_warmstart.utils import costs

IMAGE = torch.zeros(1, 3, 8, 8)


def nasbench201() -> ModelSpace:
    return NasBench201Space(4, 1, num_classes=3)


def darts() -> ModelSpace:
    return DartsSpace(4, 3, num_classes=3, num_nodes=2)


SPACES = {'nasbench201': nasbench201, 'darts': darts, 'layers': OwnSpace}
spaces = pytest.mark.parametrize('make', SPACES.values(), ids=SPACES)


def supernet(make, seed: int, scale: float = 1.0) -> ModelSpace:
    """A supernet with random alphas."""
    model = mutate(make(), 'DARTS')
    generator = torch.Generator().manual_seed(seed)
    for choice in choices(model).values():
        choice.alpha.data = scale * torch.randn(choice.alpha.shape, generator=generator)
    return model


@spaces
@pytest.mark.parametrize(('kind', 'count'), [('parameters', costs.parameters), ('multiply_adds', costs.multiply_adds)])
def test_counts_are_those_of_the_frozen_network(make, kind, count):
    profiler = CostProfiler(make(), IMAGE, kind)
    for seed in range(3):
        sample = best_sample(supernet(make, seed))
        network = freeze(make(), sample)
        assert profiler.profile(sample) == count(*([network] if kind == 'parameters' else [network, IMAGE]))


@spaces
def test_the_expectation_tends_to_the_cost_of_what_is_exported(make):
    profiler = CostProfiler(make(), IMAGE, 'multiply_adds')
    model = supernet(make, 0, scale=1000.0)
    assert float(profiler.expectation(model).detach()) == pytest.approx(profiler.profile(best_sample(model)), rel=1e-3)


@spaces
def test_the_derivative_is_that_of_finite_differences(make):
    profiler, model = CostProfiler(make(), IMAGE, 'parameters'), supernet(make, 1)
    for choice in choices(model).values():
        choice.alpha.data = choice.alpha.data.double()
    penalty = bound(CostPenalty(profiler, 0.5 * profiler.expectation(model).item(), 3.0), lambda: model)

    def loss() -> torch.Tensor:
        return penalty(torch.tensor(1.0, dtype=torch.float64), {})[0]

    loss().backward()
    for choice in list(choices(model).values())[::3]:
        for i in range(len(choice.alpha)):
            ends = []
            for step in (1e-5, -2e-5):
                choice.alpha.data[i] += step
                ends.append(float(loss().detach()))
            choice.alpha.data[i] += 1e-5
            assert float(choice.alpha.grad[i]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-8)


def test_edges_are_drawn_one_after_another():
    logits = torch.tensor([0.3, -1.0, 0.8, 0.0], dtype=torch.float64)
    weights = logits.exp().tolist()
    expected = [0.0] * 4
    for order in itertools.permutations(range(4), 2):
        probability, left = 1.0, sum(weights)
        for i in order:
            probability, left = probability * weights[i] / left, left - weights[i]
        for i in order:
            expected[i] += probability
    assert inclusion(logits, 2).tolist() == pytest.approx(expected)
    assert inclusion(logits, 4).tolist() == inclusion(logits, 9).tolist() == [1.0] * 4
    assert inclusion(torch.tensor([2000.0, 0.0, 1000.0]), 2).tolist() == [1.0, 0.0, 1.0]  # not a number if divided


@spaces
def test_the_architecture_of_a_target_is_the_most_probable_one(make):
    """Against architectures that are drawn at random."""
    profiler, model = CostProfiler(make(), IMAGE, 'parameters'), supernet(make, 2)
    options = [decision.options([alpha.detach() for alpha in each]) for decision, each in profiler._with_alphas(model)]
    random.seed(0)
    drawn = [[random.choice(group) for group in options] for _ in range(500)]
    target = sorted(profiler.shared + sum(cost for _, cost, _ in way) for way in drawn)[250]
    low, high = 0.95 * target, 1.05 * target
    found = profiler.within(model, low, high, target)
    assert low <= profiler.profile(found) <= high
    score = sum(
        max(score for score, _, part in group if all(found[label] == value for label, value in part.items()))
        for group in options
    )
    inside = [sum(s for s, *_ in way) for way in drawn if low <= profiler.shared + sum(c for _, c, _ in way) <= high]
    assert score >= max(inside) - 1e-6


def free_search(make, out, kind: str, seed: int = 0, strategy=WarmStartDARTS) -> tuple[float, ModelSpace]:
    """Cost of what a search finds without a penalty."""
    torch.manual_seed(seed)
    done = run(strategy(arc_learning_rate=0.05), out, space=make(), task=make_task(96))
    return CostProfiler(make(), IMAGE, kind).profile(done.oneshot_module.export()), done.oneshot_module


@spaces
@pytest.mark.parametrize('strategy', [WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless])
@pytest.mark.slow
def test_a_low_target_is_kept(make, strategy, tmp_path):
    if strategy is WarmStartProxyless and make is darts:
        pytest.skip('Proxyless knows no cells')
    profiler = CostProfiler(make(), IMAGE, 'parameters')
    low, high = (profiler.profile(profiler.picked(end)) for end in (decisions.cheapest, decisions.dearest))
    target = low + 0.1 * (high - low)  # less than flat alphas expect
    expected = []
    for weight in (0.0, 20.0):
        torch.manual_seed(0)
        limited = strategy(penalty=CostPenalty(profiler, target, weight), arc_learning_rate=0.05)
        module = run(limited, tmp_path, space=make(), task=make_task(96)).oneshot_module
        expected.append(float(module.penalty.profile().detach()))
        found = module.export()
        assert profiler.profile(found) <= 1.05 * target
        assert costs.parameters(freeze(make(), found)) == profiler.profile(found)
    assert expected[1] < expected[0]  # the alphas, not only the export


@spaces
def test_a_high_target_changes_nothing(make, tmp_path):
    _, free = free_search(make, tmp_path / 'free', 'parameters')
    profiler = CostProfiler(make(), IMAGE, 'parameters')
    high = CostPenalty(profiler, 2 * profiler.profile(profiler.picked(decisions.dearest)))
    torch.manual_seed(0)
    strategy = WarmStartDARTS(penalty=high, arc_learning_rate=0.05)
    module = run(strategy, tmp_path / 'limited', space=make(), task=make_task(96)).oneshot_module
    assert module.alphas == free.alphas
    assert module.export() == free.export()
    assert [figures['default'] for figures in module.curve] == [figures['default'] for figures in free.curve]


def test_a_target_that_no_network_keeps_gives_the_cheapest_one(caplog):
    profiler, model = CostProfiler(nasbench201(), IMAGE, 'parameters'), supernet(nasbench201, 0)
    penalty = bound(CostPenalty(profiler, 1.0), lambda: model)
    with caplog.at_level(logging.WARNING, logger='nni_warmstart'):
        found = penalty.kept(dict.fromkeys(best_sample(model), 'conv_3x3'))
    assert profiler.profile(found) == profiler.shared
    assert 'none' not in found.values()
    assert 'No architecture was found that costs at most 1.05' in caplog.text


def test_measured_costs_go_on_with_a_checkpoint():
    profiler, model = CostProfiler(nasbench201(), IMAGE, 'latency'), supernet(nasbench201, 0)
    again = CostProfiler(nasbench201(), IMAGE, 'latency')
    first, second = (bound(CostPenalty(each, 1.0), lambda: model) for each in (profiler, again))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.profile(), second.profile())
    assert second.profiler.decisions == first.profiler.decisions


def test_convolutions_take_longer_than_skips():
    profiler = CostProfiler(NasBench201Space(16), torch.zeros(1, 3, 32, 32), 'latency')
    cost = {op: profiler.profile({f'cell/{i}_{j}': op for j in range(4) for i in range(j)})
            for op in ('skip_connect', 'conv_1x1', 'conv_3x3')}  # fmt: skip
    assert 0 < cost['skip_connect'] < cost['conv_1x1'] < cost['conv_3x3']


class Widths(ModelSpace):
    """Searches a width besides an operation."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice('width', [4, 8])
        self.stem = MutableConv2d(3, width, 1)
        self.body = MutableConv2d(width, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(x)).mean((2, 3))


class Nested(ModelSpace):
    """Has a choice in a candidate."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice({'conv': nn.Conv2d(3, 3, 1), 'skip': nn.Identity()}, label='inner')
        self.body = LayerChoice({'deep': nn.Sequential(inner), 'skip': nn.Identity()}, label='outer')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: CostProfiler(OwnSpace(), IMAGE, 'latencies'), "cost = 'latencies' is unknown; choose one of"),
        (lambda: CostProfiler(Widths(), IMAGE, 'latency'), 'of Widths are not known by candidate: width is no choice'),
        (
            lambda: CostProfiler(Nested(), IMAGE, 'latency'),
            'of Nested are not known by candidate: outer has the choice',
        ),
        (lambda: CostPenalty(None, 0.0), 'target = 0.0, but it must be greater than 0'),
        (lambda: CostPenalty(None, 1.0).profile(), 'the penalty has no supernet; give it to a strategy'),
    ],
)
def test_what_cannot_be_done_is_one_line(call, message):
    with pytest.raises(ConfigError) as caught:
        call()
    assert message in str(caught.value) and '\n' not in str(caught.value)


def test_nodes_are_told_by_the_names_of_nni():
    node = Decision(('c/2_0', 'c/2_1'), ('a', 'b'), ((1.0, 2.0), (4.0, 8.0)), (True, True), 2, ('c', 2))
    sample = {'c/op_2_0': 'b', 'c/input_2_0': [1], 'c/op_2_1': 'a', 'c/input_2_1': [0]}
    assert node.cost_of(sample) == 9.0
    assert node.sample_of((1, 0), (1, 0)) == sample


def test_candidates_may_be_called_with_names():
    class Scaled(nn.Conv2d):
        def forward(self, x, repeats=1):
            for _ in range(repeats):
                x = super().forward(x)
            return x

    class Named(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.choice = LayerChoice({'1': Scaled(3, 3, 1), '3': Scaled(3, 3, 3, padding=1)}, label='choice')
            self.head = nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.choice(x=self.choice(x), repeats=2).mean((2, 3)))

    (decision,) = CostProfiler(Named(), IMAGE, 'multiply_adds').decisions
    assert decision.costs == ((3 * 9 * 64, 3 * 81 * 64),)
