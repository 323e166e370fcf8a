"""Costs of a module: counts by hand, and a measurement that leaves no trace."""

from __future__ import annotations

import logging

import torch
from torch import nn

from nni_warmstart.runs.found import costs_of
from nni_warmstart.utils import costs


def test_counts_are_those_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    assert costs.parameters(network) == (8 * 27 + 8) + 2 * 8 + (8 * 2 * 9 + 8) + (8 * 5 + 5)
    assert costs.multiply_adds(network, torch.zeros(1, 3, 16, 16)) == 64 * 8 * 27 + 64 * 8 * 2 * 9 + 8 * 5
    tied = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    tied[1].weight = tied[0].weight
    assert costs.parameters(tied) == 16 + 4 + 4


def test_more_work_takes_longer_and_nothing_stays_changed():
    small, large = (nn.Sequential(nn.Conv2d(8, width, 3), nn.BatchNorm2d(width), nn.Dropout()) for width in (8, 128))
    x, threads, state = torch.randn(1, 8, 32, 32), torch.get_num_threads(), torch.random.get_rng_state()
    norms = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    quick, slow = (costs.latency(each, x, most=9) for each in (small, large))
    assert 0 < quick.low <= quick.median <= quick.high
    assert quick.median < slow.median
    costs.multiply_adds(small, x)
    assert small.training and torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, norms[name]) for name, tensor in small.state_dict().items())


def test_a_network_that_cannot_be_measured_has_no_costs(caplog):
    with caplog.at_level(logging.WARNING, logger='nni_warmstart'):
        assert costs_of(nn.Conv2d(4, 4, 1), (3, 8)) is None
    assert 'cannot be measured' in caplog.text
