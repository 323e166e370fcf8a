"""pretrain: one supernet trained jointly on the datasets of ``pretrain.yml``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything

from . import checkpoint, spaces
from .config import PretrainConfig, make_strategy
from .data import Task
from .distance.embedding import EMBEDDINGS
from .distance.sketch import sketches_of
from .errors import DataError
from .evaluator import make_trainer
from .joint import JointClassification
from .supernet import Supernet


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
        Of everything random.
    out
        Folder for the log and the checkpoint of the last epoch.
    command
        How to do it again, for the card.
    resume
        Go on from ``out/checkpoints/last.ckpt`` when it is there.
    progress
        Whether to show progress bars.

    Returns
    -------
    Supernet
        Its card names the datasets, their licences, the settings and the accuracies.

    Raises
    ------
    WarmStartError
        If data, space or settings do not work.
    """
    out = checkpoint.output_folder(out)
    cls = spaces.resolve(config.space.name, allow_import=True)
    channels, side = spaces.input_of(cls, config.space.arguments)
    tasks: dict[str, Task] = {}
    for item in config.data:
        task = item.load(config.base, side)
        if task.name in tasks:
            raise DataError(f'dataset {task.name!r} is named twice in data; each may appear once.')
        tasks[task.name] = task
    settings = asdict(config.evaluator)
    seed_everything(seed, workers=True, verbose=False)
    trainer = make_trainer(settings.pop('max_epochs'), out, progress=progress, callbacks=[checkpoint.every_epoch(out)])
    flip = [name for name, item in zip(tasks, config.data, strict=True) if item.flip]
    evaluator = JointClassification(tasks, trainer, channels=channels, image_size=side, flip=flip, **settings)
    space = spaces.create(config.space.name, config.space.arguments, evaluator.num_classes, allow_import=True)
    spaces.check_input(space, channels, side, evaluator.num_classes)
    strategy = make_strategy(config.strategy, config.base)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    if resume:
        checkpoint.resume(strategy, out, config.evaluator.max_epochs)
    strategy.run()
    accuracy = cast(Any, strategy.oneshot_module).training_module.accuracy
    supernet = Supernet.from_strategy(
        strategy,
        name=name,
        class_names=[f'{name}/{label}' for name, task in tasks.items() for label in task.class_names],
        history={
            'datasets': {
                task.name: {
                    'classes': task.num_classes,
                    'pictures': len(task.train_x),
                    'licence': item.licence,
                    'accuracy': round(accuracy[task.name], 4),
                }
                for item, task in zip(config.data, tasks.values(), strict=True)
            },
            'pictures': [channels, side],
            'evaluator': asdict(config.evaluator),
            'strategy': {'name': config.strategy.name, **config.strategy.arguments},
            'seed': seed,
            'command': command,
        },
    )
    embeddings = (*EMBEDDINGS, supernet.features(strategy.supernet))
    return supernet.with_sketches(sketches_of(evaluator.tasks.values(), embeddings, name))
