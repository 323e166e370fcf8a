"""Projection of weights to other channels: W' = Q_out^T W R_in, with couplings of the output and of the input channels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import TransferError


def barycentric_projection(coupling: Tensor, source: Tensor) -> Tensor:
    r"""Average source rows at every target point, weighted by transported mass.

    For target point :math:`j` the result is :math:`\sum_i \Gamma_{ij} x_i / \sum_i \Gamma_{ij}`.

    Parameters
    ----------
    coupling
        Transported masses, shape ``(n_source, n_target)``, non-negative.
    source
        Rows to average, shape ``(n_source, ...)``.

    Returns
    -------
    Tensor
        Averaged rows, shape ``(n_target, ...)``, dtype of ``source``.

    Raises
    ------
    TransferError
        If some target point receives no mass.

    References
    ----------
    Ferradans et al., *Regularized Discrete Optimal Transport*, SIAM J. Imaging Sci. 7(3), 2014.
    """
    mass = coupling.sum(0)
    if (mass <= 0).any():
        starved = (mass <= 0).nonzero().squeeze(1).tolist()
        raise TransferError(f'target points {starved} receive no mass, so their projection is undefined.')
    return torch.tensordot((coupling / mass).to(source).T, source, 1)


def averaging(coupling: Tensor) -> Tensor:
    """Return Q, the coupling with columns that sum to one: a target channel is an average of source channels.

    One that is coupled to none of them is the average of all.
    """
    mass = coupling.sum(0, keepdim=True)
    return torch.where(mass > 0, coupling, 1.0) / torch.where(mass > 0, mass, len(coupling))


def sharing(coupling: Tensor) -> Tensor:
    """Return R, the coupling with rows that sum to one: weights on a source channel are shared out among the target's."""
    return coupling / coupling.sum(1, keepdim=True).clamp_min(1e-300)


def project(weight: Tensor, made: Tensor | None, read: Tensor | None, axes: tuple[int, int] = (0, 1)) -> Tensor:
    """Project the weights of a layer to other channels: ``W' = Q_out^T W R_in``.

    This is Net2Net (Chen, Goodfellow & Shlens, ICLR 2016) if the columns of both couplings have one entry each, and OTFusion
    (Singh & Jaggi, NeurIPS 2020) if the couplings are optimal transport.

    Parameters
    ----------
    weight
        Weights, of any number of dimensions.
    made
        Q of the output channels, shape ``(n_source, n_target)``; None for the identity.
    read
        R of the input channels, shape ``(n_source, n_target)``; None for the identity, or for no input channels.
    axes
        Dimensions of ``weight`` for output and input channels.
    """
    out = weight
    for matrix, axis in ((made, axes[0]), (read, axes[1])):
        if matrix is not None:
            out = _along(out, matrix.to(weight.device), axis)
    return out.contiguous()


def _along(weight: Tensor, matrix: Tensor, axis: int) -> Tensor:
    single = (matrix != 0).sum(0).max() <= 1  # every column has one entry: a copy, exact, and quicker than a product
    if single:
        value, index = matrix.max(0)
        taken = weight.index_select(axis, index)
        if (value == 1).all():
            return taken
        shape = [1] * weight.dim()
        shape[axis] = -1
        return (taken.double() * value.view(shape)).to(weight.dtype)
    product = matrix.to(weight.dtype).T @ weight.movedim(axis, 0).reshape(weight.size(axis), -1)
    return product.view(-1, *weight.movedim(axis, 0).shape[1:]).movedim(0, axis)


def project_groups(weight: Tensor, made: Tensor | None, read: list[Tensor | None], groups: int) -> Tensor:
    """Project the weights of a grouped convolution to an equal number of groups.

    Parameters
    ----------
    weight
        Weights, shape ``(n_out, n_in / groups, ...)``.
    made
        Q of all output channels; None for the identity.
    read
        R of the input channels of each group, shape ``(n_source / groups, n_target / groups)``; None for the identity.
    groups
        Number of groups.
    """
    blocks = weight.chunk(groups, 0)
    mixed = torch.cat([project(block, None, matrix) for block, matrix in zip(blocks, read, strict=True)])
    return project(mixed, made, None)


def project_regrouped(
    weight: Tensor, made: Tensor | None, read: Tensor | None, groups: int, target: tuple[int, int, int]
) -> Tensor:
    """Project the weights of a grouped convolution to another number of groups; weights across groups are lost.

    Nothing is lost if each group of the target has a copy of all input channels of its outputs, as with more groups of the
    same width.

    Parameters
    ----------
    weight
        Weights, shape ``(n_out, n_in / groups, ...)``.
    made
        Q of all output channels; None for the identity.
    read
        Coupling of all input channels, shape ``(n_source, n_target)``; None for the identity.
    groups
        Number of groups of the source.
    target
        Output channels, input channels, and groups of the target.
    """
    n_out, n_in, count = target
    made = torch.eye(n_out, dtype=torch.float64) if made is None else made
    read = torch.eye(n_in, dtype=torch.float64) if read is None else read
    whole = weight.new_zeros(len(weight), groups * weight.shape[1], *weight.shape[2:])
    for group, block in enumerate(weight.chunk(groups, 0)):
        rows = slice(group * len(block), (group + 1) * len(block))
        whole[rows, group * weight.shape[1] : (group + 1) * weight.shape[1]] = block
    columns = zip(made.chunk(count, 1), read.chunk(count, 1), strict=True)
    return torch.cat([project(whole, out, sharing(into)) for out, into in columns])


def resize_kernel(
    weight: Tensor, size: tuple[int, ...], dilation: tuple[int, ...], source_dilation: tuple[int, ...]
) -> Tensor:
    """Resize kernels: taps keep their distance from the centre where the target has a tap at that distance.

    Growing pads with zeros and preserves the function (if the padding grows too), shrinking crops. If no tap but the centre
    coincides (another dilation), taps keep their order instead.

    Parameters
    ----------
    weight
        Kernels, shape ``(..., *kernel)``.
    size
        Size of the target's kernel.
    dilation, source_dilation
        Spacing of the taps in the target and in the source, in pixels.
    """
    for index, length in enumerate(size):
        axis = weight.dim() - len(size) + index
        step, other = dilation[index], source_dilation[index]
        if weight.size(axis) != length or step != other:
            weight = _resize(weight, axis, length, step, other)
    return weight


def _resize(weight: Tensor, axis: int, length: int, step: int, other: int) -> Tensor:
    target_taps = [step * (i - (length - 1) // 2) for i in range(length)]
    source_taps = [other * (i - (weight.size(axis) - 1) // 2) for i in range(weight.size(axis))]
    if len(set(target_taps) & set(source_taps)) <= 1 < min(len(target_taps), len(source_taps)):
        target_taps, source_taps = [offset // step for offset in target_taps], [offset // other for offset in source_taps]
    shape = list(weight.shape)
    shape[axis] = length
    result = weight.new_zeros(shape)
    for i, offset in enumerate(target_taps):
        if offset in source_taps:
            result.select(axis, i).copy_(weight.select(axis, source_taps.index(offset)))
    return result
