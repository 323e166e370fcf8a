"""Guards against collapse: the cap on parameter-free operations, and the stop on the alphas' curvature."""

from __future__ import annotations

import nni
import pytest
import torch
from helpers.tiny import make_task, run, small_space
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from torch import nn
from torch.nn import functional as F

from nni_warmstart import ConfigError, Supernet, WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.nni_adapter.architectures import best_sample, operations, skip_share
from nni_warmstart.nni_adapter.choices import arch_parameters, choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search import collapse
from nni_warmstart.search.collapse import capped, collapsing, dominant_eigenvalue
from nni_warmstart.search_spaces import DartsSpace


def test_the_cap_keeps_the_most_probable_skips():
    model = mutate(small_space(), 'DARTS')
    found = choices(model)
    with torch.no_grad():
        for strength, choice in enumerate(found.values()):
            choice.alpha[choice.candidates.index('skip_connect')] = 1.0 + strength
            choice.alpha[choice.candidates.index('conv_3x3')] = 0.5
    sample = best_sample(model)
    assert set(sample.values()) == {'skip_connect'}
    assert skip_share(model, sample) == 1.0
    result = capped(model, sample, 2)
    assert [label for label, op in result.items() if op == 'skip_connect'] == list(found)[-2:]
    assert sorted(result.values()) == ['conv_3x3'] * 4 + ['skip_connect'] * 2
    assert capped(model, sample, 6) == sample
    assert set(capped(model, sample, 0).values()) == {'conv_3x3'}


def test_the_operation_that_gives_zeros_is_replaced_by_the_next_one(tmp_path):
    model = mutate(small_space(), 'DARTS')
    with torch.no_grad():
        for choice in choices(model).values():
            choice.alpha[choice.candidates.index('none')] = 2.0
            choice.alpha[choice.candidates.index('skip_connect')] = 1.0
    sample = best_sample(model)
    assert set(sample.values()) == {'none'}
    assert set(collapse.without_zeros(model, sample).values()) == {'skip_connect'}
    kept = Supernet.from_model(model, name='zeros', dataset=make_task())
    strategy = run(WarmStartDARTS(source=kept, arc_learning_rate=0.0), tmp_path, epochs=1)
    assert 'none' not in strategy.oneshot_module.export().values()
    assert sum(op == 'skip_connect' for op in strategy.oneshot_module.export().values()) == 2


def test_an_identity_is_kept_whatever_it_is_called():
    class Optional(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.body = LayerChoice({'conv': nn.Conv2d(3, 3, 1), 'none': nn.Identity()}, label='body')

    model = mutate(Optional(), 'DARTS')
    assert collapse.without_zeros(model, {'body': 'none'}) == {'body': 'none'}


@pytest.mark.parametrize('depths', [(1, 2, 3), (1, 3)])
def test_proxyless_with_a_mutable_depth(tmp_path, depths):
    class Deep(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            layer = {'conv': nn.Conv2d(4, 4, 3, padding=1), 'skip': nn.Identity()}
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), LayerChoice(layer, label='layer'))
            self.blocks = Repeat(lambda _: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nni.choice('depth', list(depths)))
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.blocks(self.stem(x)).mean((2, 3)))

    kept = Supernet.from_strategy(run(WarmStartProxyless(), tmp_path, space=Deep()), name='deep', dataset=make_task())
    strategy = run(WarmStartProxyless(source=kept), tmp_path, space=Deep())
    model, sample = strategy.supernet, strategy.oneshot_module.export()
    assert sample['depth'] in depths
    assert set(operations(model, sample)) == {'layer'}
    probabilities = strategy.oneshot_module.probabilities()['depth']
    assert sum(probabilities.values()) == pytest.approx(1)
    with torch.no_grad():
        for name, alpha in model.named_parameters():
            if name.endswith(('blocks.1._arch_alpha', 'blocks.2._arch_alpha')):
                alpha.copy_(torch.tensor([0.0, 2.0]) if '.1.' in name else torch.tensor([1.0, 0.0]))
    assert best_sample(model)['depth'] == (2 if 2 in depths else 3)
    frozen = Deep().freeze(best_sample(model))
    assert len(frozen.blocks) == best_sample(model)['depth']


def test_a_prefix_of_labels_is_no_cell():
    class Prefixed(ModelSpace, label_prefix='backbone'):
        def __init__(self) -> None:
            super().__init__()
            options = lambda: {'conv': nn.Conv2d(3, 3, 1), 'skip': nn.Identity()}  # noqa: E731
            self.cells = nn.ModuleList(LayerChoice(options(), label=f'cell{i}') for i in range(4))

    model = mutate(Prefixed(), 'DARTS')
    sample = dict.fromkeys(choices(model), 'skip')
    assert set(sample) == {f'backbone/cell{i}' for i in range(4)}
    assert capped(model, sample, 1) == sample


@pytest.mark.parametrize('first', ['identity', 'reduction'])
def test_a_candidate_that_is_free_of_parameters_in_one_of_its_choices_counts_as_free(first):
    class Shared(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            skips = [nn.Identity(), nn.Conv2d(3, 3, 1)]
            self.cells = nn.ModuleList(
                LayerChoice({'conv': nn.Conv2d(3, 3, 1), 'skip': skip}, label='op')
                for skip in (skips if first == 'identity' else reversed(skips))
            )

    model = mutate(Shared(), 'DARTS')
    option = operations(model, {})['op']['skip']
    assert option.parameter_free and not option.identity
    assert capped(model, {'op': 'skip'}, 0) == {'op': 'conv'}


def test_the_cap_in_cells_that_choose_inputs():
    model = mutate(DartsSpace(width=4, num_cells=3, num_classes=3, image_size=8), 'DARTS')
    with torch.no_grad():
        for choice in choices(model).values():
            choice.alpha[choice.candidates.index('max_pool_3x3')] = 3.0
            choice.alpha[choice.candidates.index('sep_conv_3x3')] = 1.0
    sample = best_sample(model)
    result = capped(model, sample, 2)
    for cell in ('normal', 'reduce'):
        ops = [op for label, op in result.items() if label.startswith(f'{cell}/op')]
        assert ops.count('max_pool_3x3') == 2
        assert set(ops) == {'max_pool_3x3', 'sep_conv_3x3'}
    assert {label: chosen for label, chosen in result.items() if '/input' in label} == {
        label: chosen for label, chosen in sample.items() if '/input' in label
    }
    model.freeze(result)(torch.zeros(2, 3, 8, 8))  # it is an architecture of the space


@pytest.mark.parametrize('cap', [-1, 1.5, True, 'two'])
def test_a_cap_is_a_number_of_operations(cap):
    with pytest.raises(ConfigError, match='parameter_free_cap = '):
        WarmStartDARTS(parameter_free_cap=cap)


@pytest.mark.slow
def test_a_search_exports_within_the_cap(tmp_path):
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path / 'source'), name='skips')
    for label, candidates in source.candidates.items():
        source.alpha(label)[candidates.index('skip_connect')] = 1.0
    shares = {}
    for cap in (6, None, 0):
        done = run(WarmStartDARTS(source=source, parameter_free_cap=cap), tmp_path / f'{cap}').oneshot_module
        shares[cap] = skip_share(done.model, done.export())
    assert shares == {6: 1, None: 2 / 6, 0: 0}
    assert WarmStartDARTS().settings.parameter_free_cap is None


@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_the_dominant_eigenvalue_of_a_known_hessian(sign):
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    hessian = basis @ torch.diag(sign * torch.tensor([4.0, -2.0, 1.0, 0.5, 0.1, 0.0], dtype=torch.float64)) @ basis.T
    alphas = [nn.Parameter(torch.randn(2, dtype=torch.float64)), nn.Parameter(torch.randn(4, dtype=torch.float64))]

    def loss():
        flat = torch.cat([alpha.flatten() for alpha in alphas])
        return flat @ hessian @ flat / 2

    assert dominant_eigenvalue(loss, alphas, steps=60) == pytest.approx(4 * sign, rel=1e-6)


def test_collapse_is_growth_from_window_to_window():
    assert not collapsing([1.0] * 4 + [100.0] * 5)
    assert not collapsing([1.0] * 10)
    assert not collapsing([1.0] * 5 + [1.3] * 5)
    assert collapsing([1.0] * 5 + [1.4] * 5)
    assert collapsing([-1.0] * 5 + [-1.4] * 5)


@pytest.mark.slow
def test_a_search_stops_where_curvature_grows_and_exports_from_before(tmp_path, monkeypatch):
    values = iter([1.0] * 6 + [3.0] * 20)
    monkeypatch.setattr(collapse, 'dominant_eigenvalue', lambda loss, alphas: next(values))
    strategy = run(WarmStartDARTS(stop_on_eigenvalue=True, arc_learning_rate=0.5), tmp_path, epochs=20)
    assert len(strategy.curve) == 10
    module = strategy.oneshot_module
    assert module.export() == module.samples[4]
    assert len(module.samples) == 10


@pytest.mark.slow
def test_measuring_the_curvature_leaves_no_trace(tmp_path):
    task, searches = make_task(), []
    for on in (False, True):
        torch.manual_seed(0)
        searches.append(run(WarmStartDARTS(stop_on_eigenvalue=on, gradient_clip_val=5.0), tmp_path, epochs=2, task=task))
    plain, guarded = searches
    state = guarded.supernet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.supernet.state_dict().items())
    assert all(abs(figures['alpha_eigenvalue']) > 0 for figures in guarded.curve)
    assert 'alpha_eigenvalue' not in plain.curve[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('strategy', 'settings'), [(WarmStartProxyless, {}), (WarmStartGumbelDARTS, {}), (WarmStartDARTS, {'warmup_epochs': 1})]
)
def test_the_curvature_of_every_strategy(tmp_path, strategy, settings):
    """Proxyless runs one path, and the alphas of a warm-up do not learn: both are measured all the same."""
    done = run(strategy(stop_on_eigenvalue=True, **settings), tmp_path, epochs=2)
    assert all(abs(figures['alpha_eigenvalue']) > 0 for figures in done.curve)
    assert all(alpha.requires_grad for alpha in arch_parameters(done.supernet))


class Attends(ModelSpace):
    """Chooses whether pixels attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.body = LayerChoice({'attention': attention, 'skip': nn.Identity()}, label='body')
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = self.body(self.stem(x).flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]).mean((1, 2)))


def test_the_curvature_of_attention(tmp_path):
    done = run(WarmStartDARTS(stop_on_eigenvalue=True), tmp_path, space=Attends(), epochs=1)
    assert all(abs(figures['alpha_eigenvalue']) > 0 for figures in done.curve)


def test_a_warm_proxyless_search_exports_the_most_probable_path(tmp_path):
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path), name='source')
    done = run(WarmStartProxyless(source=source, parameter_free_cap=6), tmp_path, epochs=1)
    best = {
        label: max((op for op in each if op != 'none'), key=each.get)
        for label, each in done.oneshot_module.probabilities().items()
    }
    for seed in range(3):
        torch.manual_seed(seed)
        assert done.oneshot_module.export() == best
