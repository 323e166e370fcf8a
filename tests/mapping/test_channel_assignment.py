"""Channels go to the layers that read them, unless operators demand more."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from nni_warmstart.mapping.channel_assignment import assign_channels, matched
from nni_warmstart.tracing.tracer import trace_channels


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 10), st.integers(1, 4), st.integers(0, 99))
def test_a_reader_lacks_a_channel_only_if_there_is_no_place(n_source, n_target, layers, seed):
    random = np.random.default_rng(seed)
    energy = random.random((n_source, layers)) * (random.random((n_source, layers)) < 0.6)
    reads = random.random((n_target, layers)) < 0.6
    index, missing = matched(energy, reads)
    got = np.array([reads[index == channel].any(0) for channel in range(n_source)])
    assert np.allclose(missing, (energy * ~got).sum(0))
    assert n_target < n_source or set(index) == set(range(n_source))  # none is lost
    whole = (reads[None] >= (energy > 0)[:, None]).all(2)  # source channels to target channels that all their readers read
    if n_target >= n_source and whole[linear_sum_assignment(whole, maximize=True)].all():
        assert missing.sum() == 0


class Halves(nn.Module):
    """Convolution whose channels are cut in halves for other layers, ``b`` and the classifier."""

    def __init__(self, width: int, kind: str = 'plain') -> None:
        super().__init__()
        self.kind, half = kind, width // 2
        self.a, self.b, self.head = nn.Conv2d(3, width, 1), nn.Conv2d(half, half, 1), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.a(x).chunk(2, 1)
        q = q * q.sum(1, keepdim=True) if self.kind == 'sum' else q
        return self.head(torch.cat([p, self.b(q)], 1).mean((2, 3)))


def assigned(kind: str, widths: tuple[int, int] = (8, 6)):
    networks = [Halves(width, kind) for width in widths]
    target, source = (trace_channels(network, (1, 3, 4, 4)) for network in networks)
    passed = [np.arange(1 + max(int(c.max()) for a in each.tensors.values() for c in a.channels if c is not None))
              for each in (target, source)]  # fmt: skip
    names = {name: name for name in source.tensors}
    return assign_channels(target, source, names, networks[1].state_dict(), (passed[0], passed[1])), target, source


def test_halves_stay_halves():
    found, target, source = assigned('plain')
    own, theirs = (each.tensors['a.weight'].channels[0] for each in (target, source))
    assert own is not None and theirs is not None and not found.lacking
    rank = [int(np.flatnonzero(theirs == label)[0]) for label in found.target[own]]
    assert set(rank[:4]) == {0, 1, 2} and set(rank[4:]) == {3, 4, 5}


def test_sums_of_channels_are_left():
    found, target, _ = assigned('sum')
    made = target.tensors['a.weight'].channels[0]
    assert made is not None and (found.target[made] == -1).all()
