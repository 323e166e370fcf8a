"""Scheme ``timm:``: the classifiers of timm (PyTorch Image Models), with the weights that are published for them."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...errors import REFUSALS, ConfigError, SupernetFileError, reason
from ...utils.checks import suggestion
from ...utils.deadline import silence_limited
from ...utils.importing import optional
from .base import Pretrained, Scheme
from .images import normalisation
from .weights import give_weights, read_weights

_FILE = 'model.safetensors'


def make(name: str) -> nn.Module:
    """Make a classifier of timm with random weights.

    Raises
    ------
    ConfigError
        If timm is not installed, or has none of this name.
    """
    timm = optional('timm', 'timm')
    architecture, _, tag = name.partition('.')
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained(f'{architecture}.*')):
        known = timm.list_pretrained(f'{architecture}.*') or timm.list_models()
        raise ConfigError(f'timm has no network {name!r}.{suggestion(name, known)}')
    return timm.create_model(name, pretrained=False)


def read(name: str, weights: str, download: bool) -> Pretrained:
    """Read a classifier of timm with published weights; they are named after a dot: ``mobilenetv3_large_100.ra_in1k``.

    Raises
    ------
    ConfigError
        If timm is not installed, or has no such network.
    SupernetFileError
        If the weights are published as a pickle only, are not on the disk and may not be fetched, or cannot be, or their
        file is damaged.
    """
    if weights:
        raise ConfigError(f'source timm:{name}@{weights}: timm names weights after a dot, and a file ends in .safetensors.')
    network = make(name)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    path = _on_disk(name, config, download)
    give_weights(network, read_weights(path), path)
    shape = tuple(config['input_size'])
    tagged = [config['architecture'], config.get('tag')]
    facts = {
        'origin': f'timm:{".".join(filter(None, tagged))}',
        'licence': config.get('license'),
        'normalisation': normalisation(config['mean'], config['std']),
    }
    return Pretrained(network, name, shape, (), {key: fact for key, fact in facts.items() if fact is not None})


def _on_disk(name: str, config: dict[str, Any], download: bool) -> str:
    """Return the path of the weights in the cache of the hub, from which timm takes them as well."""
    hub = optional('huggingface_hub', 'timm')
    repository = config.get('hf_hub_id')
    if not repository:
        raise SupernetFileError(f'timm publishes no safetensors file of {name!r}; choose another network.')
    found = hub.try_to_load_from_cache(repository, _FILE)
    if isinstance(found, str):
        return found
    if not download:
        cache = optional('huggingface_hub.constants', 'timm').HF_HUB_CACHE
        raise SupernetFileError(
            f'the weights of timm:{name} are not on the disk: there is no {_FILE} of {repository} in {cache}; let it be '
            'fetched (download: true in the strategy, download=True in Python, --download of zoo import), or name a file of '
            f'your own, timm:{name}@FILE.safetensors.'
        )
    try:
        with silence_limited():
            return hub.hf_hub_download(repository, _FILE)
    except (OSError, *REFUSALS) as error:
        raise SupernetFileError(f'{_FILE} of {repository} cannot be fetched ({reason(error)[:200]}).') from error


SCHEME = Scheme(make=make, read=read)
