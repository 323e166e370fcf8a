"""Fit of candidates that cannot compute exactly what the path does: narrower ones, and those with smaller kernels."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils.modules import forward_exchanged, modes_kept
from .layer_alignment import Chosen
from .network_layers import Layer
from .places import Place
from .regression import PENALTY, ridge_solution

_ROWS = 4096  # outputs of each layer that take part

_AT_ONCE = 16  # images that a place computes at once: all candidates together have activations larger than the network

_SAME = 1e-4  # relative difference of outputs below which a candidate needs no fit


class _Seen(NamedTuple):
    x: Tensor
    z: Tensor


@torch.no_grad()
def fit_candidates(model: nn.Module, chosen: list[Chosen], images: Tensor) -> dict[str, Tensor]:
    r"""Fit the last layer of every other candidate to the outputs of the path, on the path's own inputs.

    A 1 x 1 convolution at the end of a candidate reads features :math:`x`; its weights become the ridge regression of the
    outputs :math:`z` of the path's last convolution, and the norm after it maps them as the path's norm does. No labels are
    needed, and no network but the supernet itself.

    Parameters
    ----------
    model
        Supernet with the mapped weights in which the path alone is selected; random choices have to be fixed by the caller.
        It is not changed.
    chosen
        Places of its model space with the candidates of the path; those that are not one choice among modules are left.
    images
        A few hundred images in the shape that the supernet takes, batch first.

    Returns
    -------
    dict
        Fitted tensors by name.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    chosen = [each for each in chosen if each.place.idle is None and len(each.candidate.selects) == 1 and each.run]
    last = {layer.path for each in chosen for layer in _last_layers(each.place)}
    seen: dict[str, list[_Seen]] = defaultdict(list)
    fitted: dict[str, Tensor] = {}
    most = max(_ROWS * _AT_ONCE // len(images), 1)

    def keep(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name].append(_Seen(_rows(inputs[0], most), _rows(output, most)))

        return record

    def fit(each: Chosen) -> None:
        teacher, layers = each.candidate.layers[-1], _last_layers(each.place)
        whole = {layer.path: _Seen(*map(torch.cat, zip(*seen.pop(layer.path), strict=True))) for layer in layers}
        for layer in layers:
            if layer.path != teacher.path and _is_pointwise(modules[layer.path]) and layer.norm:
                fitted.update(_fitted(modules, layer, teacher, whole[layer.path], whole[teacher.path].z))

    def in_parts(site: nn.Module, each: Chosen) -> Any:
        forward = site.forward

        def run(x: Tensor) -> Tensor:
            output = torch.cat([forward(part) for part in x.split(_AT_ONCE)])
            fit(each)
            return output

        return run

    with modes_kept(model), ExitStack() as hooks:
        for name in last:
            hooks.callback(modules[name].register_forward_hook(keep(name)).remove)
        for each in chosen:
            site = each.candidate.layers[-1].path
            while not _is_parent(site, each.place):
                site = site.rpartition('.')[0]
            hooks.enter_context(forward_exchanged(modules[site], in_parts(modules[site], each)))
        model.eval()(images)
    return fitted


def _last_layers(place: Place) -> list[Layer]:
    """Return the last layer of every candidate, once."""
    return list({each.layers[-1].path: each.layers[-1] for each in place.candidates if each.layers}.values())


def _is_parent(path: str, place: Place) -> bool:
    """Check whether a module contains all candidates of a place."""
    return all(layer.path.startswith(f'{path}.') for each in place.candidates for layer in each.layers)


def _is_pointwise(module: Any) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1 and module.stride == (1, 1)


def _fitted(modules: dict[str, Any], own: Layer, teacher: Layer, seen: _Seen, goal: Tensor) -> dict[str, Tensor]:
    """Return the weights of a candidate's last convolution and norm; none where it computes the same already."""
    norm, other = modules[own.norm], modules[teacher.norm] if teacher.norm else None
    if len(seen.z) != len(goal) or not isinstance(norm, _BatchNorm) or not isinstance(other, _BatchNorm):
        return {}
    if norm.running_mean is None or norm.weight is None or other.running_mean is None or other.weight is None:
        return {}
    if float((seen.z - goal).norm()) < _SAME * float(goal.norm()):
        return {}
    weight = modules[own.path].weight.flatten(1)
    mean, x, z = seen.x.mean(0), seen.x - seen.x.mean(0), goal - goal.mean(0)
    change = ridge_solution(x.T @ x, x.T @ (z - x @ weight.T), PENALTY).T.to(weight)
    weight = weight + change
    # What is not explained lacks in the variance, which the scale of the norm has to make up for.
    share = ((x @ weight.T).std(0) / z.std(0).clamp_min(1e-12)).clamp(1e-3, 1.0)
    assert other.running_var is not None
    variance = (other.running_var + other.eps) * share.square() - norm.eps
    found = {
        f'{own.path}.weight': weight.view_as(modules[own.path].weight),
        f'{own.norm}.weight': other.weight * share, f'{own.norm}.bias': other.bias,
        f'{own.norm}.running_mean': other.running_mean + weight @ mean - goal.mean(0),
        f'{own.norm}.running_var': variance.clamp_min(0.0),
    }  # fmt: skip
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _rows(y: Tensor, most: int) -> Tensor:
    """Return activations at about ``most`` places, the same for all layers of one size, shape ``(rows, channels)``."""
    rows = y.movedim(1, -1).flatten(0, -2)
    step = max(len(rows) // most, 1) | 1  # an odd step visits all columns
    return rows[::step].clone()  # a view would keep all of them
