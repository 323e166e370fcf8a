"""Scheme ``torchvision:``: the classifiers of torchvision, with the weights that are published for them."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import pickle
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from ...errors import UNREADABLE, ConfigError, SupernetFileError, reason
from ...utils.checks import suggestion
from ...utils.deadline import silence_limited
from ...utils.limits import Budget
from ...utils.text import enumerated
from ..file_format import read_bytes
from .base import Pretrained, Scheme
from .images import normalisation
from .weights import give_weights

_HASH = re.compile(r'-([0-9a-f]{8,})\.\w+$')


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    import torchvision.models

    return torchvision.models.list_models(module=torchvision.models)


def _check_name(name: str) -> None:
    known = names()
    if name not in known:
        raise ConfigError(
            f'torchvision has no classifier {name!r}.{suggestion(name, known) or f" It has {enumerated(known)}."}'
        )


def make(name: str, **arguments: Any) -> nn.Module:
    """Make a classifier of torchvision with random weights.

    Raises
    ------
    ConfigError
        If torchvision has none of this name.
    """
    import torchvision.models

    _check_name(name)
    return torchvision.models.get_model(name, weights=None, **arguments)


def read(name: str, weights: str, download: bool) -> Pretrained:
    """Read a classifier of torchvision with published weights, the best ones where they are not named.

    Raises
    ------
    ConfigError
        If torchvision has no such classifier, or no such weights for it.
    SupernetFileError
        If the weights are not on the disk and may not be fetched, or cannot be, or their file is damaged.
    """
    import torchvision.models

    _check_name(name)
    published = torchvision.models.get_model_weights(name)
    if weights and weights not in published.__members__:
        known = ', '.join(each.name for each in published)
        raise ConfigError(f'torchvision:{name} has no weights {weights!r}; it has {known}.')
    chosen: Any = published[weights or 'DEFAULT']
    path = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(urlparse(chosen.url).path))
    if not os.path.isfile(path):
        if not download:
            raise SupernetFileError(
                f'the weights of torchvision:{name} are not on the disk: there is no {path}; put the file there, or let it '
                'be fetched (download: true in the strategy, download=True in Python, --download of zoo import).'
            )
        _fetch(chosen.url, path)
    classes = [str(each) for each in chosen.meta['categories']]
    network = make(name, num_classes=len(classes))
    give_weights(network, read_published(path), path)
    images = chosen.transforms()
    mean, std = images.mean, images.std
    if hasattr(network, 'transform_input'):  # of Inception: with published weights, torchvision normalises once more
        mean, std = [0.5] * 3, [0.5] * 3
    facts = {
        'origin': f'torchvision:{name}@{chosen.name}',
        'dataset': next(iter(chosen.meta.get('_metrics', {})), None),
        'licence': chosen.meta.get('license'),
        'normalisation': normalisation(mean, std),
    }
    size = images.crop_size[0]
    return Pretrained(
        network, name, (3, size, size), classes, {key: fact for key, fact in facts.items() if fact is not None}
    )


def read_published(path: str) -> Mapping[str, Tensor]:
    """Read the tensors of a file that torchvision publishes.

    These files are pickles. Only this reader takes one, of a name that torchvision itself gives and in its own folder: its
    checksum has to begin as the name says, so that it is the published file and whole, and torch's restricted unpickler
    makes nothing but tensors and plain containers of it. It reads from memory, because from a file versions of torch before
    2.6 take a tar archive for one that they unpickle without restriction (CVE-2025-32434).

    Raises
    ------
    SupernetFileError
        If it is damaged, or takes more memory than the limit.
    """
    data = read_bytes(path, Budget(path, SupernetFileError))
    wanted = _HASH.search(path)
    if wanted and not hashlib.sha256(data).hexdigest().startswith(wanted[1]):
        raise SupernetFileError(
            f'{path} is damaged: its checksum does not begin with {wanted[1]}; remove it and fetch it again.'
        )
    try:
        state = torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)
    except (*UNREADABLE, pickle.UnpicklingError) as error:
        raise SupernetFileError(f'{path} holds no plain weights ({reason(error)[:200]}).') from error
    if not isinstance(state, Mapping) or not all(isinstance(each, Tensor) for each in state.values()):
        raise SupernetFileError(f'{path} holds no plain weights, but a {type(state).__name__}.')
    return state


def _fetch(url: str, path: str) -> None:
    wanted = _HASH.search(path)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with silence_limited():
            torch.hub.download_url_to_file(url, path, wanted[1] if wanted else None, progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise SupernetFileError(f'{url} cannot be fetched ({reason(error)}); put its file at {path}.') from error


SCHEME = Scheme(make=make, read=read)
