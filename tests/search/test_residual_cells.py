"""Exported cells in residual form: where it holds, and when a search uses it."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import make_task, run, small_space
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_warmstart import ConfigError, Supernet, WarmStartDARTS, WarmStartProxyless
from nni_warmstart.data import split
from nni_warmstart.nni_adapter.architectures import best_sample
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search import oneshot_module
from nni_warmstart.search.residual_cells import residual
from nni_warmstart.search_spaces import DartsSpace

SHORTCUTS = {'cell/0_3', 'cell/1_3'}


def preferring(model: nn.Module, **strengths: float) -> nn.Module:
    """Set the alphas of some candidates of every choice."""
    with torch.no_grad():
        for choice in choices(model).values():
            for name, strength in strengths.items():
                choice.alpha[choice.candidates.index(name)] = strength
    return model


def test_shortcuts_enter_the_output_and_all_else_has_parameters():
    model = preferring(mutate(small_space(), 'DARTS'), avg_pool_3x3=3.0, skip_connect=2.0, conv_1x1=1.0)
    sample = residual(model, best_sample(model))
    assert {label for label, op in sample.items() if op == 'skip_connect'} == SHORTCUTS
    assert [op for label, op in sample.items() if label not in SHORTCUTS] == ['conv_1x1'] * 4


def test_alphas_choose_the_operations_with_parameters():
    model = mutate(small_space(), 'DARTS')
    with torch.no_grad():
        for label, choice in choices(model).items():
            choice.alpha[choice.candidates.index('conv_3x3' if label.startswith('cell/0') else 'conv_1x1')] = 1.0
    sample = residual(model, best_sample(model))
    found = [sample[f'cell/{edge}'] for edge in ('0_1', '0_2', '1_2', '2_3')]
    assert found == ['conv_3x3', 'conv_3x3', 'conv_1x1', 'conv_1x1']


def test_other_spaces_are_not_changed():
    class Layers(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.body = LayerChoice({'conv': nn.Conv2d(3, 3, 1), 'skip': nn.Identity()}, label='body')

    darts = mutate(DartsSpace(width=4, num_cells=3, num_classes=3, image_size=8), 'DARTS')
    for model, sample in ((mutate(Layers(), 'DARTS'), {'body': 'skip'}), (darts, best_sample(darts))):
        assert residual(model, sample) == sample


@pytest.mark.parametrize('kind', [WarmStartDARTS, WarmStartProxyless])
def test_warm_searches_on_many_images_export_residual_cells(tmp_path, monkeypatch, kind):
    model = preferring(mutate(small_space(), 'DARTS'), conv_1x1=2.0, skip_connect=1.0)
    source = Supernet.from_model(model, name='convolutions', dataset=make_task())

    def shortcuts(**settings):
        done = run(kind(source=source, arc_learning_rate=0.0, **settings), tmp_path, epochs=1)
        return {label for label, op in done.oneshot_module.export().items() if op == 'skip_connect'}

    assert shortcuts() == set()  # few images
    assert shortcuts(residual_cells=True) == SHORTCUTS
    images = len(split(make_task()).train)
    monkeypatch.setattr(oneshot_module, 'MANY', images + 1)
    assert shortcuts() == set()
    monkeypatch.setattr(oneshot_module, 'MANY', images)
    assert shortcuts() == SHORTCUTS
    assert shortcuts(residual_cells=False) == shortcuts(parameter_free_cap=2) == set()


def test_cold_searches_export_what_nni_does():
    assert not WarmStartDARTS().settings.residual_cells
    assert WarmStartDARTS(residual_cells=True).settings.residual_cells


def test_the_setting_is_checked():
    with pytest.raises(ConfigError, match='residual_cells = '):
        WarmStartDARTS(residual_cells='yes')  # pyright: ignore[reportArgumentType]
