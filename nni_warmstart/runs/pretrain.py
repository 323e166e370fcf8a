"""Pretraining of one supernet jointly on the datasets of ``pretrain.yml``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import seed_everything

from ..data.fingerprint import fingerprint
from ..data.task import Task
from ..errors import DataError, SupernetFileError, ZooError
from ..evaluators.checkpoints import every_epoch
from ..evaluators.divergence import StopOnDivergence
from ..evaluators.joint import JointClassification
from ..evaluators.trainer import make_trainer
from ..supernets.supernet import Supernet
from ..zoo.zoo import SupernetZoo
from .config import PretrainConfig
from .folder import RunFolder
from .provenance import Marked, Provenance
from .setup import check_apart, input_shape, make_space, start, strategy_for


def pretrain(
    config: PretrainConfig,
    *,
    name: str,
    seed: int,
    out: str | Path,
    command: str = '',
    resume: bool = False,
    overwrite: bool = False,
    replaces: str | None = None,
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
        Folder for the log and the checkpoint of the last epoch, which no other process may use meanwhile.
    command
        Command that repeats the pretraining, for the card.
    resume
        Whether to resume from ``out/checkpoints/last.ckpt`` if it exists.
    overwrite
        Whether to replace an earlier pretraining in ``out``.
    replaces
        Entry of a zoo that the supernet is to replace, see :func:`mark`; noted in ``out`` for :func:`may_replace`.
    progress
        Whether to show progress bars.

    Returns
    -------
    Supernet
        Trained supernet, whose card names the datasets, their licences, the settings and the accuracies.

    Raises
    ------
    WarmStartError
        If data, space or settings do not work, ``out`` holds another run or is in use, or training diverges.
    """
    folder = RunFolder(Path(out), 'pretraining', replaces=replaces)
    check_apart(config, folder.path)
    with folder.claimed(resume=resume, overwrite=overwrite):
        return _pretrain(config, name, seed, folder, command, resume=resume, progress=progress)


def _pretrain(
    config: PretrainConfig, name: str, seed: int, folder: RunFolder, command: str, *, resume: bool, progress: bool
) -> Supernet:
    # Set up the data, the evaluator, the model space and the strategy.
    channels, image_size = input_shape(config.space)
    tasks = _tasks(config, image_size)
    data = {f'{part} of {title}': mark for title, task in tasks.items() for part, mark in fingerprint(task).items()}
    provenance, checkpoint = Provenance.of({**asdict(config), 'seed': seed}, data), None
    if resume:
        provenance, checkpoint = folder.resumed(provenance)
    seed_everything(seed, workers=True, verbose=False)
    callbacks = [every_epoch(folder.checkpoint), StopOnDivergence(), Marked(provenance)]
    limits = config.evaluator.trainer_arguments()
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
    epochs = config.evaluator.max_epochs
    start(strategy, space, evaluator, folder, provenance, checkpoint, max_epochs=epochs, resume=resume)
    strategy.run()
    supernet = cast(Any, strategy.oneshot_module).training_module.remembered(
        strategy.supernet,
        name=name,
        history={
            'evaluator': asdict(config.evaluator),
            'strategy': {'name': config.strategy.name, **config.strategy.arguments},
            'seed': seed,
            'command': command,
            'run': provenance.run,
        },
    )
    return supernet.with_licences(dict(zip(tasks, (item.licence for item in config.data), strict=True)))


def may_replace(zoo: SupernetZoo, name: str, out: str | Path) -> bool:
    """Check whether the pretraining in ``out`` was to replace an entry of a zoo, or has left it there at an earlier end."""
    earlier = RunFolder(Path(out), 'pretraining').earlier()
    if earlier is None or name not in zoo:
        return False
    entry = zoo[name]
    if earlier.replaces is not None and earlier.replaces == mark(zoo, name):
        return True
    return entry.run == earlier.run and (earlier.run is not None or bool(entry.datasets))  # older versions noted no run


def mark(zoo: SupernetZoo, name: str) -> str | None:
    """Return path and weights of an entry of a zoo as text; None if it cannot be read."""
    try:
        return f'{zoo.path(name)} {zoo[name].key}'
    except (SupernetFileError, ZooError):
        return None


def _tasks(config: PretrainConfig, image_size: int) -> dict[str, Task]:
    """Read the datasets, by name."""
    tasks: dict[str, Task] = {}
    for item in config.data:
        task = item.load(config.base, image_size)
        if task.name in tasks:
            raise DataError(f'dataset {task.name!r} is named twice in data; give one a label: of its own.')
        tasks[task.name] = task
    return tasks
