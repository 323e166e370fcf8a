"""search.yml as frozen dataclasses: unknown keys, wrong types and impossible values are errors that name the remedy."""

from __future__ import annotations

import copy
import difflib
import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from . import strategy as strategies
from .data import Task, digits, from_folder, from_npz, from_torchvision
from .errors import ConfigError, WarmStartError, reason

STRATEGIES: dict[str, type[strategies.WarmStartDARTS]] = {
    'DARTS': strategies.WarmStartDARTS,
    'GumbelDARTS': strategies.WarmStartGumbelDARTS,
    'Proxyless': strategies.WarmStartProxyless,
    'WarmStartDARTS': strategies.WarmStartDARTS,
    'WarmStartGumbelDARTS': strategies.WarmStartGumbelDARTS,
    'WarmStartProxyless': strategies.WarmStartProxyless,
}
"""Strategies by name. NNI's own names run cold; they validate and report like ours, and are NNI's to the bit."""

_STRATEGY_TYPES: dict[str, tuple[type, float | None, bool]] = {
    'source': (str, None, True),
    'zoo': (str, None, True),
    'save_to': (str, None, True),
    'head': (str, None, False),
    'keep': (float, 0, False),
    'noise': (float, 0, False),
    'untraceable': (str, None, False),
    'average': (float, 0, True),
    'arc_learning_rate': (float, 0, False),
    'gradient_clip_val': (float, 0, True),
    'log_prob_every_n_step': (int, 1, False),
    'warmup_epochs': (int, 0, False),
    'penalty': (dict, None, True),
    'parameter_free_cap': (int, 0, True),
    'stop_on_eigenvalue': (bool, None, False),
}
"""Settings of a strategy: type, least value, whether null is allowed."""

_MOST_VALUES, _MOST_LEVELS, _LARGEST = 10_000, 20, 2**31 - 1
"""What a file of settings may hold: values, sections in sections, and the largest number besides a seed."""

WARM_KEYS = ('source', 'zoo', 'head', 'alpha', 'keep', 'noise', 'untraceable')
"""Settings of a warm start; they have no effect under one of NNI's own names."""


def _limits(default: Any, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={'low': low, 'high': high})


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from: exactly one of ``name``, ``npz``, ``folder`` and ``torchvision``."""

    name: str | None = None
    npz: dict | None = None
    folder: dict | None = None
    torchvision: dict | None = None
    licence: str | None = None
    flip: bool = False  # whether a mirrored picture has the same class: then training pictures are mirrored at random

    def load(self, base: Path, side: int) -> Task:
        """Read the task; relative paths start at ``base``, the YAML's folder; picture files are read at ``side`` pixels."""
        if self.name is not None:
            if self.name != 'digits':
                raise ConfigError(
                    f"data.name = {self.name!r} is unknown; the embedded task is 'digits', others come from "
                    'npz:, folder: or torchvision:.'
                )
            return digits()
        if self.npz is not None:
            return from_npz(_path(self.npz, 'data.npz', base))
        if self.folder is not None:
            return from_folder(_path(self.folder, 'data.folder', base), side=side)
        settings = _known(self.torchvision or {}, 'data.torchvision', ('name', 'root', 'download'))
        if not isinstance(settings.get('name'), str):
            raise ConfigError('data.torchvision.name is missing; name a dataset of torchvision, such as FashionMNIST.')
        root = _value(settings.get('root', '~/data'), 'data.torchvision.root', str, {})
        download = _value(settings.get('download', False), 'data.torchvision.download', bool, {})
        return from_torchvision(settings['name'], base / os.path.expanduser(root), download=download)


@dataclass(frozen=True)
class EvaluatorConfig:
    """How the supernet is trained."""

    max_epochs: int = _limits(20, 1)  # epochs of the search
    max_seconds: float = _limits(0.0, 0, 1e9)  # stop after the epoch in which they have passed; 0 for no limit
    batch_size: int = _limits(64, 2)  # pictures per step, of each half
    learning_rate: float = _limits(0.025, 0)  # first rate of the weights; falls to 0 along a cosine
    weight_decay: float = _limits(3e-4, 0)
    val_share: float = _limits(0.5, 0.01, 0.99)  # share of the training pictures that trains the alphas and validates
    jitter: float = _limits(0.0, 0, 1)  # pictures are turned, scaled and moved by up to this share
    crop: float = _limits(0.0, 0, 0.5)  # they are padded and cut out again, up to this share of the side away
    cutout: float = _limits(0.0, 0, 1)  # side of a blanked square, as a share of the picture's
    devices: int = _limits(
        1, 1
    )  # processes, each with a GPU of its own or, without GPUs, a core; batch_size is that of each

    def module(self) -> dict[str, Any]:
        """What the evaluator is made with, besides the number of epochs."""
        others = ('max_epochs', 'max_seconds', 'val_share', 'devices')
        return {key: value for key, value in asdict(self).items() if key not in others}


@dataclass(frozen=True)
class JointConfig(EvaluatorConfig):
    """How a source is pretrained on several datasets."""

    max_epochs: int = _limits(40, 1)
    learning_rate: float = _limits(0.05, 0)
    val_share: float = _limits(0.25, 0.01, 0.99)
    arc_batch_size: int = _limits(16, 2)  # pictures per step of the alphas
    steps_per_epoch: int = _limits(100, 1)  # training steps that make an epoch
    temperature: float = _limits(2.0, 0.01)  # datasets are drawn ~ n ** (1 / temperature)
    jitter: float = _limits(0.15, 0, 1)
    label_smoothing: float = _limits(0.0, 0, 0.99)
    drop_path: float = _limits(0.0, 0, 0.99)  # probability of dropping a candidate op, at the end of training
    batch_norm: str = 'shared'  # or per_dataset


@dataclass(frozen=True)
class NamedConfig:
    """A name and the arguments that go with it: ``{name: nasbench201, width: 16}``."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class SearchConfig:
    """One search, as ``search.yml`` describes it."""

    data: DataConfig
    space: NamedConfig
    evaluator: EvaluatorConfig
    strategy: NamedConfig
    base: Path
    seed: int = 0


@dataclass(frozen=True)
class PretrainConfig:
    """One joint pretraining, as ``pretrain.yml`` describes it."""

    data: tuple[DataConfig, ...]
    space: NamedConfig
    evaluator: JointConfig
    strategy: NamedConfig
    base: Path
    seed: int = 0


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict."""
    path = Path(path)
    try:
        document = parse_yaml(path.read_text())
    except OSError as error:
        raise ConfigError(f'configuration file {path} cannot be read: {error.strerror}.') from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f'configuration file {path} is not YAML: {error}') from error
    if not isinstance(document, dict):
        raise ConfigError(f'configuration file {path} holds no keys; it needs data:, space:, evaluator: and strategy:.')
    return document


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises
    ------
    ConfigError
        If it is not YAML, or gives a key twice.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # PyYAML lets through what Python says of `!!bool x`, of 2024-13-45 or of a thousand brackets
        raise ConfigError(reason(error)) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; PyYAML takes the last one."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f'key {key.value!r} is given twice', problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def overridden(document: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``document`` with keys replaced by dotted name: ``{'strategy.source': 'letters'}``."""
    document = copy.deepcopy(document)
    for dotted, value in overrides.items():
        *parents, last = dotted.split('.')
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f'{dotted} cannot be set: {parent} is no section.')
        place[last] = value
    return document


def parse_search(document: Mapping[str, Any], base: Path) -> SearchConfig:
    """Check a search's settings.

    Parameters
    ----------
    document
        Content of ``search.yml``.
    base
        Folder at which relative paths start.

    Raises
    ------
    ConfigError
        Naming the key, the value and the remedy.
    """
    _check_values(document)
    _known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    return SearchConfig(
        data=_data(_section(document, 'data', {'name': 'digits'}), 'data'),
        space=_named(_section(document, 'space', {'name': 'nasbench201'}), 'space'),
        evaluator=_typed(EvaluatorConfig, _section(document, 'evaluator', {}), 'evaluator'),
        strategy=_strategy(_section(document, 'strategy', {'name': 'WarmStartDARTS'})),
        base=base,
        seed=_seed(document),
    )


def parse_pretrain(document: Mapping[str, Any], base: Path) -> PretrainConfig:
    """As :func:`parse_search` for ``pretrain.yml``, whose ``data:`` is a list."""
    _check_values(document)
    _known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    items = document.get('data')
    if not isinstance(items, list) or not items:
        raise ConfigError('data must be a list of datasets for pretraining: one item such as {npz: {path: a.npz}} a line.')
    return PretrainConfig(
        data=tuple(_data(item, f'data[{i}]') for i, item in enumerate(items)),
        space=_named(_section(document, 'space', {'name': 'nasbench201'}), 'space'),
        evaluator=_typed(JointConfig, _section(document, 'evaluator', {}), 'evaluator'),
        strategy=_strategy(_section(document, 'strategy', {'name': 'DARTS'})),
        base=base,
        seed=_seed(document),
    )


def _check_values(document: Mapping[str, Any]) -> None:
    """Refuse what could be neither copied nor shown: aliases without end, millions of values, numbers of many digits."""
    left: list[tuple[str, Any, int]] = [('', document, 0)]
    count = 0
    while left:
        where, value, level = left.pop()
        count += 1
        if count > _MOST_VALUES or level > _MOST_LEVELS:
            raise ConfigError(
                f'the settings hold more than {_MOST_VALUES} values or {_MOST_LEVELS} sections in each other; an alias (*) '
                'may contain itself.'
            )
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f'{where} is a whole number of more than 64 bits; make it smaller.')
        items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        left += [(' '.join(f'{where}.{key}'.lstrip('.').split()), item, level + 1) for key, item in items]


def _seed(document: Mapping[str, Any]) -> int:
    return _value(document.get('seed', 0), 'seed', int, {'low': 0, 'high': 2**32 - 1})


def make_strategy(config: NamedConfig, base: Path) -> strategies.WarmStartDARTS:
    """The strategy, its relative paths started at ``base``.

    Raises
    ------
    ConfigError
        If NNI's strategy refuses its arguments.
    """
    arguments = dict(config.arguments)
    if arguments.get('penalty'):
        raise ConfigError("strategy.penalty needs a profiler, which is code: give it to the strategy in Python's own call.")
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
        raise ConfigError(f'strategy {config.name} cannot be made with {arguments}: {error}') from error


def _beside(base: Path, value: str, key: str) -> str:
    if '://' not in value and (key != 'source' or os.path.isfile(base / value)):
        return str(base / os.path.expanduser(value))
    return value


def strategy_arguments(name: str) -> list[str]:
    """What a strategy takes from a file: our own arguments and those of NNI's classes that it extends, but no functions."""
    found: dict[str, None] = {}
    for cls in STRATEGIES[name].__mro__[:-1]:
        if '__init__' in vars(cls):
            for key, parameter in inspect.signature(cls.__init__).parameters.items():
                if (
                    key not in ('self', 'model_space', 'engine', 'mutation_hooks')
                    and parameter.kind is not parameter.VAR_KEYWORD
                ):
                    found[key] = None
    return list(found)


def _strategy(section: Mapping[str, Any]) -> NamedConfig:
    named = _named(section, 'strategy')
    if named.name not in STRATEGIES:
        raise ConfigError(f'strategy.name = {named.name!r} is unknown{_near(named.name, STRATEGIES)}.')
    _known(named.arguments, 'strategy', strategy_arguments(named.name))
    for key, value in named.arguments.items():
        kind, low, optional = _STRATEGY_TYPES.get(key, (None, None, True))
        if key == 'source' and isinstance(value, list):
            for index, item in enumerate(value):
                _value(item, f'strategy.source[{index}]', str, {})
            continue
        if kind is not None and not (optional and value is None):
            _value(value, f'strategy.{key}', kind, {'low': low})
    if 'temperature' in named.arguments:
        named.arguments['temperature'] = _temperature(named.arguments['temperature'])
    if isinstance(named.arguments.get('source'), str) and named.arguments['source'] in ('none', 'None', ''):
        named.arguments['source'] = None  # searchSpace of NNI: a choice between null and a name has no null
    if not named.name.startswith('WarmStart'):
        return NamedConfig(named.name, {key: v for key, v in named.arguments.items() if key not in WARM_KEYS})
    return named


def _temperature(value: Any) -> dict[str, float]:
    """Of GumbelDARTS: one for all epochs, or the first and the last."""
    ends = value if isinstance(value, Mapping) else {'init': value, 'min': value}
    if ends.keys() != {'init', 'min'}:
        raise ConfigError(f'strategy.temperature = {value!r}, but it must be a number, or {{init: ..., min: ...}}.')
    first, last = (_value(ends[key], 'strategy.temperature', float, {'low': 0.01}) for key in ('init', 'min'))
    if first < last:
        raise ConfigError(f'strategy.temperature falls from init to min, but {first} is less than {last}.')
    return {'init': first, 'min': last}


def _data(section: Any, where: str) -> DataConfig:
    data = _typed(DataConfig, _mapping(section, where), where)
    kinds = ('name', 'npz', 'folder', 'torchvision')
    given = [kind for kind in kinds if getattr(data, kind) is not None]
    if len(given) != 1:
        raise ConfigError(f'{where} must have exactly one of {", ".join(kinds)}; it has {", ".join(given) or "none"}.')
    return data


def _named(section: Mapping[str, Any], where: str) -> NamedConfig:
    arguments = dict(section)
    name = arguments.pop('name', None)
    if not isinstance(name, str):
        raise ConfigError(f'{where}.name = {name!r}, but it must be a name; see `nni-warmstart spaces` and the README.')
    return NamedConfig(name, arguments)


def _path(settings: Mapping[str, Any], where: str, base: Path) -> Path:
    path = _known(settings, where, ('path',)).get('path')
    if not isinstance(path, str):
        raise ConfigError(f'{where}.path = {path!r}, but it must be a path.')
    return base / os.path.expanduser(path)


def _section(document: Mapping[str, Any], key: str, default: dict[str, Any]) -> Mapping[str, Any]:
    return _mapping(document.get(key, default), key)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{where} = {value!r}, but it must be a section with keys.')
    return value


def _known(section: Mapping[str, Any], where: str, allowed: Any) -> Mapping[str, Any]:
    for key in section:
        if key not in allowed:
            name = ' '.join((f'{where}.{key}' if where else str(key)).split())
            raise ConfigError(f'key {name} is unknown{_near(str(key), allowed)}.')
    return section


def _near(word: str, allowed: Any) -> str:
    close = difflib.get_close_matches(word, list(allowed), 1)
    return f'; did you mean {close[0]}?' if close else f'; known are {", ".join(allowed)}'


def _typed(cls: Any, section: Mapping[str, Any], where: str) -> Any:
    known = {item.name: item for item in fields(cls)}
    _known(section, where, known)
    kinds = {'int': int, 'float': float, 'bool': bool, 'str': str, 'str | None': str, 'dict | None': dict}
    values = {
        key: _value(value, f'{where}.{key}', kinds[str(known[key].type)], known[key].metadata)
        for key, value in section.items()
        if value is not None
    }
    return cls(**values)


def _value(value: Any, where: str, kind: type, limits: Mapping[str, Any]) -> Any:
    words = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false', dict: 'a section with keys'}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and (isinstance(value, int) or value.is_integer())
    fits = (number if kind is float else whole) if kind in (int, float) else isinstance(value, kind)
    if not fits:
        raise ConfigError(f'{where} = {value!r}, but it must be {words[kind]}.')
    if number:
        value = kind(value)
        low, high = limits.get('low'), limits.get('high')
        most = _LARGEST if high is None else high
        if (low is not None and value < low) or value > most or value != value:
            wanted = f'from {low} to {high}' if high is not None else f'at most {most}' if value > most else f'{low} or more'
            raise ConfigError(f'{where} = {value}, but it must be {wanted}.')
    return value
