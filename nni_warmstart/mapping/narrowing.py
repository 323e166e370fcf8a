"""Narrowing to fewer channels: the choice of channels to keep, and the linear prediction of the others from them.

A kept channel is one channel of the source (a one-hot column of the coupling), which commutes with ReLU, max pooling and
batch norm. Dropped channels are predicted linearly from the kept ones. Both follow from the covariances of the inputs of
each layer: measured on a few hundred images without labels, or estimated from the weights. With images, the weights of the
narrow network are fitted as well.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tracing.axes import IN, OUT
from ..tracing.channel_spaces import ChannelSpace, Couple, Couplings
from ..tracing.structure import Structure
from ..utils.modules import tensors_of
from .correspondence import Correspondence, match_modules
from .mapper import Mapping, Share, evenly, map_tensors
from .projection import averaging, sharing
from .regression import Seen, observe, regress_layers, ridge_solution

_EXACT = 1e-6  # penalty so small that exact predictions stay exact in single precision


def is_narrower(target: Structure, source: Structure, pairs: dict[str, str]) -> bool:
    """Check whether a target has fewer channels than the source in some space other than that of the images.

    Parameters
    ----------
    pairs
        Target tensor -> source tensor.
    """
    couplings = Couplings(target.channels, source.channels, pairs, evenly(source))
    narrower = [other for space, other in couplings.pairs() if len(other) > len(space)]
    return any(not np.isin(space.channels, source.channels.inputs).any() for space in narrower)


def weight_covariances(
    state: dict[str, Tensor], source: Structure, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    r"""Estimate the covariances of each layer's inputs without data, as :math:`\sum_p W_p W_p^\top` over preceding weights.

    This is the covariance of the sum of several linear layers whose inputs are white and independent of each other.

    Parameters
    ----------
    state, source
        Tensors and structure of the network.
    names
        Weights to return covariances for; None for all.

    Returns
    -------
    dict
        Name of a weight -> covariance, shape ``(n_in, n_in)``, as in :attr:`Seen.covariances`.
    """
    # Sum W W^T over the weights with the same output channels.
    tensors = {name: axes for name, axes in source.channels.tensors.items() if name in state and IN in axes.roles}
    made: dict[bytes, tuple[np.ndarray, Tensor]] = {}
    for name, axes in tensors.items():
        channels = axes.channels[axes.roles.index(OUT)] if OUT in axes.roles else None
        if channels is not None:
            weight = state[name].detach().double().movedim(axes.roles.index(OUT), 0).flatten(1)
            _, before = made.get(channels.tobytes(), (channels, torch.zeros(1, dtype=torch.float64)))
            made[channels.tobytes()] = channels, before + weight @ weight.T
    # Collect these sums at the input channels of every layer.
    found: dict[bytes, Tensor] = {}
    reads = {name: axes.channels[axes.roles.index(IN)] for name, axes in tensors.items() if names is None or name in names}
    for read in reads.values():
        if read is None or read.ndim != 1 or read.tobytes() in found:
            continue
        covariance = torch.zeros(len(read), len(read), dtype=torch.float64)
        for channels, gram in made.values():
            if np.array_equal(read, channels):
                covariance += gram
                continue
            _, reader_at, maker_at = np.intersect1d(read, channels, return_indices=True)
            covariance[np.ix_(reader_at, reader_at)] += gram[np.ix_(maker_at, maker_at)]
        found[read.tobytes()] = covariance
    return {name: found[read.tobytes()] for name, read in reads.items() if read is not None and read.tobytes() in found}


def select_channels(covariances: Tensor, demands: Tensor, count: int) -> list[int]:
    r"""Select the channels that preserve most of the input of the following layers: greedy column subset selection.

    With the covariance :math:`C_r` of the input of layer :math:`r` and :math:`A_r = \sum_t W_{rt}^\top W_{rt}` over the taps
    of its kernel, a kept set :math:`S` explains
    :math:`\sum_r \operatorname{tr}(A_r C_{r,:S} C_{r,SS}^{-1} C_{r,S:}) / \operatorname{tr}(A_r C_r)`.

    Parameters
    ----------
    covariances, demands
        C and A of each layer, shape ``(n_layers, n, n)``.
    count
        Number of channels to keep.

    Returns
    -------
    list of int
        Selected channels in increasing order; ties go to the first.

    References
    ----------
    Farahat, Ghodsi & Kamel, *Efficient greedy feature selection for unsupervised learning*, KAIS 35(2), 2013 (the
    recursion); Luo, Wu & Lin, *ThiNet*, ICCV 2017 (channels chosen for what the next layer loses).
    """
    left = covariances.clone()  # covariance that the chosen channels do not explain
    total = (covariances * demands).sum((1, 2)).clamp_min(1e-30)
    floor = 1e-6 * covariances.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
    chosen: list[int] = []
    for _ in range(count):
        variance = left.diagonal(dim1=1, dim2=2)
        gain = ((demands @ left) * left).sum(1) / (variance.clamp_min(0) + floor[:, None]) / total[:, None]
        score = gain.sum(0)
        score[chosen] = -1.0
        best = int(score.argmax())
        chosen.append(best)
        column = left[:, :, best]
        left = left - column[:, :, None] * column[:, None, :] / (column[:, best].clamp_min(0) + floor)[:, None, None]
    return sorted(chosen)


def selecting(state: dict[str, Tensor], source: Structure, covariances: dict[str, Tensor]) -> Couple:
    """Make couplings that keep the channels of :func:`select_channels`; spaces that do not shrink are coupled evenly.

    Parameters
    ----------
    state, source
        Tensors and structure of the source.
    covariances
        Covariances of the inputs of its layers, from :func:`observe` or :func:`weight_covariances`.
    """
    even = evenly(source)

    def couple(source_space: ChannelSpace, target_space: ChannelSpace) -> Tensor:
        if len(target_space) >= len(source_space) or np.isin(source_space.channels, source.channels.inputs).any():
            return even(source_space, target_space)
        readers = []
        for name, axis, _ in sorted(source_space.places):
            axes = source.channels.tensors[name]
            read = axes.channels[axis]
            if axes.roles[axis] != IN or name not in covariances or read is None or read.ndim != 1:
                continue
            _, at, _ = np.intersect1d(read, source_space.channels, return_indices=True)
            if len(at) == len(source_space):
                weight = state[name].detach().double().movedim(axis, 0)[torch.from_numpy(at)].flatten(1)
                readers.append((covariances[name][np.ix_(at, at)], weight @ weight.T))
        if readers:
            c, a = (torch.stack(each) for each in zip(*readers, strict=True))
            chosen = torch.tensor(select_channels(c, a, len(target_space)))
        else:  # no layer has them as input
            chosen = torch.linspace(0, len(source_space) - 1, len(target_space)).round().long()
        return F.one_hot(chosen, len(source_space)).T.double()

    return couple


def regressing(covariances: dict[str, Tensor], penalty: float = _EXACT) -> Share:
    r"""Make R the linear prediction of all channels from the kept ones, :math:`C Q (Q^\top C Q + \lambda)^{-1}`.

    Parameters
    ----------
    covariances
        Name of a source's weight -> covariance C of its inputs; weights without one share their channels out.
    penalty
        Penalty :math:`\lambda` in units of the mean variance of the kept channels.
    """

    def share(name: str, coupling: Tensor) -> Tensor:
        selects = bool(((coupling != 0).sum(0) == 1).all())  # channels of images are summed instead
        if name not in covariances or coupling.shape[0] <= coupling.shape[1] or not selects:
            return sharing(coupling)
        made = averaging(coupling)
        covariance = covariances[name]
        return ridge_solution(made.T @ covariance @ made, (covariance @ made).T, penalty).T

    return share


def narrow(
    model: nn.Module,
    source: Structure,
    target_model: nn.Module,
    target: Structure,
    images: Tensor,
    *,
    correspondence: Correspondence | None = None,
    tries: int = 4,
    rows: int = 8192,
    skip: frozenset[str] = frozenset(),
    head: frozenset[str] = frozenset(),
) -> Mapping:
    """Map a trained network to fewer channels, with unlabelled images and without training.

    Channels are chosen by the covariances on the images, then by those of the weights, then by exchanging some channels in
    some spaces of the better choice. The result is the choice whose outputs are nearest to the source's (Kullback-Leibler
    divergence).

    Parameters
    ----------
    model, source
        The trained network and its structure; random choices have to be fixed by the caller.
    target_model, target
        The narrow network, with its alphas set, and its structure; it is not changed.
    images
        A few hundred images in the shape that both networks take, batch first.
    correspondence
        Correspondence of the two networks; None to find it.
    tries
        Number of choices of channels to compare; only the first is tried if outputs cannot be compared (other classes).
    rows
        Outputs kept per layer, see :func:`~nni_warmstart.mapping.regression.observe`.
    skip
        Target tensors that are left out.
    head
        Tensors of a classifier that is left out of the result, but takes part in the comparison.

    Returns
    -------
    Mapping
        Mapping with the fitted tensors, batch-norm statistics included.
    """
    # Observe the source on the images.
    found = match_modules(target, source) if correspondence is None else correspondence
    state = {name: tensor.detach().cpu() for name, tensor in tensors_of(model).items()}
    seen = observe(model, images, rows=rows)
    share = regressing(seen.covariances)
    generator = torch.Generator().manual_seed(0)  # draws the exchanges
    trial = copy.deepcopy(target_model)
    best: Mapping | None = None
    nearest = float('inf')
    for turn in range(max(tries, 1)):
        # Choose channels: by images, by weights, then by changing the best choice.
        if turn < 2 or best is None:
            couple = selecting(state, source, weight_covariances(state, source) if turn else seen.covariances)
        else:
            couple = _exchanged(best, generator)
        # Map and fit the weights, and keep the choice with the nearest outputs.
        mapping = map_tensors(state, source, target, couple=couple, share=share, skip=skip, correspondence=found)
        trial.load_state_dict(target_model.state_dict())
        fitted, distance = _fitted(mapping, trial, target, source, seen, images, rows)
        if distance < nearest or best is None:
            kept = {name: fitted[name] for name in mapping.tensors if name not in head}
            best, nearest = replace(mapping, tensors=kept), distance
        if distance == float('inf'):
            break
    assert best is not None
    return best


def _fitted(
    mapping: Mapping, model: nn.Module, target: Structure, source: Structure, seen: Seen, images: Tensor, rows: int
) -> tuple[dict[str, Tensor], float]:
    """Fit the network in place; return its state and the divergence of its outputs from the source's."""
    model.load_state_dict(mapping.tensors, strict=False)
    outputs = regress_layers(model, mapping, target, source, seen, images, rows=rows)
    state = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    if outputs.shape != seen.outputs.shape:
        return state, float('inf')
    logs, expected = (each.double().log_softmax(1) for each in (outputs, seen.outputs))
    return state, float(F.kl_div(logs, expected, reduction='batchmean', log_target=True))


def _exchanged(mapping: Mapping, generator: torch.Generator) -> Couple:
    """Make the couplings of a mapping, with a quarter of the channels exchanged in about half of the shrinking spaces."""

    def couple(source_space: ChannelSpace, target_space: ChannelSpace) -> Tensor:
        coupling = mapping.couplings.found[target_space.index, source_space.index].clone()
        spare = (coupling.sum(1) == 0).nonzero().squeeze(1)
        if len(spare) and torch.rand((), generator=generator) < 0.5:
            count = min(max(coupling.shape[1] // 4, 1), len(spare))
            columns = torch.randperm(coupling.shape[1], generator=generator)[:count]
            coupling[:, columns] = 0.0
            coupling[spare[torch.randperm(len(spare), generator=generator)[:count]], columns] = 1.0
        return coupling

    return couple
