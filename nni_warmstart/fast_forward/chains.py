"""Candidates as chains of layers, whose first ones are computed once for all candidates that leave a node."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..nni_adapter.mixed import convolution_of, counts_batches, fixed, links, momentum_of
from . import depthwise
from .layout import channels_last, is_channels_last, may_write, takes_any_order


@dataclass(frozen=True)
class State:
    """Value of a node, and what has been computed from it for any candidate."""

    value: Tensor
    shared: dict[tuple[Hashable, ...], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Flow:
    """Value on its way through a chain; ``key`` tells how it was computed from the node, None if nobody shares that."""

    value: Tensor
    state: State
    key: tuple[Hashable, ...] | None = ()

    def then(self, key: Hashable | None, function: Callable[[Tensor], Tensor]) -> _Flow:
        if key is None or self.key is None:
            return _Flow(function(self.value), self.state, None)
        key = (*self.key, key)
        if key not in self.state.shared:
            self.state.shared[key] = function(self.value)
        return _Flow(self.state.shared[key], self.state, key)

    def own(self) -> _Flow:
        """Return the value as one that may be changed in place, without others noticing."""
        return _Flow(self.value.clone(), self.state, None) if self.key else self


@dataclass(frozen=True)
class Link:
    """Layer of a chain.

    Attributes
    ----------
    layer
        Module; a block of a kind that is not known is one layer.
    key
        Equal for layers that compute the same; None for layers with parameters, state or random numbers.
    is_convolution, takes_any_order, may_write
        Whether it is a convolution, takes images with channels last, and may change its input in place.
    """

    layer: nn.Module
    key: Hashable | None
    is_convolution: bool
    takes_any_order: bool
    may_write: bool

    @classmethod
    def of(cls, layer: nn.Module) -> Link:
        return cls(layer, _key(layer), isinstance(layer, nn.Conv2d), takes_any_order(layer), may_write(layer))

    def __call__(self, x: Tensor) -> Tensor:
        if self.takes_any_order or not is_channels_last(x):
            return self.layer(x)
        return channels_last(self.layer(x.contiguous()))


Chain = tuple[Link, ...]
"""Layers that are called one after another."""


def chain_of(candidate: nn.Module) -> Chain:
    """Return the layers that a candidate calls one after another."""
    parts = links(candidate)
    if parts is None:
        return () if type(candidate) is nn.Identity else (Link.of(candidate),)
    return tuple(link for part in parts for link in chain_of(part))


def run(chain: Chain, state: State) -> Any:
    """Run a chain on the value of a node."""
    flow = _Flow(state.value, state)
    for link in chain:
        flow = flow.own() if link.may_write else flow
        flow = _convolved(link.layer, flow) if link.is_convolution else flow.then(link.key, link)
    return flow.value


def _key(layer: nn.Module) -> Hashable | None:
    """Return what is equal for layers that compute the same; None for layers with parameters, state or random numbers."""
    if type(layer) is nn.ReLU and not layer.inplace:
        return 'relu'
    if type(layer) is nn.MaxPool2d and not layer.return_indices:
        settings = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    elif type(layer) is nn.AvgPool2d:
        settings = layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad
        settings = *settings, layer.divisor_override
    else:
        return None
    return type(layer).__name__, *map(str, settings)


def _convolved(layer: Any, flow: _Flow) -> _Flow:
    found = convolution_of(layer, flow.value)
    if found is None:
        return flow.then(None, layer)
    if found.bias is None and found.stride == (2, 2) and depthwise.is_slow(flow.value, found):
        if found.dilation == (2, 2):
            return flow.then('halved', depthwise.halved).then(None, lambda x: depthwise.depthwise(x, found.weight, 1))
        return flow.then('by parity', depthwise.by_parity).then(None, lambda x: depthwise.strided(x, found.weight))
    return flow.then(None, lambda x: depthwise.convolved(x, found))


def is_norm(layer: nn.Module) -> bool:
    """Check whether a layer is a batch norm with an affine part, into which the weight of a candidate can be folded."""
    return fixed(layer, nn.BatchNorm2d) and layer.weight is not None and layer.bias is not None


def weighted_norm(norm: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Return ``weight * norm(x)``, with the scalar in the affine part, and update the statistics as the layer does."""
    momentum = momentum_of(norm)
    if norm.training and norm.track_running_stats and counts_batches(norm):
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    tracks = not norm.training or norm.track_running_stats
    return F.batch_norm(
        x,
        norm.running_mean if tracks else None,
        norm.running_var if tracks else None,
        norm.weight * weight,
        norm.bias * weight,
        norm.training or norm.running_mean is None,
        0.0 if momentum is None else momentum,
        norm.eps,
    )
