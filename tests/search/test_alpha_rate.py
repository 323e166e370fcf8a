"""The rate of the alphas after a warm start."""

from __future__ import annotations

import pytest
from helpers.tiny import run

from nni_warmstart import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.search.alpha_rate import LARGEST, NNIS, TRAVEL, alpha_rate


def test_alphas_travel_as_far_in_few_steps_as_in_many():
    for steps in (200, 1000, 20_000):
        assert alpha_rate(steps) * steps == pytest.approx(TRAVEL)
    assert alpha_rate(50) == LARGEST
    assert alpha_rate(1e6) == alpha_rate(float('inf')) == NNIS


def rate_of(strategy):
    (group,) = strategy.oneshot_module.architecture_optimizers().param_groups
    return group['lr']


@pytest.mark.slow
@pytest.mark.parametrize('cls', [WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless])
def test_only_a_warm_start_without_a_rate_of_its_own_has_another_than_nnis(cls, source, tmp_path):
    assert rate_of(run(cls(), tmp_path, epochs=1)) == NNIS
    assert rate_of(run(cls(source=source, arc_learning_rate=0.5), tmp_path, epochs=1)) == 0.5
    assert rate_of(run(cls(source=source), tmp_path, epochs=1)) == LARGEST


def test_the_rate_is_that_of_the_whole_search_but_for_its_warm_up(source, tmp_path, monkeypatch):
    monkeypatch.setattr('nni_warmstart.search.alpha_rate.alpha_rate', lambda steps: steps / 1e4)
    strategy = run(WarmStartDARTS(source=source, warmup_epochs=1), tmp_path, epochs=3)
    assert rate_of(strategy) == 2 * strategy.oneshot_module.trainer.num_training_batches / 1e4
