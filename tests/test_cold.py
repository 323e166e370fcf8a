"""Without a source the strategies are NNI's, to the bit, although they validate as well."""

from __future__ import annotations

import pytest
import torch
from conftest import OwnSpace, run
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless

from nni_warmstart import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless, introspect

PAIRS = [(DARTS, WarmStartDARTS), (GumbelDARTS, WarmStartGumbelDARTS), (Proxyless, WarmStartProxyless)]


@pytest.mark.parametrize(('upstream', 'ours'), PAIRS, ids=lambda cls: cls.__name__)
def test_same_weights_alphas_and_architecture(upstream, ours, tmp_path):
    runs, exported = [], []
    for cls in (upstream, ours):
        torch.manual_seed(3)
        runs.append(run(cls(arc_learning_rate=0.01), tmp_path, epochs=3))
        exported.append(runs[-1].oneshot_module.export())  # Proxyless draws it at random
    theirs, mine = (strategy.supernet.state_dict() for strategy in runs)
    assert theirs.keys() == mine.keys()
    different = [name for name in theirs if not torch.equal(theirs[name], mine[name])]
    assert different == []
    assert exported[0] == exported[1]
    assert runs[1].report is None


def test_reports_every_epoch(tmp_path):
    torch.manual_seed(0)
    strategy = run(WarmStartDARTS(), tmp_path, epochs=3)
    assert len(strategy.curve) == 3
    for figures in strategy.curve:
        keys = {'default', 'val_loss', 'train_loss', 'alpha_entropy', 'skip_share', 'epoch_seconds'}
        assert keys == figures.keys()
        assert 0 <= figures['default'] <= 1
        assert 0 <= figures['alpha_entropy'] <= 1
        assert 0 <= figures['skip_share'] <= 1
        assert figures['epoch_seconds'] > 0
    final = strategy.oneshot_module.final
    assert final['default'] == strategy.curve[-1]['default']
    assert 0 <= final['test_accuracy'] <= 1


def test_figures_reach_lightnings_logger(tmp_path):
    run(WarmStartDARTS(), tmp_path, epochs=1)
    header = (tmp_path / 'logs' / 'metrics.csv').read_text().splitlines()[0]
    for name in ('default', 'val_loss', 'train_loss', 'alpha_entropy', 'skip_share', 'epoch_seconds'):
        assert f'search/{name}' in header


def test_validation_accuracy_is_that_of_the_validation_pictures(tmp_path, task):
    """The reported figure is recomputed by hand from the trained supernet."""
    from nni_warmstart.data import split
    from nni_warmstart.mapping import batchnorm
    from nni_warmstart.mapping.transfer import accuracy_on

    torch.manual_seed(0)
    strategy = run(WarmStartDARTS(), tmp_path, epochs=1, task=task)
    splits = split(task)
    loaders = [torch.utils.data.DataLoader(part, 8) for part in (splits.train, splits.val)]
    batchnorm.reestimate(strategy.supernet, [x for x, _ in loaders[0]][:2])  # the loader of the search drops the last
    assert strategy.curve[0]['default'] == pytest.approx(accuracy_on(strategy.supernet, loaders[1], 'cpu'), abs=0.2)


def test_alphas_enter_the_optimizer_by_label(tmp_path):
    strategy = run(WarmStartDARTS(), tmp_path, epochs=1, space=OwnSpace())
    optimizer = strategy.oneshot_module.configure_architecture_optimizers()
    expected = [choice.alpha for _, choice in sorted(introspect.choices(strategy.supernet).items())]
    assert len(expected) == 2
    assert all(left is right for left, right in zip(optimizer.param_groups[0]['params'], expected, strict=True))


def test_entropy_and_skip_share_of_known_alphas(tmp_path):
    model = introspect.mutate(OwnSpace(), 'DARTS')
    first, second = introspect.arch_parameters(model)
    with torch.no_grad():
        first.copy_(torch.tensor([0.0, 0.0]))
        second.copy_(torch.tensor([50.0, 0.0]))
    assert introspect.alpha_entropy(model) == pytest.approx(0.5)  # one undecided, one decided
    assert introspect.skip_share(model, {'first': 'skip', 'second': 'conv'}) == 0.5
    assert introspect.skip_share(model, {'first': 'skip', 'second': 'skip'}) == 1.0
