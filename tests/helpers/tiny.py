"""Tiny tasks, model spaces and searches, which take a second on one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import NasBench201
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_warmstart.data import Task, split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.mutation import mutate

ROOT = Path(__file__).resolve().parents[2]


SMALL = {
    'data': {'npz': {'path': 'shapes.npz'}, 'licence': 'CC0-1.0'},
    'space': {'name': 'nasbench201', 'width': 4, 'depth': 1, 'image_size': 8},
    'evaluator': {'max_epochs': 2, 'batch_size': 4, 'learning_rate': 0.05},
    'strategy': {'name': 'DARTS', 'arc_learning_rate': 0.01},
}
"""search.yml of a search that takes a second."""


class OwnSpace(ModelSpace):
    """A user's own model space: two choices, batch norm, a linear classifier."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.first = LayerChoice({'conv': nn.Conv2d(6, 6, 3, padding=1), 'skip': nn.Identity()}, label='first')
        self.second = LayerChoice({'conv': nn.Conv2d(6, 6, 1), 'skip': nn.Identity()}, label='second')
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.second(self.first(torch.relu(self.stem(x))))))
        return self.head(x.mean((2, 3)))


def make_task(n: int = 48, classes: int = 3, side: int = 8, seed: int = 0, name: str = 'blobs') -> Task:
    """Images whose class is the place of a bright square: easy, but not for a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randint(0, 60, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    for i, label in enumerate(y.tolist()):
        row, column = divmod(label, 2)
        x[i, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    part = n * 3 // 4
    return Task(name, x[:part], y[:part], x[part:], y[part:], tuple(f'class{i}' for i in range(classes)))


def save_npz(path: Path, n: int = 24, classes: int = 3, **changes: Any) -> Path:
    """Noise in colour, with labels and names; None as a change leaves an array out."""
    rng = np.random.default_rng(0)
    arrays = {
        'train_x': rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8),
        'train_y': np.arange(n) % classes,
        'test_x': rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8),
        'test_y': np.arange(6) % classes,
        'class_names': np.array([f'class {i}' for i in range(classes)]),
    }
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def small_space(num_classes: int = 3) -> ModelSpace:
    return NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=num_classes)


def run(strategy: Any, tmp_path: Path, *, space: ModelSpace | None = None, epochs: int = 2, task: Task | None = None) -> Any:
    """Search on a tiny task; returns the strategy."""
    task = task or make_task()
    trainer = make_trainer(epochs, tmp_path, progress=False)
    evaluator = classification(split(task), task.num_classes, trainer, batch_size=8, learning_rate=0.05, weight_decay=3e-4)
    strategy(RawFormatModelSpace(space or small_space(task.num_classes), evaluator), SequentialExecutionEngine())
    return strategy


def batches(classes: int, seed: int = 5, n: int = 64) -> list:
    data = split(make_task(n=n, classes=classes, seed=seed)).train
    return list(torch.utils.data.DataLoader(data, 8))


def target(classes: int = 4, seed: int = 1, kind: str = 'DARTS') -> nn.Module:
    torch.manual_seed(seed)
    return mutate(small_space(classes), kind)


def stripes(n: int = 48, seed: int = 0) -> Task:
    """Images whose class is the direction of a pattern: nothing like the blobs."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    pattern = torch.tensor([40, 200] * 4, dtype=torch.uint8)
    x = torch.stack(
        [pattern.view(-1, 1).expand(8, 8) if label else pattern.view(1, -1).expand(8, 8) for label in y.tolist()]
    )
    x = x[:, None].expand(-1, 3, -1, -1) + torch.randint(0, 40, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Task('stripes', x, y, x[:0], y[:0], ('a', 'b'))


class Mixer(nn.Module):
    """Mixes channels by a product of its weights with themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width, width))

    def forward(self, x):
        return torch.einsum('ij,njhw->nihw', self.scale @ self.scale.T, x)


class Attention(ModelSpace):
    """Has a module whose channels are not known."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.mixer = Mixer(width)
        self.body = LayerChoice({'conv': nn.Conv2d(width, width, 3, padding=1), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(self.mixer(self.stem(x))).mean((2, 3)))
