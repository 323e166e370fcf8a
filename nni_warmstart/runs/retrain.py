"""Retraining of the network that a search found, on all training images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from pytorch_lightning import Callback
from torch import Tensor, nn

from ..data.splits import Images, Splits, split
from ..data.task import Task
from ..errors import ConfigError
from ..evaluators.checkpoints import check_checkpoint, every_epoch
from ..evaluators.classification import classification
from ..evaluators.datamodule import seed_of
from ..evaluators.divergence import StopOnDivergence
from ..evaluators.recalibration import Recalibration
from ..evaluators.seconds import Seconds
from ..evaluators.trainer import make_trainer
from ..nni_adapter.freezing import freeze
from ..nni_adapter.model_spaces import describe
from ..nni_adapter.trial import reports_if_measured
from ..search.held_statistics import HeldStatistics
from ..supernets.export import check_format, export
from ..supernets.network import Network, inherited, is_blind
from ..supernets.supernet import Supernet
from ..utils.costs import parameters
from ..utils.files import write_json
from ..utils.metrics import final_accuracy
from ..utils.modules import tensors_of
from ..utils.progress import waiting
from ..warm_start.classes import classifier_rows, in_order_of, match_classes
from ..warm_start.fitted_network import FITTED, fitted
from .config import OF_TRAINER, SearchConfig
from .folder import EXPORTS, RunFolder, mapping_in
from .found import check_search, costs_of, read_architecture, search_of
from .provenance import SUPERNET, Marked, Provenance
from .setup import check_apart, load_known_task, set_up, versions

_logger = logging.getLogger(__name__)

WEIGHTS = ('scratch', 'inherited')

RATE = 0.2
"""Learning rate of inherited weights, as a share of the evaluator's."""

HELD_RATE, HELD_CLIP = 0.6, 1.0
"""That share where batch-norm statistics are held, and the largest norm of the gradients. See benchmarks/NOTES.md."""

SMOOTHING = 0.1
"""Label smoothing of inherited weights, unless the evaluator has one. See benchmarks/NOTES.md."""


def retrain(
    config: SearchConfig,
    run: str | Path,
    *,
    out: str | Path,
    weights: str = 'scratch',
    exports: Sequence[str] = (),
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    keep_finished: bool = False,
    changed: Iterable[str] = (),
    task: Task | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = _logger.info,
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
        Folder for the results, which no other process may use meanwhile.
    weights
        Initial weights: 'scratch', or 'inherited' for those of the supernet, fitted to its outputs for the network
        (:func:`~nni_warmstart.warm_start.fitted_network.fitted`). They train as :func:`gentle` says.
    exports
        Additional formats: 'pt2' (torch.export), 'onnx'; see :func:`~nni_warmstart.supernets.export.export`.
    seed
        Seed of all random generators.
    resume
        Whether to resume from ``out/checkpoints/last.ckpt`` if it exists.
    overwrite
        Whether to replace an earlier retraining in ``out``.
    keep_finished
        Whether a retraining in ``out`` that has ended with these settings, data and exports is only read where it would be
        resumed.
    changed
        Dotted names of settings of data and space that differ from those of the search on purpose: 'space.width'.
    task
        Images to train on, in place of those that ``config.data`` names.
    progress
        Whether to show progress bars.
    tell
        Called with one line before each export, or if the retraining had been finished.

    Returns
    -------
    dict
        Content of ``result.json``.

    Raises
    ------
    WarmStartError
        If the search, the data or the settings do not work, data or space are not those of the search, ``out`` holds
        another run or is in use, or training diverges.
    """
    folder, run = folder_of(out, weights, exports), search_of(Path(run))
    if folder.path.resolve() == run.resolve():
        raise ConfigError(f'{out} is the folder of the search, whose results must stay; choose another --out.')
    check_apart(config, folder.path)
    if config.evaluator.devices > 1:
        _logger.warning('evaluator.devices = %d is for searches; a network is trained on one.', config.evaluator.devices)
    with folder.claimed(resume=resume, overwrite=overwrite):
        return _retrain(
            config, run, folder, weights, exports, seed, changed, task,
            resume=resume, keep_finished=keep_finished, progress=progress, tell=tell,
        )  # fmt: skip


def folder_of(out: str | Path, weights: str, exports: Sequence[str]) -> RunFolder:
    """Return the folder of a retraining; raise an error for arguments of :func:`retrain` that are unknown."""
    if weights not in WEIGHTS:
        raise ConfigError(f'weights = {weights!r} is unknown; choose one of {", ".join(WEIGHTS)}.')
    for kind in exports:
        check_format(kind)
    return RunFolder(Path(out), 'retraining', tuple(f'network.{kind}' for kind in exports))


def tell_of_lost(folder: RunFolder, kept: Collection[str], tell: Callable[[str], None]) -> None:
    """Say which exports of an earlier network are deleted."""
    earlier = folder.earlier()
    for name in EXPORTS:
        if earlier is not None and name in earlier.results and name not in kept and (folder.path / name).is_file():
            kind = name.rpartition('.')[2]
            tell(f'{folder.path / name} is of the earlier network and is deleted; --export {kind} writes it again')


def is_outdated(folder: RunFolder, supernet: Supernet) -> bool:
    """Check whether the retraining in a folder began with the weights of another supernet."""
    return mapping_in(folder.settings).get(SUPERNET, supernet.key) != supernet.key


def _retrain(
    config: SearchConfig,
    run: Path,
    folder: RunFolder,
    weights: str,
    exports: Sequence[str],
    seed: int,
    changed: Iterable[str],
    given: Task | None,
    *,
    resume: bool,
    keep_finished: bool,
    progress: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    # Make the network.
    clock, architecture, searched = Seconds(time.perf_counter()), read_architecture(run), RunFolder(run).earlier()
    task, data = load_known_task(config, given)
    check_search(config, data, run, changed)
    supernet = Supernet.load(run / 'supernet.safetensors') if weights == 'inherited' else None
    settings = {**asdict(config), 'seed': seed, 'weights': weights, 'architecture': architecture}
    if supernet is not None:
        settings[SUPERNET] = supernet.key
        if resume and is_outdated(folder, supernet):
            raise ConfigError(
                f'the search in {run} has gone on since the training in {folder.path} began; delete that folder to train '
                'the network anew, or choose another --out.'
            )
    provenance, checkpoint = Provenance.of(settings, data), None
    exported: list[str] = []  # of the same network, at an earlier end
    if resume:
        provenance, checkpoint = folder.resumed(provenance)
        finished = folder.finished(provenance) if keep_finished or checkpoint is None else None
        if finished is not None and {f'network.{kind}' for kind in exports} <= set(finished.get('files', ())):
            tell(f'Finished before: {folder.path}')
            return finished
        before = folder.ended(provenance).get('files', ())
        exported = [name for name in EXPORTS if name in before and (folder.path / name).is_file()]
    problem = set_up(config, task, seed, learning)
    described = describe(problem.space)
    resumed = checkpoint is not None  # with weights that have been fitted and trained already
    images = None if supernet is None or resumed else some_images(problem.splits.train)
    network = make_network(problem.space, architecture, supernet, problem.task.class_names, images)
    if is_blind(network, problem.image_shape):
        raise ConfigError(
            f'the network that {run} found gives all images the same scores: no path of its operations leads from the '
            'input to the output, a collapse of DARTS; search for longer, or with strategy.parameter_free_cap.'
        )
    if checkpoint is not None:
        check_checkpoint(folder.checkpoint, checkpoint, network, '_model.', config.evaluator.max_epochs)
    # Train it.
    tell_of_lost(folder, (*exported, *folder.exports), tell)
    folder.begin(provenance, resume=resume)
    training = {
        **config.evaluator.module_arguments(),
        'flip': config.data.flip,
        **config.evaluator.trainer_arguments(),
        'devices': 1,
        'num_nodes': 1,
        'stop_at': None,  # of searches; test images must not decide when a training ends
    }
    measured_on = 'test' if len(problem.task.test_x) else 'validation'
    callbacks: list[Callback] = [StopOnDivergence(), Marked(provenance), clock]
    statistics: Callback = Recalibration(problem.splits.train, training['batch_size'])
    if supernet is not None:
        training, statistics = gentle(training, supernet, network, problem.splits.train)
    callbacks.append(statistics)
    curve = train(
        network,
        problem.splits,
        problem.task.num_classes,
        training,
        folder.path,
        seed=seed,
        checkpoint=None if checkpoint is None else folder.checkpoint,
        measured_on=measured_on,
        callbacks=callbacks,
        progress=progress,
    )
    # Write the network and the results.
    normalisation = {key: getattr(problem.splits.train, key).flatten().tolist() for key in ('mean', 'std')}
    result = {
        'data': problem.task.name,
        'weights': weights,
        'architecture': architecture,
        'parameters': parameters(network),
        'costs': costs_of(network, problem.image_shape),
        'curve': curve,
        'accuracy': curve[-1],  # of the network that is written; 'final' is the mean of the last epochs
        'final': final_accuracy(curve),
        'measured_on': measured_on,
        **normalisation,
        'files': ['network.safetensors', *exported],
        'seed': seed,
        'seconds': clock.seconds,
        'versions': versions(),
        'run': {**provenance.to_dict(), 'search': searched and searched.run},
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
    folder.forget(name for name in EXPORTS if name not in exported)
    for kind in exports:  # at the end: a network that cannot be exported is saved all the same
        channels, image_size = problem.image_shape
        tell(f'Exporting network.{kind}')
        with waiting(f'exporting network.{kind}'):
            export(network, folder.path / f'network.{kind}', torch.zeros(2, channels, image_size, image_size))
        result['files'] = list(dict.fromkeys([*result['files'], f'network.{kind}']))
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


def some_images(images: Images) -> Tensor:
    """Draw the images on which an inherited network is fitted, always the same."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:FITTED]][0]


def make_network(
    space: ModelSpace,
    architecture: dict[str, Any],
    supernet: Supernet | None,
    class_names: Sequence[str] = (),
    images: Tensor | None = None,
) -> nn.Module:
    """Make the network of an architecture, with fresh weights or with those of a supernet.

    With ``images`` it is fitted to the outputs of the supernet.
    The rows of an inherited classifier are in the order of ``class_names``; classes that the search did not have start
    afresh.
    """
    if supernet is None:
        return freeze(space, architecture)
    classifier, fresh = classifier_rows(supernet, ()), space.state_dict()
    if classifier and classifier.keys() <= fresh.keys():
        name = next(iter(classifier))
        words = {'user': '--weights inherited', 'remedy': 'use --weights scratch'}
        match = match_classes(supernet, classifier[name], class_names, len(fresh[name]), **words)
        if match.missing or not match.by_name:
            _logger.warning('The classes of the search are taken %s.', match.text)
        supernet = in_order_of(supernet, class_names, match, list(classifier), fresh)
    if images is None:
        return inherited(supernet, architecture, space)
    return fitted(supernet, architecture, space, images=images)


def gentle(
    settings: dict[str, Any], supernet: Supernet, network: nn.Module, images: Images
) -> tuple[dict[str, Any], Callback]:
    """Return settings of :func:`train` for a network with the weights of ``supernet``, and what keeps its statistics right.

    The learning rate is :data:`RATE` of the one in ``settings``, and labels are smoothed by :data:`SMOOTHING`, unless
    ``settings`` say otherwise. Batch-norm statistics are re-estimated before every validation. Those of a pretrained network
    are held, as in the search around it; such a network learns at :data:`HELD_RATE` of the rate, and its gradients are
    clipped to a norm of :data:`HELD_CLIP`.
    """
    rate, smoothing = settings['learning_rate'], settings.get('label_smoothing')
    settings = {**settings, 'label_smoothing': SMOOTHING if smoothing is None else smoothing}
    if not supernet.holds_statistics:
        return {**settings, 'learning_rate': RATE * rate}, Recalibration(images, settings['batch_size'])
    statistics = HeldStatistics()
    statistics.hold_all(network)
    return {**settings, 'learning_rate': HELD_RATE * rate, 'gradient_clip_val': HELD_CLIP}, statistics


def train(
    network: nn.Module,
    splits: Splits,
    num_classes: int,
    settings: dict[str, Any],
    out: str | Path,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    measured_on: str = 'validation',
    callbacks: Sequence[Callback] = (),
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
    seed, progress
        Same as in :func:`retrain`.
    checkpoint
        File to resume from.
    measured_on
        Kind of the images in ``splits.val``, 'validation' or 'test', by which figures are named in the log.
    callbacks
        Further callbacks of Lightning.
    """
    folder, epochs = RunFolder(Path(out)), Epochs(seed)
    limits = {key: settings[key] for key in OF_TRAINER if key in settings}
    all_callbacks = [epochs, every_epoch(folder.checkpoint), *callbacks]
    trainer = make_trainer(out=folder.path, progress=progress, callbacks=all_callbacks, **limits)
    others = {key: value for key, value in settings.items() if key not in limits}
    evaluator = classification(splits, num_classes, trainer, **others, seed=seed, tested=measured_on == 'test')
    evaluator.module.set_model(network)
    with reports_if_measured(evaluator.module):
        trainer.fit(evaluator.module, datamodule=evaluator.datamodule, ckpt_path=checkpoint, weights_only=True)
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
            self.curve.append(float(trainer.callback_metrics[f'{pl_module.stage}_acc']))

    def state_dict(self) -> dict[str, Any]:
        return {'curve': self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve = list(state_dict['curve'])
