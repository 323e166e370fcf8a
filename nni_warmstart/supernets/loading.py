"""Making of a space from its card, and loading of tensors into it, with errors that name what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from ..errors import ConfigError, TransferError, reason
from ..nni_adapter.classifier import resize_head
from ..nni_adapter.model_spaces import rebuilt
from ..utils.construction import Bounded
from ..utils.modules import tensors_of, untold_state


def space_named_by(description: Mapping[str, Any], tensors: Mapping[str, Tensor], owner: str, relation: str) -> ModelSpace:
    """Make the model space that a card describes, if it has a name.

    Parameters
    ----------
    description
        Name and arguments of a registered or hub space, or the class of another one.
    tensors
        Tensors that the space is to hold; one that would be far larger is not made.
    owner, relation
        What the card is of, and what it has to do with the space, for errors: "supernet 'a'", 'was trained on'.

    Raises
    ------
    TransferError
        If the space has no name, or cannot be made.
    """
    if 'name' not in description:
        raise TransferError(
            f'{owner} {relation} {description.get("class")}, and a file never chooses what code runs: pass that space '
            'yourself, build(space=YourSpace()).'
        )
    try:
        with Bounded(tensors.values(), description['arguments']):
            return rebuilt(dict(description))
    except (ConfigError, TransferError) as error:
        raise TransferError(f'the space of {owner} cannot be rebuilt: {error}') from error


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
    own = tensors_of(model)
    for tensor in state.keys() | own.keys():
        in_file, in_space = (tuple(each[tensor].shape) if tensor in each else None for each in (state, own))
        if in_file != in_space:
            raise TransferError(
                f'supernet {name!r} does not fit this space: tensor {tensor!r} has shape {in_file} in the file and '
                f'{in_space} in the space; use transfer() to map one space onto another.'
            )
    try:
        model.load_state_dict({**untold_state(model), **state})
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
