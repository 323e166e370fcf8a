"""Weighted sums in place, with a backward of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import channels_last, is_channels_last


def mixed_sum(weighted: Sequence[Tensor], weights: Sequence[Tensor], plain: Sequence[Tensor] = ()) -> Tensor:
    r"""Return :math:`\sum_k w_k v_k + \sum_i p_i`, which can be differentiated twice.

    Parameters
    ----------
    weighted
        Summands :math:`v_k`, whose shapes can be broadcast, as those of gates.
    weights
        Their weights :math:`w_k`, scalars.
    plain
        Summands :math:`p_i`, likewise; at least one summand is needed in all.
    """
    if len(plain) == 1 and not weighted:
        return plain[0]
    if len({value.shape for value in (*weighted, *plain)}) > 1:
        values = torch.broadcast_tensors(*weighted, *plain)
        weighted, plain = values[: len(weighted)], values[len(weighted) :]
    stacked = torch.stack(list(weights)) if weights else plain[0].new_empty(0)
    return _MixedSum.apply(stacked, *weighted, *plain)  # type: ignore[return-value]


class _MixedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *values: Tensor) -> Tensor:
        count = len(weights)
        dtype = values[0].dtype
        for value in values[1:]:
            dtype = torch.promote_types(dtype, value.dtype)
        factors = _factors(weights)
        total = values[0].to(dtype, copy=True) if not count else values[0].to(dtype) * factors[0]
        for index, value in enumerate(values[1:], start=1):
            if index >= count:
                total.add_(value)
            elif isinstance(factors[index], float):
                total.add_(value, alpha=factors[index])
            else:
                total.addcmul_(value.to(dtype), factors[index].to(dtype))
        ctx.count, ctx.dtypes = count, [value.dtype for value in values]
        ctx.save_for_backward(weights, *(values[:count] if ctx.needs_input_grad[0] else ()))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        weights, *values = ctx.saved_tensors
        twice = torch.is_grad_enabled()  # for second derivatives all of the following can be differentiated
        factors = weights.unbind() if twice else _factors(weights)
        needed, dtypes = ctx.needs_input_grad[1:], ctx.dtypes
        of_values = [
            ((gradient * factors[index]) if index < ctx.count else gradient).to(dtype) if needs else None
            for index, (needs, dtype) in enumerate(zip(needed, dtypes, strict=True))
        ]
        of_weights = None
        if ctx.needs_input_grad[0] and values:
            product = _product if twice else dot
            of_weights = torch.stack([product(gradient, value) for value in values]).to(weights.dtype)
        return of_weights, *of_values


def _factors(weights: Tensor) -> Sequence[Any]:
    """Return weights as numbers, but on a GPU, which would have to wait for them, as scalars."""
    return weights.tolist() if weights.device.type == 'cpu' else weights.unbind()


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the scalar product of two tensors of one shape, in one pass if both have the same order in memory."""
    if a.dtype != b.dtype or a.dtype not in (torch.float32, torch.float64):
        return _product(a, b)
    if is_channels_last(a) or is_channels_last(b):
        a, b = (channels_last(x).permute(0, 2, 3, 1) for x in (a, b))
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()
