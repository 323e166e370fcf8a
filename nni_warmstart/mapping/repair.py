"""Activations of networks on the same images, and the repair of averaged weights by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..tracing.axes import OUT
from ..tracing.structure import Structure
from ..utils.modules import modes_kept, tensors_of
from .alignment import fuse
from .mapper import Mapping
from .patches import Activations, at, count, is_plain, patches, places
from .projection import averaging, project

ROWS = 8192  # activations kept per module and channel

PENALTY = 1e-2  # ridge penalty, in units of the mean square of the inputs, times the number of rows


@torch.no_grad()
def activations(model: nn.Module, inputs: Tensor) -> Activations:
    """Record the outputs of linear layers, convolutions and batch norms for some (a few hundred) images, in evaluation mode.

    The same number of places is kept of each image, the same places in every network, about 8192 rows per module in total.
    For a module that runs several times, the first run counts; modules that do not run are missing.
    """
    made = Activations()

    def keep(path: str, module: nn.Module, args: Any, output: Any) -> None:
        if path not in made and isinstance(output, Tensor):
            made[path], made.places[path] = _rows(output), count(output)

    with modes_kept(model), ExitStack() as hooks:
        for path, module in _layers(model).items():
            hooks.callback(module.register_forward_hook(partial(keep, path)).remove)
        model.eval()(inputs)
    return made


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Draw noise for :func:`activations` where there are no images, with the amplitudes 1/f of photographs.

    The noise has mean 0 and standard deviation 1; it is white for vectors.

    Field, *Relations between the statistics of natural images and the response properties of cortical cells*, JOSA A, 1987.
    """
    white = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) < 4:
        return white
    rows, columns = (torch.fft.fftfreq(side) for side in shape[-2:])
    frequency = (rows[:, None].square() + columns.square()).sqrt().clamp_min(1 / max(shape[-2:]))
    images = torch.fft.ifft2(torch.fft.fft2(white) / frequency).real
    return (images - images.mean()) / images.std()


def carried(made: Activations, mapping: Mapping, source: Structure, target: Structure) -> Activations:
    """Return a source's activations in the channels of a target: the ideal outputs of the target's modules."""
    result = Activations()
    for name, other in mapping.correspondence.tensors.items():
        a, b = target.channels.tensors[name], source.channels.tensors[other]
        path, origin = name.rpartition('.')[0], other.rpartition('.')[0]
        if path in result or origin not in made or name not in mapping.tensors or a.roles.count(OUT) != 1:
            continue
        target_axis, source_axis = a.held(a.roles.index(OUT)), b.held(b.roles.index(OUT))
        if target_axis is not None and source_axis is not None and len(source_axis) == made[origin].shape[1]:
            coupling = mapping.couplings.axis(target_axis, source_axis)
            y = made[origin]
            result[path] = y if coupling is None else project(y, None, averaging(coupling), (0, 1))
    return result


@torch.no_grad()
def repair(
    model: nn.Module,
    state: dict[str, Tensor],
    inputs: Tensor,
    parents: Sequence[Activations],
    weights: Sequence[float],
    *,
    regress: bool = True,
) -> dict[str, Tensor]:
    r"""Correct averaged weights layer by layer, so that outputs match the average of the parents; needs no labels.

    A linear layer or convolution has inputs :math:`X` in the network corrected so far and desired outputs :math:`Y`; its
    weights become :math:`W + (X^T X + \lambda I)^{-1} X^T (Y - X W)` (the regression of RegMean, on activations of the fused
    network). Other layers, such as grouped convolutions and batch norms, are only rescaled channel by channel to the mean
    and standard deviation of the parents (REPAIR); without a bias, to their root mean square. All corrections fold into the
    weights.

    Parameters
    ----------
    model, state
        A network of the right shapes, which is not changed, and the tensors to correct.
    inputs
        A few hundred images.
    parents, weights
        For each parent: its :func:`activations` on these images, in the channels of ``model`` (:func:`carried`), and its
        weight.
    regress
        Whether to fit weights by regression; False only rescales.

    Returns
    -------
    dict
        Corrected state.

    References
    ----------
    Jin et al., *Dataless Knowledge Fusion by Merging Weights of Language Models*, ICLR 2023. Jordan et al., *REPAIR:
    REnormalizing Permuted Activations for Interpolation Repair*, ICLR 2023.
    """
    model = deepcopy(model).eval()
    model.load_state_dict(state)
    goals = fuse(parents, weights)
    done: set[str] = set()

    def correct(path: str, module: Any, args: tuple[Tensor, ...]) -> None:
        if path in done:
            return
        done.add(path)
        x = args[0]
        if regress and _solvable(module, x):
            _regress(module, _input_rows(module, x), goals[path])
        else:
            _rescale(module, _moments(_rows(module.forward(x))), fuse([_moments(each[path]) for each in parents], weights))

    # One run in the order of execution: each layer is corrected just before it runs.
    for path in goals:
        model.get_submodule(path).register_forward_pre_hook(partial(correct, path))
    model(inputs)
    return {name: tensor.detach() for name, tensor in tensors_of(model).items()}


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, _BatchNorm)
    return {path: each for path, each in model.named_modules() if isinstance(each, kinds) and each.weight is not None}


def _solvable(module: Any, x: Tensor) -> bool:
    if type(module).forward is nn.Linear.forward:
        return True
    own = type(module).forward is nn.Conv2d.forward and x.dim() == 4
    return own and module.groups == 1 and is_plain(module)


def _moments(y: Tensor) -> dict[str, Tensor]:
    return {'mean': y.mean(0), 'deviation': y.std(0), 'size': y.square().mean(0).sqrt()}


def _rescale(module: Any, now: dict[str, Tensor], goal: dict[str, Tensor]) -> None:
    kind = 'size' if module.bias is None else 'deviation'
    scale = torch.where(now[kind] > 1e-8, goal[kind] / now[kind].clamp_min(1e-8), 1.0)
    module.weight.mul_(scale.view(-1, *[1] * (module.weight.dim() - 1)))
    if module.bias is not None:
        module.bias.copy_(goal['mean'] + scale * (module.bias - now['mean']))


def _regress(module: Any, x: Tensor, goal: Tensor) -> None:
    left = goal - x @ module.weight.flatten(1).T
    if module.bias is not None:
        left, x = left - module.bias, F.pad(x, (0, 1), value=1.0)
    few = len(x) < x.shape[1]  # the kernel form of ridge regression is then cheaper
    gram = (x @ x.T if few else x.T @ x).double()
    strength = PENALTY * (gram.trace() / x.shape[1]).clamp_min(1e-12 * len(x))
    factor = torch.linalg.cholesky(gram + strength * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    if few:
        change = x.T.double() @ torch.cholesky_solve(left.double(), factor)
    else:
        change = torch.cholesky_solve((x.T @ left).double(), factor)
    change = change.T.to(module.weight.dtype)
    if module.bias is not None:
        module.bias.add_(change[:, -1])
        change = change[:, :-1]
    module.weight.add_(change.reshape(module.weight.shape))


@lru_cache(maxsize=64)
def _chosen(images: int, places: int) -> Tensor:
    """Draw the places to keep of each image, shape ``(images, kept)``."""
    kept = min(places, max(1, math.ceil(ROWS / images)))
    random = torch.rand(images, places, generator=torch.Generator().manual_seed(0))
    return random.topk(kept, 1).indices.sort(1).values


def _rows(y: Tensor) -> Tensor:
    """Return activations as ``(rows, channels)``: channels are the second dimension, or the last one of three."""
    if y.dim() < 4:
        return y.flatten(0, -2) if y.dim() == 3 else y
    return at(y, _chosen(len(y), y.shape[2:].numel()).to(y.device))


def _input_rows(module: Any, x: Tensor) -> Tensor:
    """Return the inputs that a layer multiplies with its weights for the outputs of :func:`_rows`, ``(rows, features)``."""
    if isinstance(module, nn.Linear):
        return x.flatten(0, -2)
    return patches(module, x, _chosen(len(x), places(module, x)).to(x.device))
