"""Set-up of a run: images, model space, strategy, their checks, and a new start or a resumption.

Random numbers are drawn after :func:`~pytorch_lightning.seed_everything` in one order: model space, supernet, training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import Proxyless
from pytorch_lightning import seed_everything

from ..data.fingerprint import fingerprint
from ..data.splits import Splits, split
from ..data.task import Task
from ..errors import ConfigError
from ..evaluators.checkpoints import check_checkpoint
from ..nni_adapter.model_spaces import check_input, check_supernet, create, input_of, resolve
from ..search.oneshot_module import DartsSearchModule
from ..search.record import sources_of
from ..search.strategies import WarmStartDARTS
from ..zoo.recognition import changed_sources
from .config import PretrainConfig, SearchConfig
from .folder import RunFolder
from .provenance import Provenance
from .settings import NamedConfig
from .strategies import make_penalty, make_strategy

SUPERNET = 'training_module._model.'
"""Prefix of the names of a supernet's tensors in the checkpoint of a search."""


@dataclass(frozen=True)
class Problem:
    """Images and model space of a search, its preview or a retraining.

    Attributes
    ----------
    task
        Images in the shape that the space takes.
    splits
        Parts of the task.
    space
        Model space, freshly initialised.
    """

    task: Task
    splits: Splits
    space: ModelSpace

    @property
    def image_shape(self) -> tuple[int, int]:
        """Channels and size (pixels) of the images."""
        channels, image_size = self.task.train_x.shape[1:3]
        return channels, image_size


def input_shape(space: NamedConfig) -> tuple[int, int]:
    """Return channels and size (pixels) of the images that a space takes."""
    return input_of(resolve(space.name, allow_import=True), space.arguments)


def load_task(config: SearchConfig) -> Task:
    """Read the data of a search, in the shape that its space takes."""
    return load_known_task(config)[0]


def check_apart(config: SearchConfig | PretrainConfig, out: Path) -> None:
    """Raise an error for a folder of a run inside the folder of its images, where it would be taken for a class.

    Raises
    ------
    ConfigError
        If it is, or the settings of the folder are wrong.
    """
    for data in (config.data,) if isinstance(config, SearchConfig) else config.data:
        if data.folder is None:
            continue
        images = data.located(config.base)['path'].resolve()
        if out.resolve().is_relative_to(images):
            raise ConfigError(f'{out} is inside the folder of the images, {images}; choose another --out.')


def load_known_task(config: SearchConfig, task: Task | None = None) -> tuple[Task, dict[str, str]]:
    """Read the data of a search, and return their fingerprint as well: that of the images before they are resized.

    Images in ``task`` are taken in place of those that ``config.data`` names.
    """
    channels, image_size = input_shape(config.space)
    found = config.data.load(config.base, image_size) if task is None else task
    return found.adapted(channels, image_size), fingerprint(found)


def set_up(config: SearchConfig, task: Task, seed: int | None, cut: Callable[..., Splits] = split) -> Problem:
    """Split the task, seed all random generators, and make the model space.

    Parameters
    ----------
    config
        Checked settings.
    task
        Data of the search, see :func:`load_task`.
    seed
        Seed of all random generators; None to leave them as they are.
    cut
        Function that splits the task, such as :func:`~nni_warmstart.data.splits.split`.

    Raises
    ------
    WarmStartError
        If the task cannot be split, the space cannot be made, or the images do not go through it.
    """
    splits = cut(task, val_share=config.evaluator.val_share)
    if seed is not None:
        seed_everything(seed, workers=True, verbose=False)
    space = make_space(config.space, task.num_classes)
    problem = Problem(task, splits, space)
    check_input(space, *problem.image_shape, task.num_classes)
    return problem


def make_space(space: NamedConfig, num_classes: int) -> ModelSpace:
    """Make the model space that a file names."""
    return create(space.name, space.arguments, num_classes, allow_import=True)


def strategy_for(config: SearchConfig | PretrainConfig, space: ModelSpace, image_shape: tuple[int, int]) -> WarmStartDARTS:
    """Make the strategy, and check that images go through its supernet.

    Raises
    ------
    ConfigError
        If NNI's strategy refuses its arguments, or images do not go through.
    """
    image = torch.zeros(1, image_shape[0], image_shape[1], image_shape[1])
    strategy = make_strategy(config.strategy, config.base, make_penalty(config.strategy, space, image))
    if not isinstance(strategy, Proxyless):  # Proxyless runs one candidate at a time
        check_supernet(space, *image_shape)
    return strategy


def start(
    strategy: WarmStartDARTS,
    space: ModelSpace,
    evaluator: Any,
    folder: RunFolder,
    provenance: Provenance,
    checkpoint: dict[str, Any] | None,
    *,
    max_epochs: int,
    resume: bool,
) -> None:
    """Initialise a strategy, from a checkpoint if there is one, and write down the run.

    Parameters
    ----------
    strategy, space, evaluator
        Parts of the search.
    folder
        Folder of the run.
    provenance, checkpoint
        Identity of the run, and its content so far; see :meth:`RunFolder.resumed`.
    max_epochs
        Number of epochs of the run.
    resume
        Whether results of the run that are in the folder stay until there are new ones.

    Raises
    ------
    WarmStartError
        If the run cannot start or resume; the folder is then unchanged.
    """
    if checkpoint is not None:
        for source in changed_sources(strategy.source, strategy.zoo, sources_of(checkpoint)):
            raise ConfigError(
                f'the run in {folder.path} began with other weights of its source {source!r}; put them back, or choose '
                'another --out.'
            )
        strategy.resume_from(folder.checkpoint)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    if checkpoint is not None:  # checked only now: the supernet tells its tensors
        check_checkpoint(folder.checkpoint, checkpoint, strategy.supernet, SUPERNET, max_epochs)
    cast(DartsSearchModule, strategy.oneshot_module).identity.run = provenance.run
    folder.begin(provenance, resume=resume)


def versions() -> dict[str, str]:
    """Return the versions of the packages on which a result depends."""
    return {name: version(name) for name in ('nni-warmstart', 'nni', 'torch', 'pytorch-lightning')}
