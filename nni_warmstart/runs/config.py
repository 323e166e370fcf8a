"""Configuration files as frozen dataclasses: unknown keys, wrong types and impossible values are errors with a remedy."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ..data.lazy import CACHE_MB
from ..data.source import ON_ERROR, Setting
from ..data.sources import SOURCES
from ..data.task import Task
from ..errors import ConfigError
from ..evaluators.loggers import LOGGERS
from ..evaluators.trainer import make_trainer
from ..nni_adapter.model_spaces import CLASS_ARGUMENTS
from ..utils.checks import Range, suggestion
from .settings import NamedConfig, check_values, checked, known, mapping, named, section_of, typed
from .strategies import parse_strategy

_Sources = make_dataclass(
    '_Sources',
    [(kind, 'str | None' if source.settings is None else 'dict | None', None) for kind, source in SOURCES.items()],
    frozen=True,
)
"""Base class with a field for every kind of data."""


@dataclass(frozen=True)
class DataConfig(_Sources):
    """Settings of the data: exactly one of :data:`~nni_warmstart.data.sources.SOURCES` by its key, and general ones."""

    label: str | None = None  # name of the task; by default that of the data
    licence: str | None = None
    flip: bool = False  # whether training images are mirrored at random: a mirrored image has the same class
    cache_mb: Annotated[float, Range(0, 1e9)] = CACHE_MB  # images kept in memory; larger sets are read while they are used
    on_error: str = 'stop'  # or skip: leaves out files that cannot be read

    def load(self, base: Path, image_size: int) -> Task:
        """Read the task.

        Parameters
        ----------
        base
            Folder of the YAML file, at which relative paths start.
        image_size
            Size in pixels at which image files are read.

        Raises
        ------
        ConfigError
            If a key of the source is missing or wrong; the message names it.
        DataError
            If the data cannot be read.
        """
        kind = self.kind()
        source, value, where = SOURCES[kind], self.located(base), f'data.{kind}'
        if self.on_error != 'stop' and 'on_error' not in source.options:
            raise ConfigError(
                f'data.on_error = {self.on_error!r} has no effect on {where}, whose images are not files that are read '
                'here; leave it out.'
            )
        task = source.read(value, image_size, **{name: getattr(self, name) for name in source.options})
        return task if self.label is None else replace(task, name=self.label)

    def located(self, base: Path) -> Any:
        """Return the checked settings of the source, or the word that names it; relative paths start at ``base``.

        Raises
        ------
        ConfigError
            If a key of the source is missing or wrong; the message names it.
        """
        kind = self.kind()
        settings, value, where = SOURCES[kind].settings, getattr(self, kind), f'data.{kind}'
        if settings is None:
            return checked(value, where, str)
        return _source_settings(mapping(value, where), where, settings, base)

    def kind(self, where: str = 'data') -> str:
        """Return the key of the source; ``where`` is the section's name in errors.

        Raises
        ------
        ConfigError
            If there is none, or more than one.
        """
        given = [kind for kind in SOURCES if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ConfigError(f'{where} must have exactly one of {", ".join(SOURCES)}; it has {", ".join(given) or "none"}.')
        return given[0]


@dataclass(frozen=True)
class SourceDataConfig(DataConfig):
    """Settings of one of the datasets that a source is pretrained on."""

    weight: Annotated[float, Range(0.01, 100)] = 1.0  # weight in the draws: larger for data that are harder to learn


CHOICES = {
    'accelerator': ('auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu', 'hpu'),
    'precision': ('32-true', 'bf16-mixed', '16-mixed'),
    'sampler': ('shuffle', 'balanced'),
    'logger': LOGGERS,
}
"""Settings of an evaluator that are one of some words."""

OF_TRAINER = tuple(inspect.signature(make_trainer).parameters)
"""Settings of an evaluator that are those of its trainer."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training of a supernet, in a search and in a pretraining."""

    max_epochs: Annotated[int, Range(1)] = 20  # epochs of the search
    max_seconds: Annotated[float, Range(0, 1e9)] = 0.0  # time limit, checked after each epoch; 0 for no limit
    stop_at: Annotated[float, Range(0, 1)] | None = None  # ends once this validation accuracy is reached and held
    batch_size: Annotated[int, Range(2)] = 64  # images per step, of each half
    learning_rate: Annotated[float, Range(0)] = 0.025  # initial rate of the weights; falls to 0 along a cosine
    weight_decay: Annotated[float, Range(0)] = 3e-4
    val_share: Annotated[float, Range(0.01, 0.99)] = 0.5  # share of the training images for the alphas and validation
    jitter: Annotated[float, Range(0, 1)] = 0.0  # images are rotated, scaled and shifted by up to this share
    crop: Annotated[float, Range(0, 0.5)] = 0.0  # images are padded and cropped, up to this share of their size away
    cutout: Annotated[float, Range(0, 1)] = 0.0  # size of a square that is set to zero, as a share of the image size
    devices: Annotated[int, Range(1)] = 1  # processes, each with a GPU or a core of its own, and batches of batch_size
    accelerator: str = 'auto'  # cpu, gpu, mps, ... of Lightning; auto takes a GPU where there is one
    num_nodes: Annotated[int, Range(1)] = 1  # machines of one search, each with ``devices`` processes
    precision: str = '32-true'  # or bf16-mixed, 16-mixed: faster on a GPU
    num_workers: Annotated[int, Range(0, 1024)] = 0  # processes of each loader that read images; 0 for none
    prefetch: Annotated[int, Range(1, 1024)] = 2  # batches that each of them reads ahead
    logger: str = 'csv'  # or tensorboard, mlflow, wandb: Lightning's logger of that name, besides logs/metrics.csv

    def trainer_arguments(self) -> dict[str, Any]:
        """Return the settings that :func:`~nni_warmstart.evaluators.trainer.make_trainer` takes."""
        return {key: value for key, value in asdict(self).items() if key in OF_TRAINER}

    def module_arguments(self) -> dict[str, Any]:
        """Return the settings of the evaluator, without those of the trainer and ``val_share``."""
        return {key: value for key, value in asdict(self).items() if key not in (*OF_TRAINER, 'val_share')}


@dataclass(frozen=True)
class EvaluatorConfig(TrainingConfig):
    """Settings of the training of a supernet in a search."""

    sampler: str = 'shuffle'  # or balanced: training images are drawn with all classes equally frequent
    label_smoothing: Annotated[float, Range(0, 0.99)] | None = None  # None: 0.1 to train inherited weights, 0 otherwise


@dataclass(frozen=True)
class JointConfig(TrainingConfig):
    """Settings of the pretraining of a source on several datasets."""

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
    """Configuration of a search, as in ``search.yml``."""

    data: DataConfig
    space: NamedConfig
    evaluator: EvaluatorConfig
    strategy: NamedConfig
    base: Path
    seed: int = 0


@dataclass(frozen=True)
class PretrainConfig:
    """Configuration of a joint pretraining, as in ``pretrain.yml``."""

    data: tuple[SourceDataConfig, ...]
    space: NamedConfig
    evaluator: JointConfig
    strategy: NamedConfig
    base: Path
    seed: int = 0


def parse_search(document: Mapping[str, Any], base: Path) -> SearchConfig:
    """Check the settings of a search.

    Parameters
    ----------
    document
        Content of ``search.yml``.
    base
        Folder at which relative paths start.

    Raises
    ------
    ConfigError
        If a setting is wrong; the message names the key, the value and the remedy.
    """
    check_values(document)
    known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    return SearchConfig(
        data=_data(section_of(document, 'data', {'name': 'digits'}), 'data'),
        space=_space(section_of(document, 'space', {'name': 'nasbench201'})),
        evaluator=_evaluator(EvaluatorConfig, document),
        strategy=parse_strategy(section_of(document, 'strategy', {'name': 'WarmStartDARTS'})),
        base=base,
        seed=_seed(document),
    )


def parse_pretrain(document: Mapping[str, Any], base: Path) -> PretrainConfig:
    """Check the settings of a pretraining, like :func:`parse_search`; ``data:`` is a list."""
    check_values(document)
    known(document, '', ('data', 'space', 'evaluator', 'strategy', 'seed'))
    items = document.get('data')
    if not isinstance(items, list) or not items:
        raise ConfigError('data must be a list of datasets for pretraining: one item such as {npz: {path: a.npz}} a line.')
    return PretrainConfig(
        data=tuple(_data(item, f'data[{i}]', SourceDataConfig) for i, item in enumerate(items)),
        space=_space(section_of(document, 'space', {'name': 'nasbench201'})),
        evaluator=_evaluator(JointConfig, document),
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


def _evaluator(cls: Any, document: Mapping[str, Any]) -> Any:
    config = typed(cls, section_of(document, 'evaluator', {}), 'evaluator')
    for key, allowed in CHOICES.items():
        value = getattr(config, key, allowed[0])
        if value not in allowed:
            meant = suggestion(value, allowed)
            raise ConfigError(f'evaluator.{key} = {value!r}, but it must be one of {", ".join(allowed)}.{meant}')
    return config


def _seed(document: Mapping[str, Any]) -> int:
    return checked(document.get('seed', 0), 'seed', int, Range(0, 2**32 - 1))


def _data(section: Any, where: str, cls: Any = DataConfig) -> Any:
    data = typed(cls, mapping(section, where), where)
    data.kind(where)
    if data.on_error not in ON_ERROR:
        raise ConfigError(f'{where}.on_error = {data.on_error!r}, but it must be {" or ".join(ON_ERROR)}.')
    return data


def _source_settings(section: Mapping[str, Any], where: str, settings: Mapping[str, Setting], base: Path) -> dict[str, Any]:
    """Return the checked settings of a source of data; relative paths start at ``base``."""
    known(section, where, settings)
    values = {}
    for key, setting in settings.items():
        value, name = section.get(key, setting.default), f'{where}.{key}'
        if setting.refusal and not isinstance(value, setting.kind):
            raise ConfigError(setting.refusal.format(key=name, value=value))
        value = checked(value, name, setting.kind)
        values[key] = base / os.path.expanduser(value) if setting.is_path else value
    return values
