"""Architectures of a supernet: the most probable one, and its operations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.differentiable import (
    DifferentiableMixedCell,
    DifferentiableMixedLayer,
)
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedInput, ProxylessMixedLayer, ProxylessMixedRepeat
from torch import Tensor, nn

_ZEROS = ('Zero', 'Zeroize')
"""Names of the classes of the zero operation. Its candidate name does not tell: an identity may be called none, too."""


@dataclass(frozen=True)
class Option:
    """Candidate operation: its probability; whether it has no parameters (skip, pooling, zero), is zero, or an identity."""

    probability: float
    parameter_free: bool
    zero: bool
    identity: bool

    def joined(self, other: Option) -> Option:
        """Return the facts about a candidate of two choices with one label: free of parameters if it is so in either."""
        free = self.parameter_free or other.parameter_free
        return replace(self, parameter_free=free, zero=self.zero and other.zero, identity=self.identity and other.identity)


def is_zero(module: nn.Module) -> bool:
    """Check whether a module is a zero operation."""
    return type(module).__name__ in _ZEROS


def operations(model: nn.Module, sample: dict[str, Any]) -> dict[str, dict[str, Option]]:
    """Return the choices among operations (not of inputs, widths or depths) by the label that ``sample`` has for them.

    In a cell these are the operations on the edges that ``sample`` keeps.
    """
    found: dict[str, dict[str, Option]] = {}
    repeats = [module for module in model.modules() if isinstance(module, ProxylessMixedRepeat)]
    depths = {id(block) for module in repeats for block in optional_blocks(module)}
    for module in model.modules():
        if id(module) in depths:
            continue
        if isinstance(module, DifferentiableMixedCell):
            for node, edges in enumerate(cast(Any, module.ops), start=module.num_predecessors):
                for k in range(module.num_ops_per_node):
                    edge = sample[f'{module.label}/input_{node}_{k}'][0]
                    alpha = module._arch_alpha[f'{module.label}/{node}_{edge}']
                    found[f'{module.label}/op_{node}_{k}'] = _options(alpha, module.op_names, edges[edge])
        elif isinstance(module, DifferentiableMixedLayer):
            label, options = str(module.label), _options(module._arch_alpha, module.names, module)
            shared = found.get(label, options)
            found[label] = {name: option.joined(shared[name]) for name, option in options.items()}
    return found


def cell_of(model: nn.Module, label: str) -> str:
    """Return the part that the labels of a cell's choices share: up to the last slash, without the ``label_prefix``."""
    label = label.removeprefix(f'{getattr(model, "_label_prefix", None)}/')
    return label.rpartition('/')[0] or label


def _options(alpha: Tensor, names: Any, candidates: Any) -> dict[str, Option]:
    probabilities = torch.softmax(alpha.detach(), -1).tolist()
    return {
        name: Option(
            probability,
            next(candidates[name].parameters(), None) is None,
            is_zero(candidates[name]),
            isinstance(candidates[name], nn.Identity),
        )
        for name, probability in zip(names, probabilities, strict=False)  # without the extra slot of a cell's edge
    }


def skip_share(model: nn.Module, sample: dict[str, Any]) -> float:
    """Return the share of ops without parameters (skip, pooling, none) among the ops chosen in ``sample``.

    A high share is the known symptom of a collapse of DARTS. Choices of inputs, widths or depths do not count.
    """
    free = [options[sample[label]].parameter_free for label, options in operations(model, sample).items()]
    return sum(free) / len(free) if free else 0.0


def best_sample(model: nn.Module) -> dict[str, Any]:
    """Return the current best architecture: for every choice the candidate with the largest alpha.

    It equals NNI's ``export``, except for Proxyless, whose export draws a random path and leaves it selected.
    """
    sample: dict[str, Any] = {}
    for module in model.modules():
        if isinstance(module, ProxylessMixedLayer):
            sample[str(module.label)] = module.names[int(module._arch_alpha.argmax())]
        elif isinstance(module, ProxylessMixedInput):
            sample[str(module.label)] = best_inputs(module)
        elif isinstance(module, ProxylessMixedRepeat):
            sample[str(module.depth_choice.label)] = _best_depth(module)
        elif isinstance(module, BaseSuperNetModule):
            sample.update(module.export(memo=sample))
    return sample


def optional_blocks(module: ProxylessMixedRepeat) -> list[ProxylessMixedLayer]:
    """Return the blocks of a mutable depth that may be left out: choices between an identity, '0', and the block, '1'."""
    return cast(list[ProxylessMixedLayer], list(module.blocks)[module.min_depth :])


def _best_depth(module: ProxylessMixedRepeat) -> int:
    """Return the depth of the most probable path, or, if the space lacks it, the most probable depth that it has."""
    depth = module.min_depth + sum(int(block.names[int(block._arch_alpha.argmax())]) for block in optional_blocks(module))
    if depth in module.depth_choice.values:
        return depth
    (found,) = module.export_probs({}).values()
    return max(module.depth_choice.values, key=lambda value: float(found.get(value, 0.0)))


def best_inputs(module: ProxylessMixedInput) -> list[int]:
    return sorted(module._arch_alpha.argsort(descending=True)[: module.n_chosen or 1].tolist())
