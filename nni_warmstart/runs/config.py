"""search.yml as frozen dataclasses: unknown keys, wrong types and impossible values are errors that name the remedy."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

from ..data.source import Setting
from ..data.sources import SOURCES
from ..data.task import Task
from ..errors import ConfigError, WarmStartError
from ..nni_adapter.model_spaces import CLASS_ARGUMENTS
from ..search import strategies
from ..warm_start.settings import TransferSettings
from .settings import check_values, checked, known, limits, mapping, near, section_of, typed

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
    'refit_head': (bool, None, True),
    'arc_learning_rate': (float, 0, True),
    'gradient_clip_val': (float, 0, True),
    'log_prob_every_n_step': (int, 1, False),
    'warmup_epochs': (int, 0, False),
    'penalty': (dict, None, True),
    'parameter_free_cap': (int, 0, True),
    'stop_on_eigenvalue': (bool, None, False),
}
"""Settings of a strategy: type, least value, whether null is allowed."""

WARM_KEYS = ('source', 'zoo', 'head', 'alpha', 'keep', 'noise', 'untraceable')
"""Settings of a warm start; they have no effect under one of NNI's own names."""

_TRANSFER_KEYS = WARM_KEYS[2:]
"""Those that a transfer takes."""


_Sources = make_dataclass(
    '_Sources',
    [(kind, 'str | None' if source.settings is None else 'dict | None', None) for kind, source in SOURCES.items()],
    frozen=True,
)
"""A field for every kind of data."""


@dataclass(frozen=True)
class DataConfig(_Sources):
    """Where the pictures come from: exactly one of :data:`~nni_warmstart.data.sources.SOURCES` by its key."""

    label: str | None = None  # how the task is called; by default as the data
    licence: str | None = None
    flip: bool = False  # whether a mirrored picture has the same class: then training pictures are mirrored at random

    def load(self, base: Path, image_size: int) -> Task:
        """Read the task.

        Parameters
        ----------
        base
            Folder at which relative paths start, the YAML's.
        image_size
            Pixels a side at which picture files are read.

        Raises
        ------
        ConfigError
            Naming a key of the source that is missing or wrong.
        DataError
            If the data cannot be read.
        """
        kind = next(kind for kind in SOURCES if getattr(self, kind) is not None)
        source, value = SOURCES[kind], getattr(self, kind)
        if source.settings is not None:
            value = _source_settings(value, f'data.{kind}', source.settings, base)
        task = source.read(value, image_size)
        return task if self.label is None else replace(task, name=self.label)


@dataclass(frozen=True)
class SourceDataConfig(DataConfig):
    """One of the datasets that a source is pretrained on."""

    weight: float = limits(1.0, 0.01, 100)  # in the draws: more for what is harder to learn


@dataclass(frozen=True)
class EvaluatorConfig:
    """How the supernet is trained."""

    max_epochs: int = limits(20, 1)  # epochs of the search
    max_seconds: float = limits(0.0, 0, 1e9)  # stop after the epoch in which they have passed; 0 for no limit
    batch_size: int = limits(64, 2)  # pictures per step, of each half
    learning_rate: float = limits(0.025, 0)  # first rate of the weights; falls to 0 along a cosine
    weight_decay: float = limits(3e-4, 0)
    val_share: float = limits(0.5, 0.01, 0.99)  # share of the training pictures that trains the alphas and validates
    jitter: float = limits(0.0, 0, 1)  # pictures are turned, scaled and moved by up to this share
    crop: float = limits(0.0, 0, 0.5)  # they are padded and cut out again, up to this share of the side away
    cutout: float = limits(0.0, 0, 1)  # side of a blanked square, as a share of the picture's
    devices: int = limits(1, 1)  # processes, each with a GPU of its own or, without GPUs, a core; batch_size is that of each

    def module(self) -> dict[str, Any]:
        """What the evaluator is made with, besides the number of epochs."""
        others = ('max_epochs', 'max_seconds', 'val_share', 'devices')
        return {key: value for key, value in asdict(self).items() if key not in others}


@dataclass(frozen=True)
class JointConfig(EvaluatorConfig):
    """How a source is pretrained on several datasets."""

    max_epochs: int = limits(40, 1)
    learning_rate: float = limits(0.05, 0)
    val_share: float = limits(0.25, 0.01, 0.99)
    arc_batch_size: int = limits(16, 2)  # pictures per step of the alphas
    steps_per_epoch: int = limits(100, 1)  # training steps that make an epoch
    temperature: float = limits(2.0, 0.01)  # datasets are drawn ~ weight * n ** (1 / temperature)
    jitter: float = limits(0.15, 0, 1)
    label_smoothing: float = limits(0.0, 0, 0.99)
    drop_path: float = limits(0.0, 0, 0.99)  # probability of dropping a candidate op, at the end of training
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

    data: tuple[SourceDataConfig, ...]
    space: NamedConfig
    evaluator: JointConfig
    strategy: NamedConfig
    base: Path
    seed: int = 0


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
    check_values(document)
    known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    return SearchConfig(
        data=_data(section_of(document, 'data', {'name': 'digits'}), 'data'),
        space=_space(section_of(document, 'space', {'name': 'nasbench201'})),
        evaluator=typed(EvaluatorConfig, section_of(document, 'evaluator', {}), 'evaluator'),
        strategy=_strategy(section_of(document, 'strategy', {'name': 'WarmStartDARTS'})),
        base=base,
        seed=_seed(document),
    )


def parse_pretrain(document: Mapping[str, Any], base: Path) -> PretrainConfig:
    """As :func:`parse_search` for ``pretrain.yml``, whose ``data:`` is a list."""
    check_values(document)
    known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    items = document.get('data')
    if not isinstance(items, list) or not items:
        raise ConfigError('data must be a list of datasets for pretraining: one item such as {npz: {path: a.npz}} a line.')
    return PretrainConfig(
        data=tuple(_data(item, f'data[{i}]', SourceDataConfig) for i, item in enumerate(items)),
        space=_space(section_of(document, 'space', {'name': 'nasbench201'})),
        evaluator=typed(JointConfig, section_of(document, 'evaluator', {}), 'evaluator'),
        strategy=_strategy(section_of(document, 'strategy', {'name': 'DARTS'})),
        base=base,
        seed=_seed(document),
    )


def _space(section: Mapping[str, Any]) -> NamedConfig:
    named = _named(section, 'space')
    for key in CLASS_ARGUMENTS:
        if key in named.arguments:
            raise ConfigError(f'space.{key} = {named.arguments[key]!r}, but the data tell how many classes; leave it out.')
    return named


def _seed(document: Mapping[str, Any]) -> int:
    return checked(document.get('seed', 0), 'seed', int, {'low': 0, 'high': 2**32 - 1})


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
        raise ConfigError(f'strategy.name = {named.name!r} is unknown{near(named.name, STRATEGIES)}.')
    known(named.arguments, 'strategy', strategy_arguments(named.name))
    for key, value in named.arguments.items():
        kind, low, optional = _STRATEGY_TYPES.get(key, (None, None, True))
        if key == 'source' and isinstance(value, list):
            for index, item in enumerate(value):
                checked(item, f'strategy.source[{index}]', str, {})
        elif key == 'alpha' and isinstance(value, str) and value not in ('transfer', 'reset'):
            named.arguments[key] = _number(value)
        elif kind is not None and not (optional and value is None):
            number = checked(value, f'strategy.{key}', kind, {'low': low})
            named.arguments[key] = value if isinstance(value, int) else number  # messages show a 2 as it was written
    if 'temperature' in named.arguments:
        named.arguments['temperature'] = _temperature(named.arguments['temperature'])
    if isinstance(named.arguments.get('source'), str) and named.arguments['source'] in ('none', 'None', ''):
        named.arguments['source'] = None  # searchSpace of NNI: a choice between null and a name has no null
    try:
        TransferSettings(**{key: value for key, value in named.arguments.items() if key in _TRANSFER_KEYS})
    except WarmStartError as error:
        raise ConfigError(f'strategy.{error}') from error
    if not named.name.startswith('WarmStart'):
        return NamedConfig(named.name, {key: v for key, v in named.arguments.items() if key not in WARM_KEYS})
    return named


def _temperature(value: Any) -> dict[str, float]:
    """Of GumbelDARTS: one for all epochs, or the first and the last."""
    ends = value if isinstance(value, Mapping) else {'init': value, 'min': value}
    if ends.keys() != {'init', 'min'}:
        raise ConfigError(f'strategy.temperature = {value!r}, but it must be a number, or {{init: ..., min: ...}}.')
    first, last = (checked(ends[key], 'strategy.temperature', float, {'low': 0.01}) for key in ('init', 'min'))
    if first < last:
        raise ConfigError(f'strategy.temperature falls from init to min, but {first} is less than {last}.')
    return {'init': first, 'min': last}


def _number(value: str) -> Any:
    """A number that YAML takes for text, such as 5e-1; other text as it is, to be refused by what it is for."""
    try:
        return float(value)
    except ValueError:
        return value


def _data(section: Any, where: str, cls: Any = DataConfig) -> Any:
    data = typed(cls, mapping(section, where), where)
    given = [kind for kind in SOURCES if getattr(data, kind) is not None]
    if len(given) != 1:
        raise ConfigError(f'{where} must have exactly one of {", ".join(SOURCES)}; it has {", ".join(given) or "none"}.')
    return data


def _named(section: Mapping[str, Any], where: str) -> NamedConfig:
    arguments = dict(section)
    name = arguments.pop('name', None)
    if not isinstance(name, str):
        raise ConfigError(f'{where}.name = {name!r}, but it must be a name; see `nni-warmstart spaces` and the README.')
    return NamedConfig(name, arguments)


def _source_settings(section: Mapping[str, Any], where: str, settings: Mapping[str, Setting], base: Path) -> dict[str, Any]:
    """Return the settings of a source of data, each checked, paths started at ``base``."""
    known(section, where, settings)
    values = {}
    for key, setting in settings.items():
        value, name = section.get(key, setting.default), f'{where}.{key}'
        if setting.refusal and not isinstance(value, setting.kind):
            raise ConfigError(setting.refusal.format(key=name, value=value))
        value = checked(value, name, setting.kind, {})
        values[key] = base / os.path.expanduser(value) if setting.is_path else value
    return values
