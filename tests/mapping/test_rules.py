"""The rules of the mapping, each by itself: channels, candidates, alphas, kernels, couplings."""

from __future__ import annotations

import nni
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableConv2d
from torch import nn

from nni_warmstart import TransferError
from nni_warmstart.mapping.alphas import by_candidate, by_value
from nni_warmstart.mapping.candidates import match_candidates
from nni_warmstart.mapping.coupling import aligned, replicated
from nni_warmstart.mapping.projection import resize_kernel
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.tracing.axes import Op
from nni_warmstart.tracing.structure import structure_of
from nni_warmstart.tracing.tracer import trace_channels


def test_channels_of_a_plain_network():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2)
    )
    tensors = trace_channels(net, (2, 3, 6, 6)).tensors
    stream = tensors['0.weight'].channels[0]
    for name in ('0.bias', '1.weight', '1.running_var', '3.weight', '3.bias'):
        assert (tensors[name].channels[0] == stream).all()
    assert (tensors['5.weight'].channels[1].reshape(4, 4) == stream[:, None]).all()
    assert tensors['3.weight'].groups == 4
    assert tensors['3.weight'].roles == ('out', '', '', '')


def test_ops_are_matched_by_what_they_compute():
    mine = {
        'pool': [Op('max_pool', 3)],
        'big': [Op('depthwise', 5), Op('conv')],
        'none': [Op('zero')],
        'odd': [Op('linear')],
    }
    theirs = {'a': [Op('zero')], 'b': [Op('depthwise', 3), Op('conv')], 'c': [Op('max_pool', 3)], 'd': [Op('conv', 3)]}
    assert match_candidates(mine, theirs) == {'pool': 'c', 'big': 'b', 'none': 'a'}
    assert match_candidates(dict(reversed(mine.items())), dict(reversed(theirs.items()))) == {
        'pool': 'c',
        'big': 'b',
        'none': 'a',
    }
    assert match_candidates({}, theirs) == {}
    assert match_candidates(
        {'sep': [Op('depthwise', 3), Op('conv')]}, {'conv': [Op('conv')], 'pool': [Op('avg_pool', 3)]}
    ) == {'sep': 'conv'}


def test_alphas_of_ops_and_of_numbers():
    alpha = torch.tensor([1.0, 3.0])
    assert by_candidate(alpha, ['a', 'b'], ['b', 'new', 'a'], {'b': 'b', 'a': 'a'}).tolist() == [3.0, 2.0, 1.0]
    kernel = torch.randn(3, dtype=torch.double)
    grown = by_value(kernel, ['3', '5', '7'], ['3', '5', '7', '9', '11'])
    probability, before = grown.softmax(0), kernel.softmax(0)
    assert torch.allclose(probability[:2], before[:2])
    assert torch.allclose(probability[2:], before[2] / 3)


def test_kernels_of_other_sizes_and_dilations():
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    grown = resize_kernel(weight, (5, 5), (1, 1), (1, 1))
    assert torch.equal(grown[..., 1:4, 1:4], weight)
    assert grown.sum() == weight.sum()
    assert torch.equal(resize_kernel(grown, (3, 3), (1, 1), (1, 1)), weight)
    assert torch.equal(resize_kernel(weight, (5, 5), (1, 1), (2, 2))[..., ::2, ::2], weight)
    assert torch.equal(resize_kernel(weight, (3, 3), (2, 2), (1, 1)), weight)


def test_couplings_use_every_channel():
    cost = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    for coupling in (replicated(5, 8), aligned(cost)):
        assert (coupling.sum(0) == 1).all()
        assert ((coupling.sum(1) >= 1) & (coupling.sum(1) <= 2)).all()
    permutation = torch.tensor([2, 0, 3, 1])
    assert torch.equal(aligned(1 - torch.eye(4)[permutation]), torch.eye(4, dtype=torch.double)[permutation])


class TwoWidths(ModelSpace):
    """One convolution with a choice between two widths, and one without."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        width = nni.choice('width', list(widths))
        self.first, self.second = MutableConv2d(3, width, 1), MutableConv2d(width, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x))).mean((2, 3))


@pytest.mark.filterwarnings('ignore:Initializing zero-element')
def test_layers_without_channels_are_refused():
    assert structure_of(mutate(TwoWidths(2, 4), 'DARTS'), (2, 3, 4, 4)).values
    with pytest.raises(TransferError, match='first may choose a width of 0: a layer without channels'):
        structure_of(mutate(TwoWidths(0, 4), 'DARTS'), (2, 3, 4, 4))
    empty = nn.Sequential(nn.Conv2d(3, 0, 1), nn.Conv2d(0, 4, 1))
    with pytest.raises(TransferError, match=r'0.weight has shape \(0, 3, 1, 1\): a layer without channels'):
        structure_of(empty, (2, 3, 4, 4))
