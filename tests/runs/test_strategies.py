"""Settings of a strategy are the arguments of its class."""

from __future__ import annotations

from typing import Annotated

import pytest

from nni_warmstart import ConfigError, WarmStartDARTS
from nni_warmstart.runs import strategies
from nni_warmstart.runs.settings import NamedConfig
from nni_warmstart.runs.strategies import STRATEGIES, make_strategy, parse_strategy, strategy_arguments
from nni_warmstart.utils.checks import Expected, Range

OURS = ['source', 'zoo', 'download', 'head', 'alpha', 'keep', 'noise', 'untraceable', 'average', 'refit_head',
        'arc_learning_rate', 'save_to', 'parameter_free_cap', 'stop_on_eigenvalue', 'fast', 'class_names',
        'residual_cells']  # fmt: skip
NNIS = ['gradient_clip_val', 'log_prob_every_n_step', 'warmup_epochs', 'penalty']


def test_settings_are_arguments():
    for name, cls in STRATEGIES.items():
        temperature = ['temperature'] if 'Gumbel' in name else []
        assert list(strategy_arguments(cls)) == OURS + temperature + NNIS
    arguments = strategy_arguments(WarmStartDARTS)
    assert arguments['source'] == Expected(str, optional=True)
    assert arguments['arc_learning_rate'] == Expected(float, Range(0), optional=True)
    assert arguments['alpha'] is None  # text or a number


def test_a_new_strategy_is_a_class_and_a_name(monkeypatch, tmp_path):
    class Patient(WarmStartDARTS):
        def __init__(self, *, patience: Annotated[int, Range(1)] = 3, **kwargs) -> None:
            super().__init__(**kwargs)
            self.patience = patience

    monkeypatch.setitem(strategies.STRATEGIES, 'WarmStartPatient', Patient)
    config = parse_strategy({'name': 'WarmStartPatient', 'patience': 5, 'average': 2})
    made = make_strategy(config, tmp_path)
    assert (made.patience, made.settings.average) == (5, 2)
    with pytest.raises(ConfigError, match=r'^strategy.patience = 0, but it must be 1 or more\.$'):
        parse_strategy({'name': 'WarmStartPatient', 'patience': 0})
    with pytest.raises(ConfigError, match=r'^key strategy.patiense is unknown; did you mean patience\?$'):
        parse_strategy({'name': 'WarmStartPatient', 'patiense': 0})


def test_a_warm_start_has_no_effect_under_the_names_of_nni():
    settings = {
        'source': 'nearest',
        'zoo': 'z',
        'download': True,
        'head': 'ot',
        'alpha': 0.5,
        'keep': 1,
        'noise': 0,
        'untraceable': 'fresh',
    }
    assert parse_strategy({'name': 'DARTS', **settings, 'average': 1}) == NamedConfig('DARTS', {'average': 1})
    assert parse_strategy({'name': 'WarmStartDARTS', **settings}).arguments == settings
