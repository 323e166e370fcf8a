"""Pretraining of one supernet jointly on the datasets of ``pretrain.yml``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import seed_everything

from ..data.task import Task
from ..errors import DataError
from ..evaluators.checkpoints import every_epoch
from ..evaluators.joint import JointClassification
from ..evaluators.trainer import make_trainer
from ..supernets.supernet import Supernet
from .config import PretrainConfig
from .folder import RunFolder
from .setup import input_shape, make_space, start, strategy_for


def pretrain(
    config: PretrainConfig,
    *,
    name: str,
    seed: int,
    out: str | Path,
    command: str = '',
    resume: bool = False,
    progress: bool = True,
) -> Supernet:
    """Train one supernet jointly on the datasets of ``pretrain.yml``.

    Parameters
    ----------
    config
        Checked settings.
    name
        Name of the supernet.
    seed
        Seed of all random generators.
    out
        Folder for the log and the checkpoint of the last epoch.
    command
        Command that repeats the pretraining, for the card.
    resume
        Whether to resume from ``out/checkpoints/last.ckpt`` if it exists.
    progress
        Whether to show progress bars.

    Returns
    -------
    Supernet
        Trained supernet, whose card names the datasets, their licences, the settings and the accuracies.

    Raises
    ------
    WarmStartError
        If data, space or settings do not work.
    """
    # Set up the data, the evaluator, the model space and the strategy.
    folder = RunFolder(Path(out))
    folder.make()
    channels, image_size = input_shape(config.space)
    tasks = _tasks(config, image_size)
    seed_everything(seed, workers=True, verbose=False)
    callbacks, limits = [every_epoch(folder.checkpoint)], config.evaluator.trainer_arguments()
    evaluator = JointClassification(
        tasks,
        make_trainer(out=folder.path, progress=progress, callbacks=callbacks, use_distributed_sampler=False, **limits),
        channels=channels,
        image_size=image_size,
        flip=[name for name, item in zip(tasks, config.data, strict=True) if item.flip],
        weights={name: item.weight for name, item in zip(tasks, config.data, strict=True)},
        val_share=config.evaluator.val_share,
        **config.evaluator.module_arguments(),
    )
    space = make_space(config.space, evaluator.num_classes)
    strategy = strategy_for(config, space, (channels, image_size))
    # Train, and collect the supernet.
    start(strategy, space, evaluator, folder, config, seed, resume=resume)
    strategy.run()
    supernet = cast(Any, strategy.oneshot_module).training_module.remembered(
        strategy.supernet,
        name=name,
        history={
            'evaluator': asdict(config.evaluator),
            'strategy': {'name': config.strategy.name, **config.strategy.arguments},
            'seed': seed,
            'command': command,
        },
    )
    return supernet.with_licences(dict(zip(tasks, (item.licence for item in config.data), strict=True)))


def _tasks(config: PretrainConfig, image_size: int) -> dict[str, Task]:
    """Read the datasets, by name."""
    tasks: dict[str, Task] = {}
    for item in config.data:
        task = item.load(config.base, image_size)
        if task.name in tasks:
            raise DataError(f'dataset {task.name!r} is named twice in data; give one a label: of its own.')
        tasks[task.name] = task
    return tasks
