"""Networks and pictures that sidak/otfusion was measured on, and how both are compared."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SAMPLES = 200
STEPS = 50
METHODS = ('pictures', 'weights', 'pictures and weights', 'noise', 'noise and weights')
REPAIRS = ('none', 'rescaled', 'regression')


class MLP(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 400 * k, bias=False), nn.Linear(400 * k, 200 * k, bias=False)
        self.fc3, self.fc4 = nn.Linear(200 * k, 100 * k, bias=False), nn.Linear(100 * k, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc4(F.relu(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))))


def conv(channels: int, made: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, made, kernel, stride, kernel // 2, bias=False)


class VGG(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        first = [conv(1, 16 * k), nn.ReLU(), nn.MaxPool2d(2), conv(16 * k, 32 * k), nn.ReLU(), nn.MaxPool2d(2)]
        then = [conv(32 * k, 64 * k), nn.ReLU(), conv(64 * k, 64 * k), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*first, *then)
        self.classifier = nn.Linear(576 * k, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Block(nn.Module):
    def __init__(self, channels: int, made: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, made, 3, stride), conv(made, made)
        self.shortcut = nn.Sequential(*([conv(channels, made, 1, stride)] if channels != made else []))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.conv1, self.layer1 = conv(1, 16 * k), nn.Sequential(Block(16 * k, 16 * k, 1))
        self.layer2 = nn.Sequential(Block(16 * k, 32 * k, 2))
        self.layer3 = nn.Sequential(Block(32 * k, 64 * k, 2))
        self.linear = nn.Linear(64 * k, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layer3(self.layer2(self.layer1(F.relu(self.conv1(x))))).mean((2, 3)))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {'mlp': MLP, 'vgg': VGG, 'resnet': ResNet}


class Bench:
    """Pictures and networks, each read once."""

    def __init__(self, peers: Path, data: Path) -> None:
        self.peers = peers / 'otfusion'
        self.test, self.train = pictures(data, 't10k'), pictures(data, 'train')
        chosen = torch.randperm(len(self.train[0]), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        self.samples = self.train[0][chosen]
        self.known: dict[tuple[str, str], dict[str, float]] = {}  # scores of what does not depend on a seed

    def load(self, network: str, which: str) -> nn.Module:
        model = NETWORKS[network](2 if which == 'W' else 1)
        model.load_state_dict(load_file(self.peers / f'{network}_{which}.safetensors'))
        return model.eval()

    def score(self, model: nn.Module, state: dict[str, Tensor] | None = None) -> dict[str, float]:
        model = filled(model, state)
        x, y = self.test
        with torch.no_grad():
            logits = torch.cat([model(part) for part in x.split(500)])
        return {'accuracy': 100 * float((logits.argmax(1) == y).float().mean()), 'loss': float(F.cross_entropy(logits, y))}

    def after_training(self, model: nn.Module, state: dict[str, Tensor], seed: int) -> dict[str, float]:
        model = filled(model, state).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        x, y = self.train
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(100 + seed))
        for batch in order[: 64 * STEPS].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        return self.score(model.eval())


def filled(model: nn.Module, state: dict[str, Tensor] | None) -> nn.Module:
    model = deepcopy(model)
    if state is not None:
        model.load_state_dict(state)
    return model


def pictures(data: Path, part: str) -> tuple[Tensor, Tensor]:
    x, y = (
        np.frombuffer(gzip.decompress(next(data.rglob(f'{part}-{kind}*.gz')).read_bytes()), np.uint8, offset=offset)
        for kind, offset in (('images', 16), ('labels', 8))
    )
    return (torch.from_numpy(x.reshape(-1, 1, 28, 28) / np.float32(255)) - 0.1307) / 0.3081, torch.from_numpy(y).long()


def timed(step: Callable[[], Any]) -> float:
    """Processor time, which on one thread is the wall-clock time of a machine that does nothing else."""
    start = time.process_time()
    step()
    return time.process_time() - start
