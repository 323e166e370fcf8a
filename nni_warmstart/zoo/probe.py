"""Probes of sources: each is mapped onto the target and trained for a few steps; the worse half drops out each round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nni_adapter.choices import arch_parameters
from ..nni_adapter.paths import best_path
from ..supernets.supernet import Supernet
from ..utils.metrics import accuracy_on, among_own
from ..warm_start.plan import Plan
from ..warm_start.settings import TransferSettings

Labelled = tuple[Tensor, Tensor]

STEPS = 4
"""Training steps of the first round; each further round has twice as many."""


class Probe:
    """A source mapped onto a target, on its way through successive halving.

    Jamieson & Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*, AISTATS 2016.

    Parameters
    ----------
    name
        Name of the source or sources.
    sources
        Supernets with weights that sum to one.
    model
        Mutated target, changed in place.
    train, val
        Images and classes to train on, or batches of large ones, and batches of others to measure on.
    settings
        Settings of the warm start.

    Attributes
    ----------
    plan
        Warm start that was tried.
    error
        Latest error rate, initially that before any training.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[tuple[Supernet, float]],
        model: nn.Module,
        train: Labelled | Sequence[Labelled],
        val: Sequence[Labelled],
        settings: TransferSettings,
    ) -> None:
        start = time.perf_counter()
        self.name, self.rounds = name, 0
        self.model, self.val_data = model, val
        self.train_data: Sequence[Labelled] = [cast(Labelled, train)] if isinstance(train, tuple) else train
        x, y = self.train_data[0]
        self.plan = Plan.prepare(sources, model, settings, [(x[:2], y[:2])])
        report = self.plan.apply(model, data=train, val_data=val)
        model.to(settings.device)
        self.error = 1 - (report.zero_shot_accuracy or 0.0)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.seconds = time.perf_counter() - start

    @property
    def key(self) -> tuple[int, float]:
        """Key for sorting, smaller is better: by the number of rounds, then by error rate."""
        return -self.rounds, self.error

    def train(self, steps: int) -> None:
        """Train the weights for some steps, and measure the error rate again."""
        start = time.perf_counter()
        x, y = (torch.cat(part) for part in zip(*self.train_data, strict=True))
        heads = self.plan.settings.heads
        alphas = {id(alpha) for alpha in arch_parameters(self.model)}
        weights = [parameter for parameter in self.model.parameters() if id(parameter) not in alphas]
        device = weights[0].device
        optimizer = torch.optim.SGD(weights, lr=0.02, momentum=0.9)
        with best_path(self.model):
            self.model.train()
            for _ in range(steps):
                batch = torch.randint(len(x), (min(64, len(x)),), generator=self.generator)
                optimizer.zero_grad()
                logits = self.model(x[batch].to(device))
                if heads is not None:
                    logits = among_own(logits, y[batch], heads)
                F.cross_entropy(logits, y[batch].to(device)).backward()
                optimizer.step()
            self.error = 1 - accuracy_on(self.model, self.val_data, device, heads)
        self.rounds += 1
        self.seconds += time.perf_counter() - start


def successive_halving(probes: Sequence[Probe], steps: int) -> list[Probe]:
    """Train the probes in rounds, each time the better half, until one is left; return all, the best first."""
    running = list(probes)
    while len(running) > 1:
        for probe in running:
            probe.train(steps)
        running = sorted(running, key=lambda probe: probe.error)[: -(-len(running) // 2)]
        steps *= 2
    return sorted(probes, key=lambda probe: probe.key)
