"""Construction that is stopped once it makes more than a file could hold."""

from __future__ import annotations

import time
import tracemalloc

import pytest
import torch
from torch import nn

from nni_warmstart import TransferError
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.utils.construction import Bounded


def test_what_fits_is_made_as_ever():
    torch.manual_seed(0)
    plain = create('darts', {'width': 4, 'num_cells': 3}, 10).state_dict()
    torch.manual_seed(0)
    with Bounded(plain.values()):
        bounded = create('darts', {'width': 4, 'num_cells': 3}, 10).state_dict()
    assert plain.keys() == bounded.keys()
    assert all(torch.equal(tensor, bounded[name]) for name, tensor in plain.items())


@pytest.mark.parametrize(
    'make',
    [
        lambda: nn.Linear(10**6, 10**6),
        lambda: torch.ones(10**10),
        lambda: torch.full((2**20, 2**20), 1.0),
        lambda: [nn.Linear(4000, 4000) for _ in range(1000)],
        lambda: [nn.Linear(1, 1) for _ in range(10**7)],
    ],
)
def test_what_is_far_larger_is_not_made(make):
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(TransferError, match='far larger than the tensors that are there'), Bounded([torch.zeros(1000)]):
        make()
    assert time.process_time() - began < 5
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
