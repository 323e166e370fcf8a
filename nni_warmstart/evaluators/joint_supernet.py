"""Jointly trained supernet as data, with its datasets and its accuracy on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..data.task import Task
from ..distance.embeddings import EMBEDDINGS
from ..distance.sketch import sketches_of
from ..supernets.history import record
from ..supernets.supernet import Supernet


def joint_supernet(
    model: nn.Module,
    tasks: Mapping[str, Task],
    *,
    name: str,
    image_shape: tuple[int, int],
    accuracy: Mapping[str, float],
    history: dict[str, Any] | None = None,
) -> Supernet:
    """Return a jointly trained supernet with the names of all classes and sketches of all images.

    Parameters
    ----------
    model
        The trained supernet.
    tasks
        Dataset -> task, in the order of the heads.
    name
        Name of the entry.
    image_shape
        Channels and size (pixels) of the images.
    accuracy
        Dataset -> validation accuracy, if it is known.
    history
        Additional entries of the record.
    """
    datasets: dict[str, dict[str, Any]] = {
        dataset: {
            'classes': task.num_classes,
            'pictures': len(task.train_x),
            **({'accuracy': round(accuracy[dataset], 4)} if dataset in accuracy else {}),
        }
        for dataset, task in tasks.items()
    }
    supernet = Supernet.from_model(
        model,
        name=name,
        class_names=[f'{dataset}/{label}' for dataset, task in tasks.items() for label in task.class_names],
        history={**record(datasets=datasets, pictures=image_shape), **(history or {})},
    )
    embeddings = (*EMBEDDINGS, supernet.features(model))
    return supernet.with_sketches(sketches_of(tasks.values(), embeddings, name))
