"""Paths of a supernet: run the most probable one, or every one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.differentiable import (
    DifferentiableMixedInput,
    DifferentiableMixedLayer,
    GumbelSoftmax,
)
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedInput, ProxylessMixedLayer
from torch import nn

from .architectures import best_inputs


@contextmanager
def best_path(model: nn.Module) -> Iterator[None]:
    """Evaluate deterministically: Proxyless runs the best path, GumbelDARTS weights without noise; restored at the end."""
    paths = [m for m in model.modules() if isinstance(m, ProxylessMixedLayer | ProxylessMixedInput)]
    saved = [{key: getattr(m, key) for key in ('_sampled', '_sample_idx') if hasattr(m, key)} for m in paths]
    try:
        for module in paths:
            if isinstance(module, ProxylessMixedLayer):
                module._sample_idx = int(module._arch_alpha.argmax())
                module._sampled = module.names[module._sample_idx]
            else:
                module._sampled = best_inputs(module)
        with _without_noise(model):
            yield
    finally:
        for module, values in zip(paths, saved, strict=True):
            for key, value in values.items():
                setattr(module, key, value)


def draw_path(model: nn.Module) -> None:
    """Select a random path of NNI's RandomOneShot, which has none before its first step."""
    drawn: dict[str, Any] = {}
    for module in model.modules():
        if isinstance(module, BaseSuperNetModule) and getattr(module, '_arch_alpha', None) is None:
            drawn.update(module.resample(memo=drawn))


@contextmanager
def every_path(model: nn.Module) -> Iterator[None]:
    """Run every candidate of every choice, weighted without noise; Proxyless runs as DARTS would."""
    plain = {ProxylessMixedLayer: DifferentiableMixedLayer, ProxylessMixedInput: DifferentiableMixedInput}
    changed = [m for m in model.modules() if type(m) in plain]
    try:
        for module in changed:
            module.forward = partial(plain[type(module)].forward, module)
        with _without_noise(model):
            yield
    finally:
        for module in changed:
            del module.forward


@contextmanager
def _without_noise(model: nn.Module) -> Iterator[None]:
    """Weight the candidates of GumbelDARTS as DARTS does."""
    noisy = [(m, m._softmax) for m in model.modules() if isinstance(getattr(m, '_softmax', None), GumbelSoftmax)]
    for module, _ in noisy:
        module._softmax = nn.Softmax(-1)
    try:
        yield
    finally:
        for module, softmax in noisy:
            module._softmax = softmax
