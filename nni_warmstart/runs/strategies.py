"""Section ``strategy:`` of a file: its settings, which are the arguments of a class, and the strategy made from them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from ..errors import ConfigError, WarmStartError
from ..nni_adapter.cost_penalty import CostPenalty
from ..nni_adapter.cost_profiler import KINDS, CostProfiler
from ..search.strategies import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from ..supernets.pretrained import registry
from ..utils.checks import Expected, Range, expectations
from ..warm_start.settings import TransferSettings
from .settings import NamedConfig, checked, known, named, near

_CLASSES = (WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless)

STRATEGIES: dict[str, type[WarmStartDARTS]] = {
    **{cls.__name__.removeprefix('WarmStart'): cls for cls in _CLASSES},
    **{cls.__name__: cls for cls in _CLASSES},
}
"""Strategies by name. NNI's own names start cold: they validate and report like ours, with results equal to NNI's."""

_NNIS = {
    'gradient_clip_val': Expected(float, Range(0), optional=True),
    'log_prob_every_n_step': Expected(int, Range(1)),
    'warmup_epochs': Expected(int, Range(0)),
}
"""Ranges of NNI's arguments, whose annotations have none."""

_CODE = ('self', 'kwargs', 'model_space', 'engine', 'mutation_hooks')
"""Arguments that cannot be given in a file."""


def strategy_arguments(cls: type[WarmStartDARTS]) -> dict[str, Expected | None]:
    """Return the arguments that a file can give to a strategy, ours and those of NNI's classes that it extends.

    The requirement is None for arguments that accept several plain types.
    """
    found: dict[str, Expected | None] = {}
    for base in cls.__mro__[:-1]:
        if '__init__' in vars(base):
            expected = expectations(base.__init__)
            for name in inspect.signature(base.__init__).parameters:
                if name not in _CODE:
                    found.setdefault(name, expected.get(name))
    return {**found, **_NNIS}


_OF_TRANSFER = tuple(each.name for each in fields(TransferSettings) if each.name in strategy_arguments(WarmStartDARTS))
"""Settings of a warm start that are passed to the transfer."""

_WARM = ('source', 'zoo', 'download', *_OF_TRANSFER)
"""Settings of a warm start, which have no effect on strategies under NNI's own names."""


def parse_strategy(section: Mapping[str, Any]) -> NamedConfig:
    """Check the settings of a strategy.

    Raises
    ------
    ConfigError
        If a setting is wrong; the message names the key, the value and the remedy.
    """
    strategy = named(section, 'strategy')
    name, arguments = strategy.name, strategy.arguments
    if name not in STRATEGIES:
        raise ConfigError(f'strategy.name = {name!r} is unknown{near(name, STRATEGIES)}')
    expected = strategy_arguments(STRATEGIES[name])
    known(arguments, 'strategy', expected)
    for key, value in arguments.items():
        arguments[key] = _parsed(key, value, expected[key])
    try:
        TransferSettings(**{key: value for key, value in arguments.items() if key in _OF_TRANSFER})
    except WarmStartError as error:
        raise ConfigError(f'strategy.{error}') from error
    if not name.startswith('WarmStart'):
        return NamedConfig(name, {key: value for key, value in arguments.items() if key not in _WARM})
    return strategy


def _parsed(key: str, value: Any, expected: Expected | None) -> Any:
    """Return a checked setting, in the form that the class takes."""
    if key == 'temperature':
        return _temperature(value)
    if key == 'penalty':
        return _penalty(value)
    if key == 'alpha':
        return _number(value) if isinstance(value, str) and value not in ('transfer', 'reset') else value
    if key == 'source' and value in ('none', 'None', ''):
        return None  # NNI's searchSpace has no null in a choice between null and a name
    if key == 'source' and isinstance(value, list):
        return [checked(item, f'strategy.source[{index}]', str) for index, item in enumerate(value)]
    if expected is None or (expected.optional and value is None):
        return value
    number = checked(value, f'strategy.{key}', expected.kind, expected.range)
    return value if isinstance(value, int) else number  # messages show a 2 as it was written


def _temperature(value: Any) -> dict[str, float]:
    """Parse the temperature of GumbelDARTS: one for all epochs, or the first and the last."""
    ends = value if isinstance(value, Mapping) else {'init': value, 'min': value}
    if ends.keys() != {'init', 'min'}:
        raise ConfigError(f'strategy.temperature = {value!r}, but it must be a number, or {{init: ..., min: ...}}.')
    first, last = (checked(ends[key], 'strategy.temperature', float, Range(0.01)) for key in ('init', 'min'))
    if first < last:
        raise ConfigError(f'strategy.temperature falls from init to min, but {first} is less than {last}.')
    return {'init': first, 'min': last}


def _penalty(value: Any) -> dict[str, Any] | None:
    """Check the settings of a penalty on the cost of the found network: its kind, a target in its unit, and a weight."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not {'cost', 'target'} <= value.keys():
        form = f'{{cost: {" | ".join(KINDS)}, target: NUMBER}}'
        raise ConfigError(f'strategy.penalty = {value!r}, but it must be {form}, and may have a weight.')
    known(value, 'strategy.penalty', ('cost', 'target', 'weight'))
    if value['cost'] not in KINDS:
        raise ConfigError(f'strategy.penalty.cost = {value["cost"]!r} is unknown; choose one of {", ".join(KINDS)}.')
    target = checked(value['target'], 'strategy.penalty.target', float, Range(1e-6, 1e15))
    weight = checked(value.get('weight', 1.0), 'strategy.penalty.weight', float, Range(0))
    return {'cost': value['cost'], 'target': target, 'weight': weight}


def _number(value: str) -> Any:
    """Convert text to a number, such as 5e-1; return other text unchanged, for a later check to refuse."""
    try:
        return float(value)
    except ValueError:
        return value


def make_penalty(config: NamedConfig, space: ModelSpace, image: Tensor) -> CostPenalty | None:
    """Make the penalty on costs that a strategy has in a file, with the costs of a space for an image; None for none."""
    given = config.arguments.get('penalty')
    if given is None:
        return None
    try:
        return CostPenalty(CostProfiler(space, image, given['cost']), given['target'], given['weight'])
    except ConfigError as error:
        raise ConfigError(f'strategy.penalty cannot be used: {error}') from error


def make_strategy(config: NamedConfig, base: Path, penalty: CostPenalty | None = None) -> WarmStartDARTS:
    """Make the strategy, with a penalty where it is to train; relative paths start at ``base``.

    Raises
    ------
    ConfigError
        If NNI's strategy refuses its arguments.
    """
    arguments = dict(config.arguments)
    if 'penalty' in arguments:
        arguments['penalty'] = penalty
    for key in ('source', 'zoo', 'save_to'):
        value = arguments.get(key)
        if isinstance(value, list):
            arguments[key] = [_beside(base, item, key) for item in value]
        elif isinstance(value, str):
            arguments[key] = _beside(base, value, key)
    try:
        return STRATEGIES[config.name](**arguments)
    except WarmStartError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f'strategy {config.name} cannot be made with {arguments}: {str(error).rstrip(".")}.') from error


def _beside(base: Path, value: str, key: str) -> str:
    if key == 'source' and registry.is_named(value):
        return registry.beside(base, value)
    if '://' not in value and (key != 'source' or os.path.isfile(base / value)):
        return str(base / os.path.expanduser(value))
    return value
