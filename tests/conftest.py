"""What every test begins with: one thread, no GPU, the same random numbers; everything downloads nothing."""

from __future__ import annotations

import os
import random
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

import numpy as np
import pytest
import torch
import yaml
from helpers.tiny import SMALL, make_task, run, save_npz

from nni_warmstart import Supernet, WarmStartDARTS
from nni_warmstart.cli import quiet
from nni_warmstart.data import Task

quiet()
torch.set_num_threads(1)


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
