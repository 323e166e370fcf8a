"""Sums and depthwise convolutions: known answers, and first and second derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from nni_warmstart.fast_forward import depthwise
from nni_warmstart.fast_forward.layout import channels_last
from nni_warmstart.fast_forward.sums import dot, mixed_sum
from nni_warmstart.nni_adapter.mixed import convolution_of


def images(*shape: int) -> torch.Tensor:
    return channels_last(torch.randn(*shape, dtype=torch.float64)).requires_grad_()


def test_a_sum_of_known_values():
    ones = torch.ones(2, 1, 2, 2)
    weights = torch.tensor([0.5, 0.25])
    assert torch.equal(mixed_sum([2 * ones, 4 * ones], weights.unbind(), [3 * ones]), 5 * ones)
    assert torch.equal(mixed_sum([], [], [ones, ones, ones]), 3 * ones)
    assert mixed_sum([], [], [ones]) is ones


def test_a_sum_changes_none_of_its_values():
    values = [torch.ones(2, 3), torch.ones(2, 3)]
    mixed_sum([], [], values)
    mixed_sum(values, torch.ones(2).unbind())
    assert all(torch.equal(value, torch.ones(2, 3)) for value in values)


@pytest.mark.parametrize('learning', [True, False])
def test_derivatives_of_a_sum(learning):
    weights = torch.rand(2, dtype=torch.float64, requires_grad=learning)
    values = [images(2, 3, 2, 2) for _ in range(4)]

    def total(weights, *values):
        return mixed_sum(values[:2], weights.unbind(), values[2:]).square()

    assert gradcheck(total, (weights, *values))
    assert gradgradcheck(total, (weights, *values))


def test_values_of_several_types_have_the_type_that_torch_gives_them():
    low, high = torch.ones(3, dtype=torch.bfloat16, requires_grad=True), torch.ones(3, requires_grad=True)
    weights = torch.ones(2, requires_grad=True)
    total = mixed_sum([low, high], weights.unbind())
    assert total.dtype == torch.float32
    total.sum().backward()
    assert low.grad is not None
    assert low.grad.dtype == torch.bfloat16
    assert torch.equal(weights.grad, torch.tensor([3.0, 3.0]))


def test_products_in_any_order_of_memory():
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = (a * b).sum()
    for left in (a, channels_last(a)):
        for right in (b, channels_last(b)):
            torch.testing.assert_close(dot(left, right), expected)


SIZES = {'size': st.sampled_from([3, 5, 7]), 'step': st.sampled_from([1, 2]), 'stride': st.sampled_from([1, 2])}


@settings(max_examples=40, deadline=None)
@given(**SIZES, height=st.integers(1, 6), width=st.integers(1, 6), channels=st.integers(1, 5), biased=st.booleans())
def test_depthwise_convolutions_are_those_of_torch(size, step, stride, height, width, channels, biased):
    half = size // 2 * step
    layer = nn.Conv2d(
        channels, channels, size, stride, half, step, groups=channels, bias=biased, dtype=torch.float64
    )  # fmt: skip
    x = images(2, channels, 2 * height, 2 * width)
    convolution, weight = convolution_of(layer, x), layer.weight
    assert convolution is not None
    assert depthwise.is_slow(x, convolution) == ((size, step, stride) != (3, 1, 1))
    found, expected = depthwise.convolved(x, convolution), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    out = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, (x, weight), out), torch.autograd.grad(expected, (x, weight), out), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize('step', [1, 2])
def test_second_derivatives_of_a_depthwise_convolution(step):
    x, weight = images(1, 2, 4, 4), torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w: depthwise.depthwise(x, w, step), (x, weight))
    assert gradgradcheck(lambda x, w: depthwise.depthwise(x, w, step).square(), (x, weight))


@pytest.mark.parametrize(
    'change', [{'padding': 1}, {'padding_mode': 'circular'}, {'groups': 1}, {'stride': 3}, {'dilation': 3}]
)
def test_other_convolutions_stay_with_torch(change):
    settings = {'kernel_size': 5, 'padding': 2, 'groups': 4, 'bias': False, **change}
    layer = nn.Conv2d(4, 4, **settings, dtype=torch.float64)
    x = images(1, 4, 6, 6)
    convolution = convolution_of(layer, x)
    assert convolution is None or not depthwise.is_slow(x, convolution)
