"""What a search has found, for its retraining: the architecture, and the data and space that it belongs to."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import REFUSALS, ConfigError, reason
from ..utils import costs
from ..utils.json_files import read_json
from .config import SearchConfig
from .folder import SEARCH, RunFolder, mapping_in
from .provenance import completed
from .settings import as_written, flat

_logger = logging.getLogger(__name__)


def search_of(run: Path) -> Path:
    """Return the folder of a search, for itself or for the pipeline that it is part of."""
    return run / SEARCH if (run / SEARCH / 'architecture.json').is_file() else run


def read_architecture(run: str | Path) -> dict[str, Any]:
    """Read the architecture that a search left.

    Raises
    ------
    ConfigError
        If the folder has no architecture.
    """
    path = Path(run) / 'architecture.json'
    try:
        return dict(read_json(path, ConfigError)['sample'])
    except OSError as error:
        raise ConfigError(f'{path} cannot be read ({error.strerror}); give the folder of a finished search.') from error
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} holds no architecture of `nni-warmstart search`.') from error


def costs_of(network: nn.Module, image_shape: tuple[int, int]) -> dict[str, Any] | None:
    """Return what a network costs for one image, or None, with a warning, for one that cannot be measured.

    Parameters
    ----------
    network
        Network, which is not changed.
    image_shape
        Channels and size (pixels) of its images.

    Returns
    -------
    dict
        ``parameters``; ``multiply_adds`` of its convolutions and linear layers; ``latency_ms`` and
        ``latency_ms_quartiles``, milliseconds on one thread of this CPU, which vary from run to run. See
        :mod:`nni_warmstart.utils.costs`.
    """
    channels, image_size = image_shape
    image = torch.zeros(1, channels, image_size, image_size)
    try:
        network = copy.deepcopy(network).cpu()
        median, *quartiles = costs.latency(network, image)
        return {
            'parameters': costs.parameters(network),
            'multiply_adds': costs.multiply_adds(network, image),
            'latency_ms': round(median, 4),
            'latency_ms_quartiles': [round(value, 4) for value in quartiles],
        }
    except REFUSALS as error:
        _logger.warning('The costs of the network are not known, since it cannot be measured: %s', reason(error)[:200])
        return None


def check_search(config: SearchConfig, data: Mapping[str, str], run: str | Path, changed: Iterable[str]) -> None:
    """Raise an error for settings under which the architecture of a search means another network, or learns other data.

    Space and data have to be those of the search, unless a setting was changed on purpose; then a warning says so.

    Parameters
    ----------
    config, data
        Settings of the retraining, and the fingerprint of its data.
    run
        Folder of the search. One of an older version, without its settings, is not compared.
    changed
        Dotted names of settings, or of their sections, that were changed on purpose.

    Raises
    ------
    ConfigError
        If a setting differs; the message names it.
    """
    folder, intended, told = RunFolder(Path(run)), tuple(changed), False
    settings = mapping_in(folder.settings, damaged='the settings of the search are not known')
    if not settings:
        return
    earlier = folder.earlier()
    searched = {} if earlier is None or not earlier.data else earlier.data
    given = completed(settings)
    of_data = given.get('data')
    if isinstance(of_data, Mapping) and of_data['cache_mb'] != config.data.cache_mb:
        searched, data = _without_images(searched), _without_images(data)  # only some are read of those not in memory
    now, before = _of_network(asdict(config)), _of_network(given)
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) == before.get(key) or (key.startswith('data.') and searched == data):
            continue
        if not any(f'{key}.'.startswith(f'{name}.') for name in intended):
            raise ConfigError(
                f'the search in {run} had {key} = {before.get(key)!r}, and this configuration has {now.get(key)!r}; give '
                f'that of the search, or say that you mean it with --set {key}=...'
            )
        _logger.warning('Retraining with %s = %r, where the search had %r.', key, now.get(key), before.get(key))
        told = True
    differing = [part for part in searched.keys() | data.keys() if searched.get(part) != data.get(part)]
    if searched and differing and not told:
        _logger.warning('The data have changed since the search in %s: %s.', run, ', '.join(sorted(differing)))


def _without_images(data: Mapping[str, str]) -> dict[str, str]:
    return {part: content for part, content in data.items() if not part.endswith('images')}


def _of_network(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide about the network and what it learns, by dotted name."""
    sections = {key: settings[key] for key in ('data', 'space') if isinstance(settings.get(key), Mapping)}
    plain = json.loads(json.dumps(sections, default=str))
    further = ('data.label', 'data.licence', 'data.flip', 'data.cache_mb')  # names, and ways to train and to read
    return {as_written(key): value for key, value in flat(plain).items() if key not in further and value is not None}
