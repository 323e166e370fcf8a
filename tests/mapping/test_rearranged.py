"""Channels that a space's own forward cuts and rearranges: followed exactly, or named."""

from __future__ import annotations

import pytest
import torch
from helpers.mapped import difference, trained
from helpers.rearranged import FOLLOWED, OTHERS, Rearranged
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_warmstart import Supernet, TransferError, transfer
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.tracing.structure import Structure

EXACT = 1e-5


def widened(blocks: tuple[str, ...], before: int, after: int, **options):
    return difference(trained(Rearranged(blocks, before)), trained(Rearranged(blocks, after), 1), 8, **options)


@pytest.mark.parametrize('block', FOLLOWED)
def test_pieces_are_widened_within_themselves(block):
    error, report = widened((block,), 4, 8)
    assert error < EXACT
    assert report.share_inherited == 1.0
    assert not report.notes


@pytest.mark.parametrize('block', OTHERS)
def test_what_is_not_followed_is_named(block):
    """It may be exact by chance; the error names a tensor or a module, and the report says what starts afresh."""
    try:
        error, report = widened((block,), 4, 8)
    except TransferError as refused:
        assert "untraceable='fresh'" in str(refused)
        assert any(name in str(refused) for name in ('stem', 'conv0', 'norm', 'fused0', 'module'))
    else:
        assert error < EXACT and report.share_inherited == 1.0
    supernet = Supernet.from_model(trained(Rearranged((block,), 4)), name='source')
    report = transfer(supernet, trained(Rearranged((block,), 8), 1), head='random', untraceable='fresh')
    fresh = [
        origin for origin in report.origins if origin.how == 'fresh' and origin.parameter and 'head' not in origin.target
    ]
    assert all(origin.by for origin in fresh)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(FOLLOWED + OTHERS), min_size=1, max_size=3).map(tuple),
    st.sampled_from([(4, 8), (4, 12), (8, 12), (4, 4)]),
    st.sampled_from(['error', 'fresh']),
)
def test_the_function_is_kept_or_the_report_says_otherwise(blocks, widths, untraceable):
    try:
        error, report = widened(blocks, *widths, untraceable=untraceable)
    except TransferError as refused:
        assert 'untraceable' in str(refused) or "use head='ridge'" in str(refused)
        assert len(blocks) > 1 or blocks[0] in OTHERS  # the pieces of several need not be those of the source
        return
    fresh = any(origin.how == 'fresh' and origin.parameter for origin in report.origins)
    assert error < EXACT or fresh or report.notes
    assert not fresh or untraceable == 'fresh'


class Fused(ModelSpace):
    """Attention with one layer for queries, keys and values, in the space's own forward."""

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.stem = nn.Conv2d(3, width, 1)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.body = LayerChoice({'linear': nn.Linear(width, width), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.heads > 1:
            q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        y = y if self.heads == 1 else y.transpose(1, 2).flatten(2)
        return self.head(self.body(x + self.out(y)).mean(1))


def test_queries_keys_and_values_stay_apart():
    """The rows of each are made of its own; the products themselves are not followed, and the report says so."""
    source, target = trained(Fused(4)), trained(Fused(8), 1)
    supernet = Supernet.from_model(source, name='source')
    with pytest.raises(TransferError, match=r'attention.*untraceable='):
        transfer(supernet, target, head='random')
    report = transfer(supernet, target, head='random', untraceable='fresh', keep=1, noise=0)
    for part in range(3):
        own, theirs = (
            model.qkv.weight.detach()[part * width : (part + 1) * width] for model, width in ((target, 8), (source, 4))
        )
        rows = [(own[:, :4] * 2 == row).all(1) for row in theirs]
        assert torch.stack(rows).any(0).all()
    assert any('forward' in note and 'attention' in note for note in report.notes)
    assert report.notes[0] in str(report)


@pytest.mark.parametrize('heads', [(2, 2), (2, 4)])
def test_heads_of_another_size_start_afresh(heads):
    before, after = heads
    supernet = Supernet.from_model(trained(Fused(4, before)), name='source')
    report = transfer(supernet, trained(Fused(8, after), 1), head='random', untraceable='fresh')
    by = {origin.target: (origin.how, origin.by) for origin in report.origins}
    assert by['qkv.weight'][0] == 'fresh' and 'pieces' in by['qkv.weight'][1]
    assert by['stem.weight'][0] == by['out.weight'][0] == 'widened'


def test_relations_survive_a_file():
    blocks = ('interleaved', 'head gate', 'group norm', 'residual shuffle')
    structure = Supernet.from_model(mutate(Rearranged(blocks, 4), 'DARTS'), name='source').structure
    assert structure is not None
    again = Structure.from_bytes(structure.to_bytes())
    assert again.to_bytes() == structure.to_bytes()
    assert again.channels.ties.shape[1] > 0
    assert any(each is not None for axes in again.channels.tensors.values() for each in axes.pieces)
