"""Tiny tasks, spaces and searches: everything runs on the CPU and downloads nothing."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
warnings.filterwarnings('ignore', message='.*is found to be not a nn.Module.*')

import numpy as np
import pytest
import torch
import yaml
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import NasBench201
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_warmstart import Supernet, WarmStartDARTS, introspect
from nni_warmstart.cli import quiet
from nni_warmstart.data import Task, split
from nni_warmstart.evaluator import classification, make_trainer

quiet()
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
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
    """Pictures whose class is the place of a bright square: easy, but not for a fresh network."""
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
    return introspect.mutate(small_space(classes), kind)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that NNI draws from
    torch.manual_seed(0)


@pytest.fixture
def task() -> Task:
    return make_task()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """search.yml and its data."""
    save_npz(tmp_path / 'shapes.npz', n=36)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(SMALL))
    return tmp_path


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Supernet:
    """A supernet trained on three classes."""
    torch.manual_seed(0)
    strategy = run(WarmStartDARTS(arc_learning_rate=0.1), tmp_path_factory.mktemp('source'), epochs=4)
    return Supernet.from_strategy(strategy, name='three', class_names=['a', 'b', 'c'], dataset=make_task())
