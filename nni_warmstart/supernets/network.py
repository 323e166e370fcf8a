"""The found network: one architecture of a space, frozen, with its weights, as data and as a file."""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from ..errors import SupernetFileError, TransferError, reason
from ..nni_adapter import batchnorm
from ..nni_adapter.architectures import best_sample
from ..nni_adapter.freezing import freeze, has_cells, take_over
from ..nni_adapter.model_spaces import rebuilt
from ..utils.files import plain, write_atomic
from ..utils.limits import Budget
from ..utils.modules import untold_state
from .card import NETWORK, check_kinds, is_description, malformed_fields
from .file_format import pack, read_bytes, unpack
from .history import malformed_pictures
from .loading import resize_joint_head, space_named_by
from .supernet import Supernet

_KINDS: dict[str, type] = {
    'space': dict, 'architecture': dict, 'pictures': list, 'mean': list, 'std': list, 'class_names': list, 'history': dict,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A trained network, as data.

    Attributes
    ----------
    space
        ``{'name', 'arguments'}`` of the registered or hub space, or ``{'class'}`` of a user's own space.
    architecture
        Label of a choice -> chosen candidate or value.
    tensors
        Parameters and buffers by name.
    pictures
        Channels and size (pixels) of the images that it classifies.
    mean, std
        Mean and standard deviation of each channel, by which images are normalised first, in the units of the images.
    class_names
        Names of the classes, in the order of the outputs.
    history
        Free-form record.
    """

    space: dict[str, Any]
    architecture: dict[str, Any]
    tensors: dict[str, Tensor]
    pictures: tuple[int, int]
    mean: list[float]
    std: list[float]
    class_names: list[str]
    history: dict[str, Any]

    def build(self, space: ModelSpace | None = None) -> nn.Module:
        """Return the network with its weights, in evaluation mode; pass a fresh instance of a space without a name.

        Raises
        ------
        TransferError
            If the space is unknown or does not fit.
        """
        if space is None:
            space = space_named_by(self.space, self.tensors, 'the network', 'was found in')
        network = freeze(space, self.architecture)
        try:
            network.load_state_dict({**untold_state(network), **self.tensors})
        except RuntimeError as error:
            raise TransferError(f'the network does not fit {type(space).__name__}: {reason(error)}') from error
        return network.eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file atomically: weights under their own names, the rest as JSON in its metadata."""
        card = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != 'tensors'}
        write_atomic(path, pack(self.tensors, {NETWORK: plain(card)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        SupernetFileError
            If the file cannot be read, is damaged or of another kind.
        """
        budget = Budget(str(path), SupernetFileError)
        tensors, card = unpack(read_bytes(path, budget), str(path), budget)
        if NETWORK not in card:
            raise SupernetFileError(f'{path} holds a supernet, not a network; `nni-warmstart retrain` makes networks.')
        check_kinds(card, {NETWORK: dict}, str(path))
        check_kinds(card[NETWORK], _KINDS, str(path))
        if not is_description(card[NETWORK]['space']):
            raise SupernetFileError(f'{path} has a malformed card: space names neither a class nor a name with arguments.')
        wrong = _malformed(card[NETWORK])
        if wrong is not None:
            raise SupernetFileError(f'{path} has a malformed card: {wrong}.')
        try:
            return cls(tensors=tensors, **{**card[NETWORK], 'pictures': tuple(card[NETWORK]['pictures'])})
        except TypeError as error:
            raise SupernetFileError(f'{path} has a malformed card: {reason(error)}.') from error


def _malformed(card: dict[str, Any]) -> str | None:
    """Return the fault of a card whose parts are of the right kinds; None if it has none."""
    wrong = malformed_pictures(card['pictures'])
    if wrong is not None:
        return wrong
    for key in ('mean', 'std'):
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in card[key])
        if not numbers or len(card[key]) != card['pictures'][0]:
            return f'{key} = {repr(card[key])[:60]}, which is not a number for each of {card["pictures"][0]} channels'
    return malformed_fields(card)


def inherited(supernet: Supernet, architecture: dict[str, Any] | None = None, space: ModelSpace | None = None) -> nn.Module:
    """Return the network that ``supernet`` found (or another one of its space), with the supernet's weights.

    Parameters
    ----------
    supernet
        Supernet that contains the network.
    architecture
        Label of a choice -> chosen candidate or value; None for the most probable architecture.
    space
        Fresh model space; None for the space named in the supernet's card.

    Raises
    ------
    TransferError
        If the space or the architecture does not fit, or the network has weights that the supernet lacks.
    """
    fresh = copy.deepcopy(space)
    model = supernet.build(space)
    architecture = architecture or best_sample(model)
    if not has_cells(model):
        return freeze(model, architecture)
    network = freeze(rebuilt(supernet.space) if fresh is None else fresh, architecture)
    if supernet.datasets:
        resize_joint_head(network, supernet.tensors)
    take_over(network, model, architecture)
    return network


def is_blind(network: nn.Module, image_shape: tuple[int, int]) -> bool:
    """Check whether all images get the same logits, because no path leads through the network.

    The images are noise of shape ``image_shape`` (channels, pixels). Batch norm uses their statistics: with those of a fresh
    network, signals fade in deep networks.
    """
    channels, image_size = image_shape
    noise = torch.randn(2, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
    network = copy.deepcopy(network).eval()
    for norm in batchnorm.batch_norms(network):
        norm.train()
    with torch.no_grad():
        first, second = network(noise)
    return torch.equal(first, second)
