"""Draws from labelled data by their labels alone, with every class in proportion."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of a part with ``share`` of every class, and those of the rest, both drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        order = members[torch.randperm(len(members), generator=generator)]
        chosen[order[: round(len(members) * share)]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


def stratified_part(labels: Tensor, size: int, seed: int) -> Tensor:
    """Return sorted indices of ``size`` samples, every class in proportion and at least once, drawn by ``seed``."""
    if len(labels) <= size:
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].sort(stable=True).indices]  # class by class, at random within
    counts = labels.bincount()
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    depth = (place + 0.5) / counts[labels[order]]  # a sample's quantile within its class
    depth[place == 0] = -1
    return order[depth.argsort(stable=True)[: max(size, int((counts > 0).sum()))]].sort().values
