"""Search from a configuration: the same code under nnictl and on the command line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.utils.data import DataLoader

from ..data.lazy import LazyImages
from ..data.task import Task
from ..evaluators.checkpoints import every_epoch
from ..evaluators.classification import classification
from ..evaluators.divergence import StopOnDivergence
from ..evaluators.stop_at import StopAt
from ..evaluators.trainer import make_trainer
from ..nni_adapter.freezing import freeze
from ..search.oneshot_module import DartsSearchModule
from ..search.strategies import WarmStartDARTS
from ..supernets.history import record
from ..supernets.supernet import Supernet
from ..utils.files import write_json
from ..utils.progress import waiting
from ..utils.random import quiet_randomness
from ..warm_start.report import TransferReport
from ..warm_start.transfer import transfer
from ..zoo.ranking import own_space
from ..zoo.selection import SourceSelector
from ..zoo.zoo import SupernetZoo
from .config import SearchConfig
from .folder import RunFolder
from .found import costs_of
from .provenance import Marked, Provenance
from .setup import Problem, check_apart, load_known_task, load_task, make_space, set_up, start, strategy_for, versions
from .strategies import make_strategy

_logger = logging.getLogger(__name__)

_SHOWN = 512  # images of each half on which a preview is fitted and measured


def run_search(
    config: SearchConfig,
    *,
    seed: int,
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    keep_finished: bool = False,
    task: Task | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = _logger.info,
) -> dict[str, Any]:
    """Run a search, and write ``supernet.safetensors``, ``architecture.json``, ``result.json`` and checkpoints to ``out``.

    Parameters
    ----------
    config
        Checked settings.
    seed
        Seed of all random generators.
    out
        Folder for the results, which no other process may use meanwhile.
    resume
        Whether to resume from ``out/checkpoints/last.ckpt`` if it exists.
    overwrite
        Whether to replace an earlier search in ``out``.
    keep_finished
        Whether a search in ``out`` that has ended with these settings and data is only read where it would be resumed.
    task
        Images to search on, in place of those that ``config.data`` names.
    progress
        Whether to show progress bars.
    tell
        Called with one line on what the search starts from, before it is trained.

    Returns
    -------
    dict
        Content of ``result.json``.

    Raises
    ------
    WarmStartError
        If data, space, source or settings do not work, ``out`` holds another run or is in use, or training diverges.
    """
    folder, began = RunFolder(Path(out), 'search'), time.perf_counter()
    check_apart(config, folder.path)
    with folder.claimed(resume=resume, overwrite=overwrite):
        return _search(
            config, seed, folder, began, task, resume=resume, keep_finished=keep_finished, progress=progress, tell=tell
        )


def _search(
    config: SearchConfig,
    seed: int,
    folder: RunFolder,
    began: float,
    given: Task | None,
    *,
    resume: bool,
    keep_finished: bool,
    progress: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    # Set up the images, the model space, the strategy and the evaluator.
    task, data = load_known_task(config, given)
    provenance, checkpoint = Provenance.of({**asdict(config), 'seed': seed}, data), None
    if resume:
        provenance, checkpoint = folder.resumed(provenance)
        finished = folder.finished(provenance) if keep_finished or checkpoint is None else None
        if finished is not None:
            return finished
    problem = set_up(config, task, seed)
    strategy = strategy_for(config, problem.space, problem.image_shape)
    trainer = make_trainer(
        out=folder.path,
        progress=progress,
        callbacks=[every_epoch(folder.checkpoint), StopOnDivergence(), Marked(provenance)],
        **config.evaluator.trainer_arguments(),
    )
    evaluator = classification(
        problem.splits, problem.task.num_classes, trainer, **config.evaluator.module_arguments(), flip=config.data.flip
    )
    # Initialise, with the warm start or from a checkpoint, and train.
    epochs = config.evaluator.max_epochs
    start(strategy, problem.space, evaluator, folder, provenance, checkpoint, max_epochs=epochs, resume=resume)
    tell(_beginning(config, strategy, folder, resumed=checkpoint is not None))
    module = cast(DartsSearchModule, strategy.oneshot_module)
    module.identity.count_from(began)
    found: dict[str, Any] = {}

    def keep() -> None:
        """Write the results, before anything is measured that may fail."""
        found['architecture'] = {'sample': module.export(), 'probabilities': module.probabilities()}
        if module.trainer.is_global_zero:  # only the first of several devices writes
            with waiting('keeping the supernet, with sketches of its data'):
                _found(config, problem, strategy, seed).save(folder.path / 'supernet.safetensors')
            write_json(folder.path / 'architecture.json', found['architecture'])

    module.ending.keep.insert(0, keep)  # before the supernet is remembered in a zoo
    strategy.run()
    # Measure the found network, and write the figures.
    costs = _costs(config, problem, found['architecture']['sample'])
    warm_start = module.identity.warm_start
    result = {
        'strategy': config.strategy.name,
        'source': warm_start and warm_start['source'],
        'data': problem.task.name,
        'seed': seed,
        'final': module.final,
        'stop_at': next((each.to_dict() for each in trainer.callbacks if isinstance(each, StopAt)), None),
        'curve': strategy.curve,
        'alphas': module.alphas,
        'warm_start': warm_start,
        'architecture': found['architecture']['sample'],
        'costs': costs,
        'seconds': module.identity.seconds,
        'versions': versions(),
        'run': {**provenance.to_dict(), 'sources': module.identity.sources},
    }
    if module.trainer.is_global_zero:
        write_json(folder.path / 'architecture.json', {**found['architecture'], 'costs': costs})
        write_json(folder.path / 'result.json', result)
    return result


def _costs(config: SearchConfig, problem: Problem, architecture: dict[str, Any]) -> dict[str, Any] | None:
    """Return the costs of the found network, see :func:`~nni_warmstart.runs.found.costs_of`."""
    with waiting('measuring the found network'), quiet_randomness():
        network = freeze(make_space(config.space, problem.task.num_classes), architecture)
        return costs_of(network, problem.image_shape)


def _beginning(config: SearchConfig, strategy: WarmStartDARTS, folder: RunFolder, *, resumed: bool) -> str:
    """Return one line on what an initialised search starts from."""
    if resumed:
        return f'Resumed from {folder.checkpoint}'
    if strategy.report is not None:
        return f'W{strategy.report.summary()[1:]}'
    if not config.strategy.name.startswith('WarmStart'):
        return f"Cold start: {config.strategy.name} is NNI's own strategy; WarmStart{config.strategy.name} takes a source."
    return 'Cold start: no source was given; strategy.source = auto takes one from the zoo.'


def _found(config: SearchConfig, problem: Problem, strategy: WarmStartDARTS, seed: int) -> Supernet:
    """Return the trained supernet, with facts about the search in its record."""
    warm_start = cast(DartsSearchModule, strategy.oneshot_module).identity.warm_start
    source = warm_start and warm_start['source']
    history = record(
        seed=seed, curve=strategy.curve, source=source, pictures=problem.image_shape, licence=config.data.licence
    )
    name = f'{config.space.name}-{problem.task.name}'.replace(':', '-')
    train = problem.splits.train
    images = train.sample('sample of the training images') if isinstance(train.x, LazyImages) else problem.task
    return Supernet.from_strategy(strategy, name=name, dataset=images, history=history)


def fitting(config: SearchConfig, task: Task, zoo: SupernetZoo) -> list[Supernet]:
    """Return the entries of a zoo among which the rules of a search's ``source`` choose.

    Raises
    ------
    WarmStartError
        If no entry fits, or the space does not work.
    """
    strategy, problem = make_strategy(config.strategy, config.base), set_up(config, task, None)
    train = DataLoader(problem.splits.train, batch_size=_SHOWN)
    selector = SourceSelector(zoo, strategy.mutate_model(problem.space), lambda _: train, strategy.transfer_settings)
    return list(selector.candidates.values())


def target_of(config: SearchConfig) -> Callable[[Supernet, int], nn.Module]:
    """Return a function that makes the supernet in which a ranking runs an entry of a zoo, for a number of classes.

    It is of the entry's own space, or, for a network without choices, of the space of the search.
    """

    def make(entry: Supernet, num_classes: int) -> nn.Module:
        if not entry.is_network:
            return own_space(entry, num_classes)
        return make_strategy(config.strategy, config.base).mutate_model(make_space(config.space, num_classes))

    return make


def preview(config: SearchConfig, source: Supernet) -> TransferReport:
    """Return the report of what a search would inherit from ``source``; fitted on a part of the images, without training.

    Raises
    ------
    WarmStartError
        If the space does not work, or has nothing in common with the source.
    """
    problem = set_up(config, load_task(config), config.seed)
    strategy = make_strategy(config.strategy, config.base)
    settings = replace(strategy.transfer_settings, max_samples=_SHOWN)
    train, val = (DataLoader(part, batch_size=_SHOWN) for part in (problem.splits.train, problem.splits.val))
    with waiting('mapping the source'):
        return transfer(source, strategy.mutate_model(problem.space), data=train, val_data=val, **vars(settings))
