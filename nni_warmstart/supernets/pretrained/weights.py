"""Weights of a network: safetensors files, and tensors that have to fit the network."""

from __future__ import annotations

import os
from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...errors import SupernetFileError, TransferError, reason
from ...utils.limits import Budget
from ..file_format import read_bytes
from ..pickles import is_pickle, refusal


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises
    ------
    SupernetFileError
        If it cannot be read, is a pickle or damaged, or takes more memory than the limit.
    """
    data = bytes(read_bytes(path, Budget(str(path), SupernetFileError)))
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError for types of numbers that this torch lacks
        if is_pickle(data):
            raise SupernetFileError(refusal(path)) from error
        raise SupernetFileError(f'{path} is not a safetensors file, or damaged ({reason(error)}).') from error


def give_weights(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Give a network its weights, in place.

    Parameters
    ----------
    network
        Network, with random weights.
    state
        Tensors by the names that they have in the network.
    origin
        Name of the file in errors.

    Raises
    ------
    TransferError
        If the network has other tensors; the message names the first.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(own.keys() | given.keys()):
        counts = name.endswith('num_batches_tracked') and name not in given  # which older files lack
        if own.get(name) != given.get(name) and not counts:
            raise TransferError(
                f'{origin} does not fit {type(network).__name__}: {name!r} has shape {given.get(name)} in the file and '
                f'{own.get(name)} in the network; name a function of yours that builds the network of these weights: '
                'python:package.module:function@FILE.'
            )
    network.load_state_dict(dict(state))
