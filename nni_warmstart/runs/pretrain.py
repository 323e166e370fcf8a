"""pretrain: one supernet trained jointly on the datasets of ``pretrain.yml``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import Proxyless
from pytorch_lightning import seed_everything

from ..data.task import Task
from ..errors import DataError
from ..evaluators.checkpoints import every_epoch, exists
from ..evaluators.joint import JointClassification
from ..evaluators.trainer import make_trainer
from ..nni_adapter.model_spaces import check_supernet, create, input_of, resolve
from ..supernets.supernet import Supernet
from . import folder
from .config import PretrainConfig, make_strategy
from .folder import begin, check, output_folder


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
    out = output_folder(out)
    cls = resolve(config.space.name, allow_import=True)
    channels, side = input_of(cls, config.space.arguments)
    tasks: dict[str, Task] = {}
    for item in config.data:
        task = item.load(config.base, side)
        if task.name in tasks:
            raise DataError(f'dataset {task.name!r} is named twice in data; give one a label: of its own.')
        tasks[task.name] = task
    settings = asdict(config.evaluator)
    seed_everything(seed, workers=True, verbose=False)
    limits = {name: settings.pop(name) for name in ('max_epochs', 'max_seconds', 'devices')}
    trainer = make_trainer(out=out, progress=progress, callbacks=[every_epoch(out)], use_distributed_sampler=False, **limits)
    flip = [name for name, item in zip(tasks, config.data, strict=True) if item.flip]
    weights = {name: item.weight for name, item in zip(tasks, config.data, strict=True)}
    evaluator = JointClassification(
        tasks, trainer, channels=channels, image_size=side, flip=flip, weights=weights, **settings
    )
    kept = {**asdict(config), 'seed': seed}
    strategy = make_strategy(config.strategy, config.base)
    if resume:
        check(out, kept)
        if exists(out):
            strategy.source = None  # it has started, from what was best then
    space = create(config.space.name, config.space.arguments, evaluator.num_classes, allow_import=True)
    if not isinstance(strategy, Proxyless):  # which runs one candidate at a time
        check_supernet(space, channels, side)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    if resume:
        folder.resume(strategy, out, config.evaluator.max_epochs)
    begin(out, kept, resume=resume)
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
