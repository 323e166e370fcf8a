"""Freezing of a space or a supernet to one network, with the supernet's weights where NNI's own ``freeze`` drops them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingCell
from torch import Tensor, nn

from ..errors import REFUSALS, TransferError, reason
from ..utils.modules import tensors_of, untold_state
from .node_sums import renaming


def freeze(space: ModelSpace, architecture: dict[str, Any]) -> nn.Module:
    """Freeze ``space``, in place, to one network: a fresh space with fresh weights, a supernet with its own weights.

    Raises
    ------
    TransferError
        If the architecture is not one of this space, or NNI cannot freeze it.
    """
    try:
        with _without_missing_biases(space):
            return space.freeze(architecture)
    except REFUSALS as error:
        raise TransferError(
            f'{type(space).__name__} cannot be frozen to the architecture {architecture}: {reason(error)}'
        ) from error


def has_cells(model: nn.Module) -> bool:
    """Check whether a supernet has NNI's cells, which cannot be frozen: their spaces construct themselves anew instead."""
    return any(isinstance(module, PathSamplingCell) for module in model.modules())


def take_over(network: nn.Module, supernet: nn.Module, architecture: dict[str, Any]) -> None:
    """Copy the supernet's weights and statistics for an architecture to the frozen network, those of cells included.

    Raises
    ------
    TransferError
        If the network has a tensor that the supernet lacks, or has in another shape, for instance because widths are
        searched or a cell outputs its loose ends only.
    """
    source, target = _frozen_state(supernet, architecture), tensors_of(network)
    for name, tensor in target.items():
        if name not in source or source[name].shape != tensor.shape:
            has = f'has it as {tuple(source[name].shape)}' if name in source else 'has none'
            raise TransferError(
                f'{type(network).__name__} cannot inherit weights: of {name}, {tuple(tensor.shape)}, its supernet {has}; '
                'train it from scratch.'
            )
    network.load_state_dict({**untold_state(network), **{name: source[name] for name in target}})


def _frozen_state(supernet: nn.Module, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """Return the supernet's state by its names in the network: without ``blocks`` of repeats, and ops by number."""
    renamed = renaming(supernet)
    state = {renamed(name): tensor for name, tensor in tensors_of(supernet).items()}
    for path, cell in supernet.named_modules():
        if isinstance(cell, PathSamplingCell):
            for node, edges in enumerate(cell.ops):
                for number in range(cell.num_ops_per_node):
                    place = f'{node + cell.num_predecessors}_{number}'
                    (edge,) = architecture[f'{cell.label}/input_{place}']
                    op = architecture[f'{cell.label}/op_{place}']
                    weights = cast(Any, edges)[edge][op].state_dict(prefix=f'{renamed(path + ".")}ops.{node}.{number}.')
                    state |= weights
    return state


@contextmanager
def _without_missing_biases(model: nn.Module) -> Iterator[None]:
    """Let NNI freeze layers without bias: NNI 3.0 passes None for the bias to ``load_state_dict``, which refuses it."""
    layers = [module for module in model.modules() if isinstance(module, MixedOperation)]

    def without_none(freeze_weight: Any) -> Any:
        return lambda **arguments: {n: x for n, x in freeze_weight(**arguments).items() if isinstance(x, torch.Tensor)}

    for layer in layers:
        layer.freeze_weight = without_none(layer.freeze_weight)
    try:
        yield
    finally:
        for layer in layers:
            del layer.freeze_weight
