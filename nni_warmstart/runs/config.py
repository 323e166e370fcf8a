"""search.yml as frozen dataclasses: unknown keys, wrong types and impossible values are errors that name the remedy."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ..data.source import Setting
from ..data.sources import SOURCES
from ..data.task import Task
from ..errors import ConfigError
from ..evaluators.trainer import make_trainer
from ..nni_adapter.model_spaces import CLASS_ARGUMENTS
from ..utils.checks import Range
from .settings import NamedConfig, check_values, checked, known, mapping, named, section_of, typed
from .strategies import parse_strategy

_Sources = make_dataclass(
    '_Sources',
    [(kind, 'str | None' if source.settings is None else 'dict | None', None) for kind, source in SOURCES.items()],
    frozen=True,
)
"""A field for every kind of data."""


@dataclass(frozen=True)
class DataConfig(_Sources):
    """Where the images come from: exactly one of :data:`~nni_warmstart.data.sources.SOURCES` by its key."""

    label: str | None = None  # how the task is called; by default as the data
    licence: str | None = None
    flip: bool = False  # whether a mirrored image has the same class: then training images are mirrored at random

    def load(self, base: Path, image_size: int) -> Task:
        """Read the task.

        Parameters
        ----------
        base
            Folder at which relative paths start, the YAML's.
        image_size
            Pixels a side at which image files are read.

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

    weight: Annotated[float, Range(0.01, 100)] = 1.0  # in the draws: more for what is harder to learn


_OF_TRAINER = tuple(inspect.signature(make_trainer).parameters)


@dataclass(frozen=True)
class EvaluatorConfig:
    """How the supernet is trained."""

    max_epochs: Annotated[int, Range(1)] = 20  # epochs of the search
    max_seconds: Annotated[float, Range(0, 1e9)] = 0.0  # stop after the epoch in which they have passed; 0 for no limit
    batch_size: Annotated[int, Range(2)] = 64  # images per step, of each half
    learning_rate: Annotated[float, Range(0)] = 0.025  # first rate of the weights; falls to 0 along a cosine
    weight_decay: Annotated[float, Range(0)] = 3e-4
    val_share: Annotated[float, Range(0.01, 0.99)] = 0.5  # share of the training images for the alphas and validation
    jitter: Annotated[float, Range(0, 1)] = 0.0  # images are turned, scaled and moved by up to this share
    crop: Annotated[float, Range(0, 0.5)] = 0.0  # they are padded and cut out again, up to this share of the side away
    cutout: Annotated[float, Range(0, 1)] = 0.0  # side of a blanked square, as a share of the image's
    devices: Annotated[int, Range(1)] = 1  # processes, each with a GPU or a core of its own, and batches of batch_size

    def trainer_arguments(self) -> dict[str, Any]:
        """Return those that :func:`~nni_warmstart.evaluators.trainer.make_trainer` takes."""
        return {key: value for key, value in asdict(self).items() if key in _OF_TRAINER}

    def module_arguments(self) -> dict[str, Any]:
        """Return those that the evaluator is made with, besides the trainer and the data's ``val_share``."""
        return {key: value for key, value in asdict(self).items() if key not in (*_OF_TRAINER, 'val_share')}


@dataclass(frozen=True)
class JointConfig(EvaluatorConfig):
    """How a source is pretrained on several datasets."""

    max_epochs: Annotated[int, Range(1)] = 40
    learning_rate: Annotated[float, Range(0)] = 0.05
    val_share: Annotated[float, Range(0.01, 0.99)] = 0.25
    arc_batch_size: Annotated[int, Range(2)] = 16  # images per step of the alphas
    steps_per_epoch: Annotated[int, Range(1)] = 100  # training steps that make an epoch
    temperature: Annotated[float, Range(0.01)] = 2.0  # datasets are drawn ~ weight * n ** (1 / temperature)
    jitter: Annotated[float, Range(0, 1)] = 0.15
    label_smoothing: Annotated[float, Range(0, 0.99)] = 0.0
    drop_path: Annotated[float, Range(0, 0.99)] = 0.0  # probability of dropping a candidate op, at the end of training
    batch_norm: str = 'shared'  # or per_dataset


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
        strategy=parse_strategy(section_of(document, 'strategy', {'name': 'WarmStartDARTS'})),
        base=base,
        seed=_seed(document),
    )


def parse_pretrain(document: Mapping[str, Any], base: Path) -> PretrainConfig:
    """Check a pretraining's settings, as :func:`parse_search`; ``data:`` is a list."""
    check_values(document)
    known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    items = document.get('data')
    if not isinstance(items, list) or not items:
        raise ConfigError('data must be a list of datasets for pretraining: one item such as {npz: {path: a.npz}} a line.')
    return PretrainConfig(
        data=tuple(_data(item, f'data[{i}]', SourceDataConfig) for i, item in enumerate(items)),
        space=_space(section_of(document, 'space', {'name': 'nasbench201'})),
        evaluator=typed(JointConfig, section_of(document, 'evaluator', {}), 'evaluator'),
        strategy=parse_strategy(section_of(document, 'strategy', {'name': 'DARTS'})),
        base=base,
        seed=_seed(document),
    )


def _space(section: Mapping[str, Any]) -> NamedConfig:
    space = named(section, 'space')
    for key in CLASS_ARGUMENTS:
        if key in space.arguments:
            raise ConfigError(f'space.{key} = {space.arguments[key]!r}, but the data tell how many classes; leave it out.')
    return space


def _seed(document: Mapping[str, Any]) -> int:
    return checked(document.get('seed', 0), 'seed', int, Range(0, 2**32 - 1))


def _data(section: Any, where: str, cls: Any = DataConfig) -> Any:
    data = typed(cls, mapping(section, where), where)
    given = [kind for kind in SOURCES if getattr(data, kind) is not None]
    if len(given) != 1:
        raise ConfigError(f'{where} must have exactly one of {", ".join(SOURCES)}; it has {", ".join(given) or "none"}.')
    return data


def _source_settings(section: Mapping[str, Any], where: str, settings: Mapping[str, Setting], base: Path) -> dict[str, Any]:
    """Return the settings of a source of data, each checked, paths started at ``base``."""
    known(section, where, settings)
    values = {}
    for key, setting in settings.items():
        value, name = section.get(key, setting.default), f'{where}.{key}'
        if setting.refusal and not isinstance(value, setting.kind):
            raise ConfigError(setting.refusal.format(key=name, value=value))
        value = checked(value, name, setting.kind)
        values[key] = base / os.path.expanduser(value) if setting.is_path else value
    return values
