"""All schemes by which pretrained networks are named; a new one is a file beside this one and a line here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from torch import nn

from ...errors import ConfigError, TransferError
from ...utils.checks import suggestion
from ..supernet import Supernet
from . import functions, timm_models, torchvision_models
from .base import Pretrained, Scheme
from .images import take_standardised
from .weights import give_weights, read_weights

SCHEMES: dict[str, Scheme] = {
    'torchvision': torchvision_models.SCHEME,
    'timm': timm_models.SCHEME,
    'python': functions.SCHEME,
}
"""Schemes by the beginning of a name: ``torchvision:mobilenet_v3_large``."""

FORMS = 'torchvision:NAME, timm:NAME or python:package.module:function, with @FILE.safetensors for weights of your own'
"""Names of networks, for errors and help."""


def is_named(source: Any) -> TypeGuard[str]:
    """Check whether a source is the name of a pretrained network."""
    return isinstance(source, str) and ':' in source and source.partition(':')[0] in SCHEMES


def read(word: str, *, download: bool = False) -> Pretrained:
    """Read the network of a name.

    Parameters
    ----------
    word
        ``torchvision:NAME``, ``timm:NAME`` or ``python:package.module:function``; ``@FILE.safetensors`` at its end takes the
        weights of a file, ``@IMAGENET1K_V1`` those of torchvision with this name.
    download
        Whether published weights that are not on the disk may be fetched.

    Raises
    ------
    ConfigError
        If there is no such network, or its package is not installed.
    SupernetFileError
        If its weights are not on the disk and may not be fetched, or cannot be read, or are a pickle.
    TransferError
        If the weights do not fit the network.
    """
    scheme, name, weights = _parts(word)
    if not name or scheme not in SCHEMES:
        raise ConfigError(f'source {word!r} names no network: write {FORMS}.{hint(word)}')
    if not is_file(scheme, weights):
        return SCHEMES[scheme].read(name, weights, download)
    network, path = SCHEMES[scheme].make(name), os.path.expanduser(weights)
    give_weights(network, read_weights(path), path)
    return Pretrained(network, name.rpartition(':')[2], facts={'origin': f'{scheme}:{name}@{os.path.basename(path)}'})


def named_network(
    word: str,
    *,
    input_shape: Sequence[int] | int | None = None,
    name: str | None = None,
    licence: str | None = None,
    download: bool = False,
) -> Supernet:
    """Return the network of a name as a source; what its publishers say of it goes into the card.

    It takes standardised images, as the supernets of this package do; see
    :func:`~nni_warmstart.supernets.pretrained.images.take_standardised`.

    Parameters
    ----------
    word, download
        Same as in :func:`read`.
    input_shape
        Shape of an image, ``(channels, height, width)``, or its size in pixels alone; None for that on which the network was
        trained, where it is known.
    name
        Name of the entry; None for that of the network.
    licence
        Licence of the weights; None for the one that is published with them, if any.

    Raises
    ------
    WarmStartError
        If the network cannot be read, or cannot be a source; see :func:`read` and
        :meth:`~nni_warmstart.Supernet.from_network`.
    """
    found = read(word, download=download)
    if isinstance(input_shape, int):
        channels = _channels(found.network) if found.input_shape is None else found.input_shape[0]
        input_shape = (channels, input_shape, input_shape)
    shape = input_shape or found.input_shape
    if shape is None:
        raise TransferError(
            f'{word} does not tell on which images it was trained; give their size in pixels (input_shape=, or --image-size '
            'of zoo import).'
        )
    if 'normalisation' in found.facts:
        take_standardised(found.network, found.facts['normalisation'])
    facts = found.facts if licence is None else {**found.facts, 'licence': licence}
    names = list(found.class_names) or None
    return Supernet.from_network(found.network, name=name or found.name, input_shape=shape, class_names=names, history=facts)


def is_file(scheme: str, weights: str) -> bool:
    """Check whether the weights in a name are a file, and not published ones by their name."""
    return bool(weights) and (scheme == 'python' or '.' in weights or os.sep in weights)


def beside(base: Path, word: str) -> str:
    """Return a name whose file of weights, if it has one, starts at the folder ``base``."""
    scheme, name, weights = _parts(word)
    return f'{scheme}:{name}@{base / os.path.expanduser(weights)}' if is_file(scheme, weights) else word


def hint(word: str) -> str:
    """Return ' Did you mean ...?' for a word that is no name, but nearly one; else nothing."""
    scheme, colon, rest = word.partition(':')
    if colon:
        return suggestion(scheme, SCHEMES).replace('?', f':{rest}?')
    return suggestion(word, torchvision_models.names()).replace('mean ', 'mean torchvision:')


def _parts(word: str) -> tuple[str, str, str]:
    """Return the scheme, the name and the weights ('' for none) of a word."""
    scheme, _, rest = word.partition(':')
    name, _, weights = rest.partition('@')
    return scheme, name, weights


def _channels(network: nn.Module) -> int:
    """Return the number of channels of the images that a network takes, as its first convolution tells."""
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
