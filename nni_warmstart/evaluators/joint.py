"""JointClassification: one supernet body trained on many datasets at once, one head per dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import nni
from nni.nas.evaluator.pytorch import Lightning, Trainer

from ..data.augmentation import Augmentation
from ..data.labelled import labelled
from ..data.task import Task
from ..errors import DataError
from ..utils.checks import Expected, Range, check, checks_arguments
from .joint_data import JointData
from .joint_module import JointModule
from .stop_at import StopAt
from .trainer import SAFE_LOADING
from .workers import Workers

BATCH_NORMS = ('shared', 'per_dataset')


@nni.trace
class JointClassification(Lightning):
    """Evaluator for NNI's one-shot strategies over several datasets.

    ``NasExperiment(space, JointClassification({'a': a, 'b': b}), WarmStartDARTS()).run()`` trains one supernet with shared
    alphas. The classifier of the space is replaced by one with the classes of all datasets, in the order given; their
    number is :attr:`num_classes`. Validation accuracies of every dataset (``val_acc/NAME``) and their mean are shown as
    curves on NNI's page.

    Parameters
    ----------
    datasets
        Name -> labelled images: a :class:`~nni_warmstart.data.Task`, a torch dataset of ``(image, class)`` or two
        arrays; or a list of tasks. Image sizes, channels (1 or 3) and numbers of classes may differ.
    trainer
        NNI's traced Lightning trainer, which needs ``max_epochs``; None for one with ``epochs`` epochs.
    epochs
        Number of epochs if no trainer is given.
    batch_size
        Images per batch, all of one dataset.
    arc_batch_size
        Images per batch of the alphas, under our strategies; None for ``batch_size``. A quarter of it saves a third of the
        time.
    steps_per_epoch
        Number of training batches per epoch; None for one per validation batch. Under NNI's own strategies it is a minimum:
        their epochs continue until the alphas have been trained on every validation image once.
    learning_rate, weight_decay
        Settings of SGD with momentum and a cosine schedule.
    temperature
        Datasets are drawn with probability proportional to ``weight * n ** (1 / temperature)``.
    weights
        Dataset -> weight in the draws, larger for data that are harder to learn; 1 for datasets without one.
    jitter, crop, cutout
        Augmentation of training images, see :class:`~nni_warmstart.data.augmentation.Augmentation`.
    flip, label_smoothing, drop_path, batch_norm, classifier
        Arguments of :class:`~nni_warmstart.evaluators.joint_module.JointModule`.
    val_share
        Share of the training images that is used for the alphas and for validation.
    channels, image_size
        Channels and size in pixels to which the images of all datasets are brought. None for 3 channels if any dataset has
        colour (else 1), and for the largest size of any dataset.
    num_workers, prefetch
        Processes of each loader that read images, and batches that each of them reads ahead.
    stop_at
        Mean validation accuracy of the datasets at which training ends, once it is reached and held; see
        :class:`~nni_warmstart.evaluators.stop_at.StopAt`. None for all epochs. NNI's own strategies do not validate, and
        never stop.

    Raises
    ------
    DataError
        If there are no datasets or two of one name; if a dataset is empty, has a single class or cannot be split; if a
        setting is out of its range, ``flip`` or ``weights`` name an unknown dataset, or the trainer has no ``max_epochs``.
    """

    @checks_arguments(DataError)
    def __init__(
        self,
        datasets: Mapping[str, Any] | Sequence[Task],
        trainer: Any = None,
        *,
        epochs: Annotated[int, Range(1)] = 40,
        batch_size: Annotated[int, Range(2)] = 64,
        steps_per_epoch: Annotated[int, Range(1)] | None = None,
        learning_rate: Annotated[float, Range(0)] = 0.05,
        weight_decay: Annotated[float, Range(0)] = 3e-4,
        temperature: Annotated[float, Range(0.01)] = 2.0,
        jitter: Annotated[float, Range(0, 1)] = 0.15,
        crop: Annotated[float, Range(0, 0.5)] = 0.0,
        cutout: Annotated[float, Range(0, 1)] = 0.0,
        flip: Sequence[str] = (),
        label_smoothing: Annotated[float, Range(0, 0.99)] = 0.0,
        drop_path: Annotated[float, Range(0, 0.99)] = 0.0,
        batch_norm: str = 'shared',
        val_share: float = 0.25,
        channels: Annotated[int, Range(1, 3)] | None = None,
        image_size: Annotated[int, Range(1)] | None = None,
        classifier: str | None = None,
        arc_batch_size: Annotated[int, Range(2)] | None = None,
        weights: Mapping[str, float] | None = None,
        num_workers: Annotated[int, Range(0)] = 0,
        prefetch: Annotated[int, Range(1)] = 2,
        stop_at: Annotated[float, Range(0, 1)] | None = None,
    ) -> None:
        # Check the arguments that depend on the datasets or the trainer.
        if batch_norm not in BATCH_NORMS:
            raise DataError(f'batch_norm = {batch_norm!r} is unknown; choose one of {", ".join(BATCH_NORMS)}.')
        if trainer is not None and (trainer.max_epochs or -1) < 0:
            raise DataError('the trainer has no max_epochs, over which the rate falls; pass Trainer(max_epochs=...).')
        tasks = _tasks(datasets)
        for name in [flip] if isinstance(flip, str) else flip:
            if name not in tasks or isinstance(flip, str):
                raise DataError(f'flip names {name!r}; it must be a list of some of the datasets {", ".join(tasks)}.')
        for name, weight in (weights or {}).items():
            if name not in tasks:
                raise DataError(f'weights names {name!r}; the datasets are {", ".join(tasks)}.')
            check(weight, f'weights[{name!r}]', Expected(float, Range(0.01, 100)), DataError)
        # Choose one shape of images, and a range of the classifier's rows for each dataset.
        channels = channels or max(task.train_x.shape[1] for task in tasks.values())
        image_size = image_size or max(max(task.train_x.shape[-2:]) for task in tasks.values())
        self.num_classes, heads = 0, {}
        for name, task in tasks.items():
            heads[name] = (self.num_classes, self.num_classes + task.num_classes)
            self.num_classes += task.num_classes
        # Make the module and its data.
        module = JointModule(
            heads,
            (channels, image_size, image_size),
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            augmentation=Augmentation(jitter, crop, cutout),
            flip=flip,
            label_smoothing=label_smoothing,
            drop_path=drop_path,
            batch_norm=batch_norm,
            classifier=classifier,
        )
        tasks = {name: task.adapted(channels, image_size) for name, task in tasks.items()}
        workers = Workers(num_workers, prefetch)
        data = JointData(tasks, val_share, batch_size, steps_per_epoch, temperature, arc_batch_size, weights, workers)
        trainer = trainer or Trainer(max_epochs=epochs)
        if stop_at is not None:
            trainer.callbacks.insert(0, StopAt(stop_at))  # before the checkpoints, which keep its state
        super().__init__(module, trainer, datamodule=data, fit_kwargs=dict(SAFE_LOADING))


def _tasks(datasets: Mapping[str, Any] | Sequence[Task]) -> dict[str, Task]:
    if isinstance(datasets, Mapping):
        named: Any = datasets.items()
    elif isinstance(datasets, list | tuple) and all(isinstance(task, Task) for task in datasets):
        named = [(task.name, task) for task in datasets]
    else:
        raise DataError(f'datasets is a {type(datasets).__name__}; give a dict of labelled datasets, or a list of tasks.')
    tasks: dict[str, Task] = {}
    for name, dataset in named:
        if not isinstance(name, str):
            raise DataError(f'dataset {name!r} has a name of type {type(name).__name__}; give text.')
        if name in tasks:
            raise DataError(f'dataset {name!r} is there twice; each needs a name of its own.')
        tasks[name] = labelled(name, dataset)
    if not tasks:
        raise DataError('joint training needs at least one dataset, and there are none.')
    return tasks
