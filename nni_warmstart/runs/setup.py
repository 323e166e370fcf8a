"""The start of a run: images, model space, strategy, their checks, and whether the run is new or goes on.

Random numbers are drawn after :func:`~pytorch_lightning.seed_everything` in one order: model space, supernet, training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import Proxyless
from pytorch_lightning import seed_everything

from ..data.splits import Splits, split
from ..data.task import Task
from ..nni_adapter.model_spaces import check_input, check_supernet, create, input_of, resolve
from ..search.strategies import WarmStartDARTS
from .config import PretrainConfig, SearchConfig
from .folder import RunFolder
from .settings import NamedConfig
from .strategies import make_strategy

SUPERNET = 'training_module._model.'
"""Begins the names of a supernet's tensors in the checkpoint of a search."""


@dataclass(frozen=True)
class Problem:
    """Images and model space that a search, its preview and a retraining begin with.

    Attributes
    ----------
    task
        The images, as the space takes them.
    splits
        Their parts.
    space
        The model space, freshly initialised.
    """

    task: Task
    splits: Splits
    space: ModelSpace

    @property
    def image_shape(self) -> tuple[int, int]:
        """Channels, and pixels a side."""
        channels, image_size = self.task.train_x.shape[1:3]
        return channels, image_size


def input_shape(space: NamedConfig) -> tuple[int, int]:
    """Return channels, and pixels a side, of the images that a space takes."""
    return input_of(resolve(space.name, allow_import=True), space.arguments)


def load_task(config: SearchConfig) -> Task:
    """Read the data of a search, as its space takes them."""
    channels, image_size = input_shape(config.space)
    return config.data.load(config.base, image_size).adapted(channels, image_size)


def set_up(config: SearchConfig, task: Task, seed: int | None, cut: Callable[..., Splits] = split) -> Problem:
    """Cut the task, seed all random generators, and make the model space.

    Parameters
    ----------
    config
        Checked settings.
    task
        The data, see :func:`load_task`.
    seed
        Seed of all random generators; None to leave them as they are.
    cut
        Cuts the task; as :func:`~nni_warmstart.data.splits.split`.

    Raises
    ------
    WarmStartError
        If the task cannot be cut, the space cannot be made, or the images do not go through it.
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
    strategy = make_strategy(config.strategy, config.base)
    if not isinstance(strategy, Proxyless):  # which runs one candidate at a time
        check_supernet(space, *image_shape)
    return strategy


def start(
    strategy: WarmStartDARTS,
    space: ModelSpace,
    evaluator: Any,
    folder: RunFolder,
    config: SearchConfig | PretrainConfig,
    seed: int,
    *,
    resume: bool,
) -> None:
    """Initialise a strategy, from the checkpoint in the folder where the run goes on, and write the settings down.

    Raises
    ------
    WarmStartError
        If the run cannot start, or cannot go on: the folder is then as it was.
    """
    settings = {**asdict(config), 'seed': seed}
    if resume:
        folder.check(settings)
        if folder.has_checkpoint():
            strategy.resume_from(folder.checkpoint)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    if resume:  # nothing is read before the strategy runs, and only the supernet tells which tensors there should be
        folder.checkpoint_for(strategy.supernet, SUPERNET, config.evaluator.max_epochs)
    folder.begin(settings, resume=resume)


def versions() -> dict[str, str]:
    """Versions of the packages on which a result depends."""
    return {name: version(name) for name in ('nni-warmstart', 'nni', 'torch', 'pytorch-lightning')}
