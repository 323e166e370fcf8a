"""Discretisation with little loss: a frozen network fitted, sum by sum, to the mixtures that its supernet computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..nni_adapter.batchnorm import reestimate
from ..nni_adapter.node_sums import NodeSum, node_sums
from ..nni_adapter.paths import every_path
from ..utils.modules import modes_kept
from .patches import at, drawn, is_plain
from .regression import PENALTY, ridge_solution, sampled_inputs

ROWS = 8192
"""Largest number of outputs of a sum that take part in its regression."""


@dataclass
class Fit:
    """Result for one sum.

    Attributes
    ----------
    before, after
        Mean squared difference from the sum of the supernet, as a share of its variance.
    """

    before: float
    after: float


@dataclass
class _Op:
    """What an op did in this run: its last convolution with its input, and the norm after it."""

    module: nn.Module
    inputs: Any = ()
    convolution: Any = None
    norm: Any = None
    x: Tensor = field(default_factory=lambda: torch.zeros(0))
    made: Tensor | None = None
    output: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def is_fitted(self) -> bool:
        layer, norm = self.convolution, self.norm
        if self.made is None or self.made.shape != self.output.shape:
            return False
        if norm is not None and (norm.weight is None or norm.running_var is None):
            return False
        return self.x.dim() == 2 if isinstance(layer, nn.Linear) else is_plain(layer) and layer.groups == 1


@torch.no_grad()
def refit(network: nn.Module, supernet: nn.Module, images: Tensor, *, rows: int = ROWS) -> dict[str, Fit]:
    r"""Fit a frozen network to the supernet that it was taken from, without labels.

    A supernet computes mixtures, so a network of its most probable candidates loses accuracy, sometimes all of it. In the
    order of execution, the last convolutions of the ops that enter a node are fitted together: their weights become the
    ridge regression of the supernet's sum, less what the other ops add, on their own input patches, with the distance to the
    inherited weights as the penalty. Batch norms after them get such scales that they return the prediction. Layers beside
    the cells, which pass on what was lost, are fitted to the supernet's the same way. A fit that does not lessen the error
    is undone. The statistics of all batch norms become those of the images.

    Parameters
    ----------
    network
        Frozen network with the weights of the supernet; changed in place.
    supernet
        Supernet of DARTS or GumbelDARTS with its alphas.
    images
        A few hundred images in the shape that both take, batch first.
    rows
        Number of outputs of each sum that take part in its regression.

    Returns
    -------
    dict
        Path of the last op of each sum -> how well it fits. A sum is missing if none of its ops ends with a convolution or
        linear layer, with or without a norm.

    References
    ----------
    He, Zhang & Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017 (sequential reconstruction).
    """
    modules = dict(network.named_modules())
    sums = [each for each in node_sums(supernet) if all(op in modules for op in each.ops)]
    goals = _sums_of(supernet, sums, images, rows)
    fits: dict[str, Fit] = {}
    with modes_kept(network), ExitStack() as hooks:
        for each, goal in goals.items():
            _hook(hooks, modules, each, goal, rows, fits)
        if not reestimate(network, [images]):
            network.eval()(images)
    return fits


def _sums_of(supernet: nn.Module, sums: Sequence[NodeSum], images: Tensor, rows: int) -> dict[NodeSum, Tensor]:
    """Return the supernet's sums at some places, shape ``(rows, channels)``."""
    modules, found, runs = dict(supernet.named_modules()), dict[NodeSum, Tensor](), Counter[NodeSum]()

    def reader(each: NodeSum) -> Any:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            value = each.of(output)
            if value.dim() in (2, 4):
                runs[each] += 1
                found[each] = found[each] + _rows(value, rows) if each in found else _rows(value, rows)

        return read

    with modes_kept(supernet), every_path(supernet), ExitStack() as hooks:
        for each in sums:
            for path in each.modules:
                hooks.callback(modules[path].register_forward_hook(reader(each)).remove)
        supernet.eval()(images)
    return {each: goal for each, goal in found.items() if runs[each] == len(each.modules)}  # without modules that run twice


def _hook(hooks: ExitStack, modules: dict[str, Any], each: NodeSum, goal: Tensor, rows: int, fits: dict[str, Fit]) -> None:
    """Watch the ops of one sum, and fit them when the last one has run."""
    seen = {path: _Op(modules[path]) for path in each.ops}

    def convolution(op: _Op) -> Any:
        def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
            op.convolution, op.norm, op.x, op.made = module, None, inputs[0], output

        return watch

    def norm(op: _Op) -> Any:
        def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if op.made is inputs[0]:
                op.norm, op.made = module, output
            else:  # after an activation or a pool: what came before is not the end of the op
                op.made = None

        return watch

    def finished(path: str) -> Any:
        def watch(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            seen[path].inputs, seen[path].output = inputs, output
            if path != each.ops[-1]:
                return None
            others = sum((seen[other].output for other in each.ops[:-1]), torch.zeros(()))
            fit = _fit(list(seen.values()), goal, rows)
            for op in seen.values():
                op.inputs, op.x, op.made, op.output = (), torch.zeros(0), None, torch.zeros(0)
            if fit is None:
                return None
            fits[path] = fit[0]
            return fit[1] - others

        return watch

    for path in each.ops:
        for module in modules[path].modules():
            fits_it = isinstance(module, nn.Conv2d | nn.Linear)
            watch = convolution if fits_it else norm if isinstance(module, _BatchNorm) else None
            if watch is not None:
                hooks.callback(module.register_forward_hook(watch(seen[path])).remove)
        hooks.callback(modules[path].register_forward_hook(finished(path)).remove)


def _fit(ops: list[_Op], goal: Tensor, rows: int) -> tuple[Fit, Tensor] | None:
    """Fit the ops of one sum, and return how well they fit and the new sum; None if there is none to fit."""
    fitted = [op for op in ops if op.is_fitted]
    whole = torch.stack([op.output for op in ops]).sum(0)
    if not fitted or _rows(whole, rows).shape != goal.shape:  # of another resolution, or of a width that is searched
        return None
    rest = whole - torch.stack([op.made for op in fitted if op.made is not None]).sum(0)
    missing = goal - _rows(rest, rows)
    mean = missing.mean(0)
    # Regress on the patches of all convolutions side by side.
    x = [cast(Tensor, sampled_inputs(op.convolution, op.x, rows)) for op in fitted]  # known for all that are fitted
    centred = torch.cat([each - each.mean(0) for each in x], 1)
    weight = torch.cat([_effective(op) for op in fitted], 1)
    change = ridge_solution(centred.T @ centred, centred.T @ (missing - mean - centred @ weight.T), PENALTY).T.to(weight)
    parts = (weight + change).split([each.shape[1] for each in x], 1)
    before = [{name: value.clone() for name, value in _state(op).items()} for op in fitted]
    for op, part in zip(fitted, parts, strict=True):
        _write(op, part, mean / len(fitted))
    found = torch.stack([op.module.forward(*op.inputs) for op in ops]).sum(0)  # without the hooks on the ops
    spread = float((goal - goal.mean(0)).square().mean().clamp_min(1e-30))
    errors = [float((goal - _rows(each, rows)).square().mean()) / spread for each in (whole, found)]
    if errors[1] < errors[0]:
        return Fit(*errors), found
    for op, values in zip(fitted, before, strict=True):
        for name, value in _state(op).items():
            value.copy_(values[name])
    return Fit(errors[0], errors[0]), whole


def _state(op: _Op) -> dict[str, Tensor]:
    """Return the tensors that a fit changes."""
    found = {'weight': op.convolution.weight, 'bias': op.convolution.bias}
    if op.norm is not None:
        found |= {f'norm.{name}': getattr(op.norm, name) for name in ('weight', 'bias', 'running_mean', 'running_var')}
    return {name: tensor.detach() for name, tensor in found.items() if tensor is not None}


def _effective(op: _Op) -> Tensor:
    """Return the weights of a convolution with the scale of its norm, shape ``(n_out, n_in * taps)``."""
    weight = op.convolution.weight.detach().flatten(1)
    if op.norm is None:
        return weight
    return weight * (op.norm.weight / (op.norm.running_var + op.norm.eps).sqrt())[:, None]


def _write(op: _Op, weight: Tensor, mean: Tensor) -> None:
    """Give a convolution new weights, and its output this mean over images and places, by its norm or its bias.

    Before a norm, weights keep their length, and so the pace at which they learn.
    """
    state = _state(op)
    factor = state['weight'].norm() / weight.norm().clamp_min(1e-12) if op.norm is not None else 1.0
    state['weight'].copy_((weight * factor).view_as(state['weight']))
    if 'bias' in state:
        state['bias'].zero_()
    z = op.convolution.forward(op.x)
    variance, z_mean = torch.var_mean(z.transpose(0, 1).flatten(1), 1, correction=0)
    if op.norm is not None:
        state['norm.running_mean'].copy_(z_mean)
        state['norm.running_var'].copy_(variance)
        state['norm.weight'].copy_((variance + op.norm.eps).sqrt() / factor)
        state['norm.bias'].copy_(mean)
    elif 'bias' in state:
        state['bias'].copy_(mean - z_mean)


def _rows(y: Tensor, rows: int) -> Tensor:
    return y if y.dim() == 2 else at(y, drawn(y[0, 0].numel(), y, rows))
