"""Retraining of the network that a search found, on all training images."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from pytorch_lightning import Callback
from torch import nn

from ..data.splits import Images, Splits, split
from ..data.task import Task
from ..errors import ConfigError
from ..evaluators.checkpoints import every_epoch
from ..evaluators.classification import classification
from ..evaluators.datamodule import seed_of
from ..evaluators.trainer import make_trainer
from ..nni_adapter.freezing import freeze
from ..nni_adapter.model_spaces import describe
from ..supernets.export import check_format, export
from ..supernets.network import Network, inherited, is_blind
from ..supernets.supernet import Supernet
from ..utils.files import write_json
from ..utils.json_files import read_json
from ..utils.metrics import final_accuracy
from ..utils.modules import tensors_of
from .config import OF_TRAINER, SearchConfig
from .folder import RunFolder
from .setup import load_task, set_up, versions

_logger = logging.getLogger(__name__)

WEIGHTS = ('scratch', 'inherited')


def retrain(
    config: SearchConfig,
    run: str | Path,
    *,
    out: str | Path,
    weights: str = 'scratch',
    exports: Sequence[str] = (),
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train the network that the search in ``run`` found, and write ``network.safetensors`` and ``result.json`` to ``out``.

    It is trained on all training images, including those of the alphas, with the settings of the evaluator, and measured on
    the test images. If the task has no test images, it is trained and measured on the two halves of the search.

    Parameters
    ----------
    config
        Checked settings; those of the strategy are not used.
    run
        Folder of a finished search.
    out
        Folder for the results.
    weights
        Initial weights: 'scratch', or 'inherited' for those of the supernet.
    exports
        Additional formats: 'pt2' (torch.export), 'onnx'; see :func:`~nni_warmstart.supernets.export.export`.
    seed
        Seed of all random generators.
    resume
        Whether to resume from ``out/checkpoints/last.ckpt`` if it exists.
    progress
        Whether to show progress bars.

    Returns
    -------
    dict
        Content of ``result.json``.

    Raises
    ------
    WarmStartError
        If the search, the data or the settings do not work.
    """
    # Check the arguments.
    if weights not in WEIGHTS:
        raise ConfigError(f'weights = {weights!r} is unknown; choose one of {", ".join(WEIGHTS)}.')
    for kind in exports:
        check_format(kind)
    folder, began = RunFolder(Path(out)), time.perf_counter()
    folder.make()
    if folder.path.resolve() == Path(run).resolve():
        raise ConfigError(f'{out} is the folder of the search, whose results must stay; choose another --out.')
    if config.evaluator.devices > 1:
        _logger.warning('evaluator.devices = %d is for searches; a network is trained on one.', config.evaluator.devices)
    # Make the network.
    architecture = read_architecture(run)
    problem = set_up(config, load_task(config), seed, learning)
    described = describe(problem.space)
    network = make_network(problem.space, architecture, Path(run) if weights == 'inherited' else None)
    if is_blind(network, problem.image_shape):
        raise ConfigError(
            f'the network that {run} found gives all images the same scores: no path of its operations leads from the '
            'input to the output, a collapse of DARTS; search for longer, or with strategy.parameter_free_cap.'
        )
    # Train it.
    settings = {**asdict(config), 'seed': seed, 'weights': weights, 'architecture': architecture}
    if resume:
        folder.check_settings(settings)
    folder.begin(settings, resume=resume)
    training = {
        **config.evaluator.module_arguments(),
        'flip': config.data.flip,
        **config.evaluator.trainer_arguments(),
        'devices': 1,
        'num_nodes': 1,
    }
    curve = train(
        network, problem.splits, problem.task.num_classes, training, folder.path, seed=seed, resume=resume, progress=progress
    )
    # Write the network and the results.
    normalisation = {key: getattr(problem.splits.train, key).flatten().tolist() for key in ('mean', 'std')}
    result = {
        'data': problem.task.name,
        'weights': weights,
        'architecture': architecture,
        'parameters': sum(parameter.numel() for parameter in network.parameters()),
        'curve': curve,
        'final': final_accuracy(curve),
        'measured_on': 'test' if len(problem.task.test_x) else 'validation',
        **normalisation,
        'files': ['network.safetensors'],
        'seed': seed,
        'seconds': time.perf_counter() - began,
        'versions': versions(),
    }
    Network(
        space=described,
        architecture=architecture,
        tensors=tensors_of(network),
        pictures=problem.image_shape,
        **normalisation,
        class_names=list(problem.task.class_names),
        history={key: result[key] for key in ('data', 'weights', 'seed', 'final', 'measured_on', 'versions')},
    ).save(folder.path / 'network.safetensors')
    write_json(folder.path / 'result.json', result)
    for kind in exports:  # at the end: a network that cannot be exported is saved all the same
        channels, image_size = problem.image_shape
        export(network, folder.path / f'network.{kind}', torch.zeros(2, channels, image_size, image_size))
        result['files'].append(f'network.{kind}')
        write_json(folder.path / 'result.json', result)
    return result


def learning(task: Task, val_share: float) -> Splits:
    """Split a task into all training images and the test images or, without test images, into the halves of a search.

    Images are normalised as in the search, as inherited weights require.
    """
    splits = split(task, val_share=val_share)
    if splits.test is None:
        return splits
    whole = Images(task.train_x, task.train_y, splits.train.mean, splits.train.std, task.name)
    return Splits(whole, splits.test, None)


def read_architecture(run: str | Path) -> dict[str, Any]:
    """Read the architecture that a search left.

    Raises
    ------
    ConfigError
        If the folder has no architecture.
    """
    path = Path(run) / 'architecture.json'
    try:
        return dict(read_json(path, ConfigError)['sample'])
    except OSError as error:
        raise ConfigError(f'{path} cannot be read ({error.strerror}); give the folder of a finished search.') from error
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} holds no architecture of `nni-warmstart search`.') from error


def make_network(space: ModelSpace, architecture: dict[str, Any], run: Path | None) -> nn.Module:
    """Make the network of an architecture, with fresh weights or with those of the supernet in ``run``."""
    if run is None:
        return freeze(space, architecture)
    return inherited(Supernet.load(run / 'supernet.safetensors'), architecture, space)


def train(
    network: nn.Module,
    splits: Splits,
    num_classes: int,
    settings: dict[str, Any],
    out: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
) -> list[float]:
    """Train with SGD and a cosine rate, and return the accuracy on ``splits.val`` after every epoch.

    Parameters
    ----------
    network
        Network, changed in place.
    splits
        Images to train on, and to measure on.
    num_classes
        Number of classes of the task.
    settings
        Settings of the trainer, of which max_epochs is required, and settings of
        :func:`~nni_warmstart.evaluators.classification.classification`.
    out
        Folder for the log and the checkpoint.
    seed, resume, progress
        Same as in :func:`retrain`.
    """
    folder, epochs = RunFolder(Path(out)), Epochs(seed)
    limits = {key: settings[key] for key in OF_TRAINER if key in settings}
    callbacks = [epochs, every_epoch(folder.checkpoint)]
    trainer = make_trainer(out=folder.path, progress=progress, callbacks=callbacks, **limits)
    others = {key: value for key, value in settings.items() if key not in limits}
    evaluator = classification(splits, num_classes, trainer, **others, seed=seed)
    evaluator.module.set_model(network)
    path = folder.checkpoint_for(network, '_model.', settings['max_epochs']) if resume else None
    trainer.fit(evaluator.module, datamodule=evaluator.datamodule, ckpt_path=path, weights_only=True)
    network.eval()
    return epochs.curve


class Epochs(Callback):
    """Records the accuracies, and seeds every epoch by its number, so that a resumed run draws the same numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.curve: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:  # only now: the loader draws a number before, at a moment that varies
            torch.manual_seed(seed_of(self.seed, trainer.current_epoch))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.curve.append(float(trainer.callback_metrics['val_acc']))

    def state_dict(self) -> dict[str, Any]:
        return {'curve': self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = list(state_dict['curve'])
