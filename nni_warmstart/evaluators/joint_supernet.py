"""A supernet that was trained jointly, as data: what it was trained on, and how well it does on each dataset."""

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
    pictures: tuple[int, int],
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
        Of the entry.
    pictures
        Channels and image size (pixels).
    accuracy
        Dataset -> validation accuracy, where it is known.
    history
        What else its card holds.
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
        history={**record(datasets=datasets, pictures=pictures), **(history or {})},
    )
    embeddings = (*EMBEDDINGS, supernet.features(model))
    return supernet.with_sketches(sketches_of(tasks.values(), embeddings, name))
