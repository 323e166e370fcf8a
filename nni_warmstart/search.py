"""One search from its configuration: the same code under nnictl and on the command line."""

from __future__ import annotations

import logging
import math
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from . import spaces, storage
from .config import SearchConfig
from .data import split
from .errors import ConfigError, DataError
from .evaluator import classification, make_trainer
from .strategy import WarmStartDARTS
from .supernet import Supernet

_logger = logging.getLogger(__name__)


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
    out = Path(out)
    start = time.perf_counter()
    cls = spaces.resolve(config.space.name, allow_import=True)
    channels, side = spaces.input_of(cls, config.space.arguments)
    task = config.data.load(config.base).adapted(channels, side)
    splits = split(task, val_share=config.evaluator.val_share)
    if len(splits.train) < 2:
        raise DataError(f'{task.name} has {len(splits.train)} training picture after the split; at least two are needed.')
    seed_everything(seed, workers=True, verbose=False)
    space = spaces.create(config.space.name, config.space.arguments, task.num_classes, allow_import=True)
    check_input(space, channels, side)
    strategy = config.make_strategy()
    evaluator = classification(
        splits,
        task.num_classes,
        make_trainer(config.evaluator.max_epochs, out, progress=progress, callbacks=[_checkpoints(out)]),
        batch_size=config.evaluator.batch_size,
        learning_rate=config.evaluator.learning_rate,
        weight_decay=config.evaluator.weight_decay,
    )
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    if resume:
        _resume(strategy, out)
    strategy.run()
    curve, module = strategy.curve, strategy.oneshot_module
    architecture = {'sample': module.export(), 'probabilities': module.export_probs()}
    result = {
        'strategy': config.strategy.name,
        'source': None if strategy.report is None else strategy.report.source,
        'data': task.name,
        'seed': seed,
        'final': _plain(getattr(module, 'final', {})),
        'curve': [_plain(figures) for figures in curve],
        'warm_start': None if strategy.report is None else strategy.report.to_dict(),
        'architecture': architecture['sample'],
        'seconds': time.perf_counter() - start,
        'versions': {name: version(name) for name in ('nni-warmstart', 'nni', 'torch', 'pytorch-lightning')},
    }
    Supernet.from_strategy(
        strategy, name=f'{config.space.name}-{task.name}'.replace(':', '-'), dataset=task,
        history={'seed': seed, 'curve': result['curve'], 'source': result['source']},
    ).save(out / 'supernet.safetensors')  # fmt: skip
    storage.write_json(out / 'architecture.json', architecture)
    storage.write_json(out / 'result.json', result)
    return result


def check_input(space: ModelSpace, channels: int, side: int) -> None:
    """Refuse pictures that the space cannot take, before anything is trained.

    Raises
    ------
    ConfigError
        If a picture of that size does not go through.
    """
    was_training = space.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            space.eval()(torch.zeros(2, channels, side, side))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f'pictures of {channels} channels and {side} x {side} pixels do not go through {type(space).__name__} '
            f'({" ".join(str(error).split())}); set space.image_size (and space.in_channels) to what it can take.'
        ) from error
    finally:
        space.train(was_training)


def _checkpoints(out: Path) -> ModelCheckpoint:
    """One file, ``checkpoints/last.ckpt``, replaced atomically at the end of each epoch, after its validation."""
    return ModelCheckpoint(
        dirpath=str(out / 'checkpoints'), filename='last', save_on_train_epoch_end=True, enable_version_counter=False
    )


def _resume(strategy: WarmStartDARTS, out: Path) -> None:
    checkpoint = out / 'checkpoints' / 'last.ckpt'
    if not checkpoint.is_file():
        _logger.warning('Nothing to resume: %s does not exist; starting anew.', checkpoint)
        return
    strategy.load_state_dict({'ckpt_path': str(checkpoint)})


def _plain(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}
