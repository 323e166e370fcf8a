"""What the benchmarks share of a search: part of a task, and the search itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything

from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import Task, from_npz, split, stratified_split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.search.alpha_rate import NNIS

SETTINGS: dict[str, Any] = {'batch_size': 32, 'learning_rate': 0.05, 'weight_decay': 3e-4}
"""Settings of the evaluator."""


def part(folder: Path, name: str, pictures: int) -> Task:
    """A task with at most so many training pictures (or eight per class)."""
    task = from_npz(folder / f'{name}.npz')
    share = max(pictures, 8 * task.num_classes) / len(task.train_y)
    if share < 1:
        index, _ = stratified_split(task.train_y, share, 0)
        task = replace(task, train_x=task.train_x[index], train_y=task.train_y[index])
    return task


def load(folder: Path, name: str, pictures: int = 1000, image_size: int = 16) -> Task:
    """A part of a task, of ``image_size`` pixels in colour."""
    return part(folder, name, pictures).adapted(3, image_size)


def arguments_of(space: dict[str, Any]) -> dict[str, Any]:
    """What a space is made with: its description without the name."""
    return {key: value for key, value in space.items() if key != 'name'}


def search(
    space: Callable[[int], ModelSpace],
    task: Task,
    *,
    seed: int,
    epochs: int,
    settings: dict[str, Any] = SETTINGS,
    **strategy: Any,
) -> dict[str, Any]:
    """One search, cold or warm, of the space for the task's classes.

    ``strategy`` are arguments of :class:`~nni_warmstart.WarmStartDARTS`; the alphas' rate is NNI's, the default when these
    searches were run first. The space is made here, so that its first weights, too, are of the seed.
    """
    start = time.perf_counter()
    warm = searched(space, task, seed=seed, epochs=epochs, settings=settings, **strategy)
    found = {
        'curve': [round(figures['default'], 5) for figures in warm.curve],
        'test_accuracy': warm.oneshot_module.final['test_accuracy'],
        'seconds': time.perf_counter() - start,
    }
    if warm.report is not None:
        found |= {'source': warm.report.source, 'zero_shot': warm.report.zero_shot_accuracy}
        found |= {'inherited': warm.report.share_inherited, 'refit_head': warm.settings.refit_head}
        found |= {'start_seconds': sum(warm.report.seconds.values())}
    return found


def searched(
    space: Callable[[int], ModelSpace], task: Task, *, seed: int, epochs: int, settings: dict[str, Any], **strategy: Any
) -> WarmStartDARTS:
    """Return the strategy after a search, as in :func:`search`."""
    seed_everything(seed, workers=True, verbose=False)
    warm = WarmStartDARTS(**{'gradient_clip_val': 5.0, 'arc_learning_rate': NNIS, **strategy})
    with tempfile.TemporaryDirectory() as out:
        evaluator = classification(split(task), task.num_classes, make_trainer(epochs, out, progress=False), **settings)
        warm(RawFormatModelSpace(space(task.num_classes), evaluator), SequentialExecutionEngine())
    return warm
