"""Mutation of model spaces to supernets, and their state."""

from __future__ import annotations

from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.supermodule.differentiable import (
    GumbelSoftmax,
)
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedInput, ProxylessMixedLayer, ProxylessMixedRepeat
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from torch import Tensor, nn

from ..utils.modules import tensors_of
from ..utils.random import quiet_randomness

STRATEGIES: dict[str, type[DARTS]] = {'DARTS': DARTS, 'GumbelDARTS': GumbelDARTS, 'Proxyless': Proxyless}
"""NNI's strategies whose supernets can be saved, by their name in a card."""


def strategy_kind(model: nn.Module) -> str:
    """Return the key in :data:`STRATEGIES` of NNI's strategy that mutated ``model``."""
    kinds = (ProxylessMixedLayer, ProxylessMixedInput, ProxylessMixedRepeat)
    if any(isinstance(module, kinds) for module in model.modules()):
        return 'Proxyless'
    if any(isinstance(getattr(module, '_softmax', None), GumbelSoftmax) for module in model.modules()):
        return 'GumbelDARTS'
    return 'DARTS'


def mutate(space: ModelSpace, kind: str) -> ModelSpace:
    """Mutate ``space`` to a supernet in place, without changing the global random generator."""
    with quiet_randomness():
        return STRATEGIES[kind]().mutate_model(space)


def first_names(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the state of ``model`` with every shared tensor once, and the other names of shared tensors.

    Returns
    -------
    tensors
        Tensors by their first name only (safetensors refuses shared storage).
    aliases
        Further name -> first name. Shared alphas have many: 1,963 names for 1,949 tensors in the hub's DARTS space.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors_of(model, keep_vars=True).items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,)
        if key in seen:
            aliases[name] = seen[key]
        else:
            seen[key] = name
            tensors[name] = tensor.detach()
    return tensors, aliases
