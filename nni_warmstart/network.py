"""The found network: one architecture of a space, frozen, with its weights; as a file, and in formats that others read."""

from __future__ import annotations

import copy
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from . import introspect, spaces, storage
from .errors import ConfigError, SupernetFileError, TransferError, reason
from .frozen import freeze, has_cells, take_over
from .mapping import batchnorm
from .mapping.modes import modes_kept
from .supernet import Supernet

FORMATS = {'pt2': (), 'onnx': ('onnx', 'onnxscript')}
"""What :func:`export` writes, and the packages that it needs."""

OLDEST = {'pt2': (2, 2), 'onnx': (2, 6)}
"""Of torch, by format."""

_KEY = 'network'

_KINDS: dict[str, type] = {
    'space': dict, 'architecture': dict, 'pictures': list, 'mean': list, 'std': list, 'class_names': list, 'history': dict,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A trained network, as data.

    Attributes
    ----------
    space
        ``{'name', 'arguments'}`` of the registered or hub space, or ``{'class'}`` of a user's own.
    architecture
        Label of a choice -> what was chosen.
    tensors
        Parameters and buffers by name.
    pictures
        (channels, side) of what it classifies.
    mean, std
        Per channel, by which pictures are normalised first, in their own units.
    class_names
        In the order of the outputs.
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
        """The network with its weights, in evaluation mode; a space of your own is passed in, fresh.

        Raises
        ------
        TransferError
            If the space is unknown or does not fit.
        """
        if space is None:
            if 'name' not in self.space:
                raise TransferError(
                    f'the network was found in {self.space.get("class")}, and a file never chooses what code runs: pass '
                    'that space yourself, build(space=YourSpace()).'
                )
            try:
                space = spaces.rebuilt(self.space)
            except ConfigError as error:
                raise TransferError(f'the space of the network cannot be rebuilt: {error}') from error
        network = freeze(space, self.architecture)
        try:
            network.load_state_dict(self.tensors)
        except RuntimeError as error:
            raise TransferError(f'the network does not fit {type(space).__name__}: {reason(error)}') from error
        return network.eval()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, the weights under their own names, the rest as JSON in its metadata; atomically."""
        card = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != 'tensors'}
        storage.write_atomic(path, storage.pack(self.tensors, {_KEY: storage.plain(card)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read what :meth:`save` wrote.

        Raises
        ------
        SupernetFileError
            If the file cannot be read, is damaged or of another kind.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise SupernetFileError(f'{path} cannot be read: {error.strerror}.') from error
        tensors, card = storage.unpack(data, str(path))
        if _KEY not in card:
            raise SupernetFileError(f'{path} holds a supernet, not a network; `nni-warmstart retrain` makes networks.')
        storage.check_kinds(card, {_KEY: dict}, str(path))
        storage.check_kinds(card[_KEY], _KINDS, str(path))
        if not spaces.is_description(card[_KEY]['space']):
            raise SupernetFileError(f'{path} has a malformed card: space names neither a class nor a name with arguments.')
        try:
            channels, side = card[_KEY]['pictures']
            return cls(tensors=tensors, **{**card[_KEY], 'pictures': (int(channels), int(side))})
        except (TypeError, ValueError, OverflowError) as error:
            raise SupernetFileError(f'{path} has a malformed card: {reason(error)}.') from error


def inherited(supernet: Supernet, architecture: dict[str, Any] | None = None, space: ModelSpace | None = None) -> nn.Module:
    """The network that ``supernet`` found (or another one of its space), with the supernet's weights.

    Parameters
    ----------
    supernet
        What the network is a part of.
    architecture
        Label of a choice -> what is chosen; None for the most probable one.
    space
        The user's own, fresh; None for that of the supernet's card.

    Raises
    ------
    TransferError
        If the space or the architecture does not fit, or the network has weights that the supernet has not.
    """
    fresh = copy.deepcopy(space)
    model = supernet.build(space)
    architecture = architecture or introspect.best_sample(model)
    if not has_cells(model):
        return freeze(model, architecture)
    network = freeze(spaces.rebuilt(supernet.space) if fresh is None else fresh, architecture)
    take_over(network, model, architecture)
    return network


def is_blind(network: nn.Module, pictures: tuple[int, int]) -> bool:
    """Whether all pictures (here noise of this size) get the same logits: no path leads through the network.

    By statistics of these pictures, where there is batch norm: with those of a fresh network, signals fade in deep ones.
    """
    channels, side = pictures
    noise = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    network = copy.deepcopy(network).eval()
    for norm in batchnorm.batch_norms(network):
        norm.train()
    with torch.no_grad():
        first, second = network(noise)
    return torch.equal(first, second)


def export(network: nn.Module, path: str | os.PathLike[str], example: Tensor) -> Path:
    """Write the network for programs that know nothing of NNI; any number of pictures at once.

    Parameters
    ----------
    network
        Taken in evaluation mode.
    path
        ``NAME.pt2`` for ``torch.export.load``, or ``NAME.onnx``.
    example
        Pictures ``(n, channels, height, width)``, n at least 2.

    Raises
    ------
    ConfigError
        If the ending is unknown, a package is missing, or the network cannot be exported.
    """
    path = Path(path)
    kind = path.suffix.lstrip('.')
    check_format(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    dynamic: Any = ({0: torch.export.Dim('pictures', min=1)},)
    try:
        with modes_kept(network), torch.no_grad():
            network.eval()
            if kind == 'pt2':
                torch.export.save(torch.export.export(network, (example,), dynamic_shapes=dynamic), part)
            else:
                torch.onnx.export(
                    network, (example,), part, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False
                )
        os.replace(part, path)
    except Exception as error:  # torch's exporters raise many kinds of their own
        part.unlink(missing_ok=True)
        why = reason(error)[:300]
        raise ConfigError(f'{type(network).__name__} cannot be exported as {kind}: {why}') from error
    return path


def check_format(kind: str) -> None:
    """Refuse a format that :func:`export` does not know, or lacks a package for."""
    if kind not in FORMATS:
        raise ConfigError(f'format {kind!r} is unknown; choose {" or ".join(FORMATS)}.')
    oldest, here = OLDEST[kind], tuple(map(int, torch.__version__.split('.')[:2]))
    if here < oldest:
        raise ConfigError(f'{kind} files need torch {".".join(map(str, oldest))} or newer; this is {torch.__version__}.')
    missing = [package for package in FORMATS[kind] if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"{kind} files need {' and '.join(missing)}: pip install 'nni-warmstart[onnx]'.")
