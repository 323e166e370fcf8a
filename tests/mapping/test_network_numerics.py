"""Pure functions of the mapping of networks: nearest numbers and means of gates."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_warmstart.mapping.gates import ACTIVATIONS, SHARPENED, SHARPNESS, constant_gate, mean_after_norm, mean_gate
from nni_warmstart.mapping.nearest_numbers import nearest_candidates


class Table(NamedTuple):
    labels: tuple[str, ...]
    numbers: dict[tuple[str, ...], int]


def hidden(widths=(8, 16, 32), expansions=(1, 3, 6)):
    table = {(f'w{width}', f'e{each}'): width * each for width in widths for each in expansions}
    return Table(('width', 'expansion'), table)


def test_labels_that_stand_alone_are_decided_first():
    width = Table(('width',), {('w8',): 8, ('w16',): 16, ('w32',): 32})
    assert nearest_candidates([(hidden(), 96), (width, 16)]) == {'width': 'w16', 'expansion': 'e6'}
    assert nearest_candidates([(width, 12)]) == {'width': 'w16'}  # wide enough rather than nearer
    assert nearest_candidates([(width, 100)]) == {'width': 'w32'}
    assert nearest_candidates([]) == {}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from((8, 16, 32)), st.sampled_from((1, 3, 6)))
def test_what_a_choice_can_make_is_found(width, expansion):
    alone = Table(('width',), {(f'w{each}',): each for each in (8, 16, 32)})
    found = nearest_candidates([(hidden(), width * expansion), (alone, width)])
    assert found == {'width': f'w{width}', 'expansion': f'e{expansion}'}


@pytest.mark.parametrize('activation', ['relu', 'relu6', 'hardswish', 'silu', ''])
def test_means_after_a_norm_are_those_of_many_samples(activation):
    scale, shift = torch.tensor([0.5, 1.0, 2.0, 0.0]), torch.tensor([-1.0, 0.0, 1.5, 0.7])
    z = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0))
    expected = ACTIVATIONS[activation](shift + scale * z).mean(0)
    assert torch.allclose(mean_after_norm(scale, shift, activation).float(), expected, atol=0.02)


def test_the_mean_of_a_gate_is_its_value_at_the_mean():
    reduce = torch.randn(4, 6, 1, 1), torch.randn(4)
    expand = torch.randn(6, 4, 1, 1), torch.randn(6)
    mean = torch.rand(6)
    x = mean.view(1, 6, 1, 1)
    expected = F.hardsigmoid(F.conv2d(F.conv2d(x, *reduce).relu(), *expand)).flatten()
    assert torch.allclose(mean_gate(mean.double(), reduce, expand, ('relu', 'hardsigmoid')).float(), expected, atol=1e-5)


def test_constant_gates_are_their_factor():
    for activation in ('hardsigmoid', 'sigmoid'):
        for is_optional in (True, False):
            logit, factor = constant_gate(activation, is_optional) or (0.0, 0.0)
            x = torch.tensor(logit, requires_grad=True)
            gate = ACTIVATIONS[activation](x)
            gate.backward()
            assert abs(float(gate) - factor) < 1e-5 and x.grad is not None and float(x.grad) > 0  # it can learn
    assert constant_gate('tanh', True) is None


def test_sharp_activations_are_near_to_a_relu():
    x = torch.linspace(-5, 5, 200)
    for _, now in SHARPENED:
        sharp = ACTIVATIONS[now](SHARPNESS * x) / SHARPNESS
        assert (sharp - x.relu()).abs().max() < 0.3 * (ACTIVATIONS[now](x) - x.relu()).abs().max()
