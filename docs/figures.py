"""Draw the figures of docs/how-it-works.md from the shipped zoo and scikit-learn's digits: ``python docs/figures.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.strategy import DARTS
from torch import Tensor

from nni_warmstart import DatasetSketch, SupernetZoo, dataset_distance, transfer
from nni_warmstart.data import digits
from nni_warmstart.mapping.alignment import align
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.utils.metrics import accuracy_on

HERE = Path(__file__).resolve().parent
SEEDS = 5
STEPS = {
    'fresh network': None,
    'fresh network, ridge head': {'head': 'ridge', 'keep': 0.0},
    'weights copied': {'head': 'random', 'keep': 1.0, 'data': None},
    '+ batch norm re-estimated': {'head': 'random', 'keep': 1.0},
    '+ ridge head': {'head': 'ridge', 'keep': 1.0},
    '+ shrink and perturb, keep 0.8': {'head': 'ridge', 'keep': 0.8},
}
"""Steps of a warm start, each with what :func:`nni_warmstart.transfer` is given for it."""


def main() -> None:
    zoo = SupernetZoo.shipped()
    source, other = zoo['joint-nasbench201-w8'], zoo['nasbench201-w8-notmnist']
    task = digits().adapted(*source.pictures)
    x = task.train_x.float() / 255
    x = (x - x.mean()) / x.std()
    train, val = (x[:500], task.train_y[:500]), (x[500:], task.train_y[500:])
    draw_couplings(source, other, train)
    draw_steps(source, train, val)


def target(width: int, seed: int = 0) -> ModelSpace:
    """A fresh supernet."""
    torch.manual_seed(seed)
    return DARTS().mutate_model(create('nasbench201', {'width': width, 'depth': 1, 'image_size': 16}, 10))


def draw_couplings(source: Any, other: Any, train: tuple[Tensor, Tensor]) -> None:
    """Classes of two datasets, and channels of a wider, a narrower and another supernet."""
    upright = DatasetSketch.from_dataset(train)
    turned = DatasetSketch.from_dataset((train[0].rot90(1, (2, 3)), train[1]))
    wider, narrower = (first(transfer(source, target(width), data=train).couplings) for width in (12, 4))
    aligned = align(other.state_dict(), other.traced(), source.traced(), source.state_dict()).couplings.found.values()
    panels = (
        ('head: classes of digits\nand of turned digits', dataset_distance(upright, turned).label_coupling),
        ('mapping onto a wider space:\nrepeated channels', wider),
        ('mapping onto a narrower space:\nchosen channels', narrower),
        ('fusion: channels of another\nsupernet, aligned', next(c for c in aligned if c.shape == (8, 8))),
    )
    figure = Figure(figsize=(11, 3.2), layout='constrained')
    for axes, (title, coupling) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(coupling.numpy() / float(coupling.max()), cmap='Blues', vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel='target', ylabel='source')
        axes.set_xticks(range(coupling.shape[1]))
        axes.set_yticks(range(coupling.shape[0]))
        axes.tick_params(labelsize=7)
    figure.savefig(HERE / 'coupling.png', dpi=110)


def first(couplings: dict[str, Tensor]) -> Tensor:
    """The first coupling of different numbers of channels: that of the stem."""
    return next(coupling for coupling in couplings.values() if coupling.shape[0] != coupling.shape[1])


def draw_steps(source: Any, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> None:
    """Accuracy on held-out digits before any training, after each step of a warm start."""
    means, spreads = [], []
    for settings in STEPS.values():
        found = torch.tensor([accuracy(source, train, val, settings, seed) for seed in range(SEEDS)])
        means.append(float(found.mean()))
        spreads.append([float(found.mean() - found.min()), float(found.max() - found.mean())])
    figure = Figure(figsize=(8, 2.6), layout='constrained')
    axes = figure.subplots()
    colours = ['0.7' if name.startswith('fresh') else 'C0' for name in STEPS]
    axes.barh(list(STEPS), means, xerr=list(zip(*spreads, strict=True)), color=colours, capsize=3)
    axes.invert_yaxis()
    axes.axvline(0.1, color='k', linewidth=0.8, linestyle=':')
    axes.set(xlim=(0, 1), xlabel=f'accuracy before any training (mean and range of {SEEDS} seeds; dotted: chance)')
    figure.savefig(HERE / 'steps.png', dpi=110)


def accuracy(
    source: Any, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], settings: dict[str, Any] | None, seed: int
) -> float:
    model = target(8, seed)
    if settings is None:
        return accuracy_on(model, [val], 'cpu')
    return transfer(source, model, val_data=val, seed=seed, **{'data': train, **settings}).zero_shot_accuracy or 0.0


if __name__ == '__main__':
    main()
