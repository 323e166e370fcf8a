"""One search from its configuration: the same code under nnictl and on the command line."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import Proxyless
from pytorch_lightning import seed_everything
from torch.utils.data import DataLoader

from ..data.splits import split
from ..data.task import Task
from ..evaluators.checkpoints import every_epoch, exists
from ..evaluators.classification import classification
from ..evaluators.trainer import make_trainer
from ..nni_adapter.model_spaces import check_input, check_supernet, create, input_of, resolve
from ..search.oneshot_module import DartsSearchModule
from ..supernets.history import record
from ..supernets.supernet import Supernet
from ..utils.files import write_json
from ..warm_start.report import TransferReport
from ..warm_start.transfer import transfer
from ..zoo.selection import SourceSelector
from ..zoo.zoo import SupernetZoo
from . import folder
from .config import SearchConfig, make_strategy
from .folder import begin, check, output_folder

_SHOWN = 512  # pictures of either half on which a preview is fitted, and measured


def run_search(
    config: SearchConfig, *, seed: int, out: str | Path, resume: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Search, and leave in ``out``: ``supernet.safetensors``, ``architecture.json``, ``result.json``, checkpoints.

    Parameters
    ----------
    config
        Checked settings.
    seed
        Of everything random.
    out
        Folder for the results.
    resume
        Go on from ``out/checkpoints/last.ckpt`` when it is there.
    progress
        Whether to show progress bars.

    Returns
    -------
    dict
        Content of ``result.json``.

    Raises
    ------
    WarmStartError
        If data, space, source or settings do not work.
    """
    out = output_folder(out)
    start = time.perf_counter()
    task = adapted(config)
    channels, side = task.train_x.shape[1:3]
    splits = split(task, val_share=config.evaluator.val_share)
    seed_everything(seed, workers=True, verbose=False)
    space = create(config.space.name, config.space.arguments, task.num_classes, allow_import=True)
    check_input(space, channels, side, task.num_classes)
    strategy = make_strategy(config.strategy, config.base)
    if not isinstance(strategy, Proxyless):  # which runs one candidate at a time
        check_supernet(space, channels, side)
    evaluator = classification(
        splits,
        task.num_classes,
        make_trainer(
            config.evaluator.max_epochs,
            out,
            progress=progress,
            callbacks=[every_epoch(out)],
            max_seconds=config.evaluator.max_seconds,
            devices=config.evaluator.devices,
        ),
        **config.evaluator.module(),
        flip=config.data.flip,
    )
    settings = {**asdict(config), 'seed': seed}
    if resume:
        check(out, settings)
        if exists(out):
            strategy.source = None  # it has started, from what was best then
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    module = cast(DartsSearchModule, strategy.oneshot_module)
    module.identity.count_from(start)
    if resume:
        folder.resume(strategy, out, config.evaluator.max_epochs)
    begin(out, settings, resume=resume)
    strategy.run()
    curve, warm_start = strategy.curve, module.identity.warm_start
    architecture = {'sample': module.export(), 'probabilities': module.probabilities()}
    result = {
        'strategy': config.strategy.name,
        'source': warm_start and warm_start['source'],
        'data': task.name,
        'seed': seed,
        'final': module.final,
        'curve': curve,
        'alphas': module.alphas,
        'warm_start': warm_start,
        'architecture': architecture['sample'],
        'seconds': module.identity.seconds,
        'versions': {name: version(name) for name in ('nni-warmstart', 'nni', 'torch', 'pytorch-lightning')},
    }
    if not module.trainer.is_global_zero:  # of several devices the first writes
        return result
    history = record(seed=seed, curve=curve, source=result['source'], pictures=(channels, side), licence=config.data.licence)
    Supernet.from_strategy(
        strategy, name=f'{config.space.name}-{task.name}'.replace(':', '-'), dataset=task, history=history
    ).save(out / 'supernet.safetensors')  # fmt: skip
    write_json(out / 'architecture.json', architecture)
    write_json(out / 'result.json', result)
    return result


def adapted(config: SearchConfig) -> Task:
    """The data of a search, as its space takes them."""
    cls = resolve(config.space.name, allow_import=True)
    channels, side = input_of(cls, config.space.arguments)
    return config.data.load(config.base, side).adapted(channels, side)


def fitting(config: SearchConfig, task: Task, zoo: SupernetZoo) -> list[Supernet]:
    """Entries of a zoo among which the rules of a search's ``source`` choose.

    Raises
    ------
    ZooError
        If none fits.
    """
    strategy = make_strategy(config.strategy, config.base)
    space = create(config.space.name, config.space.arguments, task.num_classes, allow_import=True)
    train = DataLoader(split(task, val_share=config.evaluator.val_share).train, batch_size=_SHOWN)
    selector = SourceSelector(zoo, strategy.mutate_model(space), lambda _: train, strategy.transfer_settings)
    return list(selector.candidates.values())


def preview(config: SearchConfig, source: Supernet) -> TransferReport:
    """What a search would inherit from ``source``, without training; fitted on some of its pictures only.

    Raises
    ------
    WarmStartError
        If the space does not work, or has nothing in common with the source.
    """
    task = adapted(config)
    channels, side = task.train_x.shape[1:3]
    seed_everything(config.seed, workers=True, verbose=False)
    space = create(config.space.name, config.space.arguments, task.num_classes, allow_import=True)
    check_input(space, channels, side, task.num_classes)
    strategy = make_strategy(config.strategy, config.base)
    settings = replace(strategy.transfer_settings, max_samples=_SHOWN)
    splits = split(task, val_share=config.evaluator.val_share)
    train, val = (DataLoader(part, batch_size=_SHOWN) for part in (splits.train, splits.val))
    return transfer(source, strategy.mutate_model(space), data=train, val_data=val, **vars(settings))
