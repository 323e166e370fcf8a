"""Regression: weights of a changed network fitted, layer by layer, to the source's activations on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..nni_adapter.batchnorm import reestimate
from ..tracing.axes import OUT
from ..tracing.structure import Structure
from ..utils.modules import modes_kept
from .mapper import Mapping
from .patches import at, count, drawn, is_plain, patches, places
from .projection import averaging

PENALTY = 1e-2
"""Ridge penalty of the fitted weights, in units of the mean variance of their inputs. Its value hardly matters: 1e-3, 1e-2
and 1e-1 kept 0.83, 0.83 and 0.82 of the accuracy of NAS-Bench-201 supernets at half their width (median of five tasks)."""


@dataclass
class Seen:
    """Statistics of the layers of a network on some images.

    Attributes
    ----------
    covariances
        Name of a weight -> covariance of its input channels, shape ``(n_in, n_in)``.
    made
        Name of a weight -> outputs of its layer at sampled positions, shape ``(rows, n_out)``.
    places
        Name of a weight -> number of outputs of its layer per image and channel.
    spread
        Name of a batch norm's weight -> standard deviation of each of its inputs, shape ``(n,)``.
    outputs
        Logits, shape ``(n_images, n_classes)``.
    """

    covariances: dict[str, Tensor] = field(default_factory=dict)
    made: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    spread: dict[str, Tensor] = field(default_factory=dict)
    outputs: Tensor = field(default_factory=lambda: torch.zeros(0))


def observe(model: nn.Module, images: Tensor, *, rows: int = 8192) -> Seen:
    """Run a network in evaluation mode and record what narrowing needs of every linear layer and convolution.

    Parameters
    ----------
    model
        The source; random choices have to be fixed by the caller.
    images
        Images in the shape that ``model`` takes, batch first.
    rows
        Number of outputs to keep per layer, which takes ``4 * rows * n_out`` bytes for each.
    """
    seen = Seen()

    def reader(module: Any, inputs: Any, output: Tensor, name: str) -> None:
        if name not in seen.covariances:  # of a layer that runs several times, the first run counts
            x = _sampled(module, inputs[0], rows).double()
            x = x - x.mean(0)
            seen.covariances[name] = (x.T @ x / len(x)).cpu()  # couplings are computed from them on the CPU
            seen.made[name] = _sampled(module, output, rows).clone()
            seen.places[name] = count(output)

    def norm(module: Any, inputs: Any, output: Tensor, name: str) -> None:
        seen.spread.setdefault(name, _spread(inputs[0]))

    with modes_kept(model), torch.no_grad(), _hooked(model, reader, norm):
        seen.outputs = model.eval()(images)
    return seen


def regress_layers(
    model: nn.Module,
    mapping: Mapping,
    target: Structure,
    source: Structure,
    seen: Seen,
    images: Tensor,
    *,
    rows: int = 8192,
) -> Tensor:
    r"""Fit each layer of the narrow network, in the order of execution, to the source's outputs, given its actual inputs.

    A convolution or linear layer at the source's resolution gets the ridge regression of :math:`Q^\top y`, the source's
    outputs at the kept channels, on its own input patches, penalised by the distance to its mapped weights. The scale of a
    batch norm is multiplied by the share of the standard deviation that was recovered, which makes its output the
    least-squares prediction too.

    Parameters
    ----------
    model
        Narrow network with the mapped weights; changed in place, batch-norm statistics included.
    mapping
        Result of :func:`~nni_warmstart.mapping.mapper.map_tensors`.
    target, source
        Structures of the narrow network and of the source.
    seen
        Result of :func:`observe` for the source.
    images, rows
        Arguments that :func:`observe` was called with.

    Returns
    -------
    Tensor
        Outputs of ``model``, shape ``(n_images, n_classes)``.

    References
    ----------
    He, Zhang & Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017 (sequential reconstruction).
    """
    done: set[str] = set()
    outputs: list[Tensor] = []

    def at_kept_channels(name: str, known: dict[str, Tensor]) -> Tensor | None:
        """Return a record of the source's layer at the kept channels; None if the layer is not to be fitted."""
        origin = mapping.correspondence.tensors.get(name)
        if origin not in known or name not in mapping.tensors or name in done:
            return None
        done.add(name)
        axes, source_axes = target.channels.tensors[name], source.channels.tensors[origin]
        if any(axes.bounds) or axes.groups > 1 or OUT not in axes.roles or axes.roles != source_axes.roles:
            return None
        axis = axes.roles.index(OUT)
        made, source_made = axes.held(axis), source_axes.held(axis)
        coupling = None if made is None or source_made is None else mapping.couplings.axis(made, source_made)
        value = known[origin]
        return value if coupling is None else value @ averaging(coupling).to(value)

    def reader(module: Any, inputs: Any, name: str) -> None:
        y = at_kept_channels(name, seen.made)
        x = None if y is None else sampled_inputs(module, inputs[0], rows)
        if y is None or x is None or len(x) != len(y):
            return
        if seen.places[mapping.correspondence.tensors[name]] != places(module, inputs[0]):
            return  # other places are sampled at another resolution
        # Regress what the mapped weights leave of the source's outputs on the actual inputs.
        weight = module.weight.flatten(1)
        mean = x.mean(0)
        x, missing = x - mean, y - y.mean(0)
        missing = missing - x @ weight.T
        change = ridge_solution(x.T @ x, x.T @ missing, PENALTY).T
        module.weight += change.view_as(module.weight)
        if module.bias is not None:
            module.bias.copy_(y.mean(0) - module.weight.flatten(1) @ mean)

    def norm(module: Any, inputs: Any, name: str) -> None:
        before = at_kept_channels(name, seen.spread)
        if before is not None:
            module.weight *= (_spread(inputs[0]) / before.clamp_min(1e-12)).clamp(max=1).to(module.weight)

    def result(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output)

    # One run in the order of execution: each layer is fitted just before it runs, on inputs that are fitted already.
    hook = model.register_forward_hook(result)
    try:
        with torch.no_grad(), _hooked(model, reader, norm, before=True):
            if not reestimate(model, [images]):
                model.eval()(images)
    finally:
        hook.remove()
    return outputs[-1]


def ridge_solution(gram: Tensor, product: Tensor, penalty: float) -> Tensor:
    """Solve a ridge regression in float64: ``(gram + penalty * mean(diag(gram)))^-1 product``.

    Parameters
    ----------
    gram
        Gram matrix of the regressors, shape ``(n, n)``.
    product
        Products of regressors and targets, shape ``(n, k)``.
    penalty
        Penalty in units of the mean square of the regressors.
    """
    gram = gram.double()
    weight = penalty * gram.diagonal().mean().clamp_min(1e-30)
    return torch.linalg.solve(gram + weight * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), product.double())


def _sampled(module: nn.Module, x: Tensor, rows: int) -> Tensor:
    """Return the channels at some places, shape ``(rows, channels)``."""
    if isinstance(module, nn.Linear):
        return x.flatten(0, -2)[:: max(x[..., 0].numel() // rows, 1)]
    return at(x, drawn(x[0, 0].numel(), x, rows))


def sampled_inputs(module: Any, x: Tensor, rows: int) -> Tensor | None:
    """Return the inputs of a layer for the same outputs, shape ``(rows, n_in * taps)``; None where they are not known."""
    if isinstance(module, nn.Linear):
        return _sampled(module, x, rows)
    return patches(module, x, drawn(places(module, x), x, rows)) if is_plain(module) else None


def _spread(x: Tensor) -> Tensor:
    dims = [dim for dim in range(x.dim()) if dim != 1]
    return (x - x.mean(dims, keepdim=True)).square().mean(dims).sqrt().double()


@contextmanager
def _hooked(
    model: nn.Module, reader: Callable[..., None], norm: Callable[..., None], *, before: bool = False
) -> Iterator[None]:
    """Call ``reader`` at every linear layer and convolution and ``norm`` at every batch norm, with the weight's name."""
    handles = []
    for path, module in model.named_modules():
        call = reader if isinstance(module, nn.Linear | nn.Conv2d) else norm if isinstance(module, _BatchNorm) else None
        if call is not None:
            hook = partial(call, name=f'{path}.weight' if path else 'weight')
            handles.append(module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
