"""Loading of a supernet's tensors into a mutated space, with errors that name the tensor that does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import TransferError, reason
from ..nni_adapter.classifier import resize_head


def load_into(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Give a mutated space the tensors of a supernet.

    Parameters
    ----------
    model
        Mutated space, changed in place.
    state
        All tensors of the supernet by their names in the space.
    name
        Name of the supernet, for errors.

    Raises
    ------
    TransferError
        If the space has other tensors, or cannot hold the values.
    """
    own = model.state_dict()
    for tensor in state.keys() | own.keys():
        in_file, in_space = (tuple(each[tensor].shape) if tensor in each else None for each in (state, own))
        if in_file != in_space:
            raise TransferError(
                f'supernet {name!r} does not fit this space: tensor {tensor!r} has shape {in_file} in the file and '
                f'{in_space} in the space; use transfer() to map one space onto another.'
            )
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:  # values that a parameter cannot hold
        raise TransferError(f'supernet {name!r} does not fit this space: {reason(error)}') from error


def resize_joint_head(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the classifier as many rows as the heads of all datasets have together, which take its place in ``state``."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    stored = {name: state.get(f'{name}.weight') for name in linears}
    rows = {name: len(weight) for name, weight in stored.items() if weight is not None and weight.ndim == 2}
    other = [name for name, number in rows.items() if number != linears[name].out_features]
    if len(other) == 1:  # with more it is another space; the comparison of tensors says so
        resize_head(model, rows[other[0]], other[0])
