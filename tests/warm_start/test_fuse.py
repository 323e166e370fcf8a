"""Several supernets as one source: aligned, averaged, checked."""

from __future__ import annotations

import pytest
import torch
from helpers.mapped import mobile, trained
from helpers.tiny import make_task, run, small_space
from nni.nas.hub.pytorch import NasBench201

from nni_warmstart import Supernet, TransferError, WarmStartDARTS, transfer
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import DartsSpace, NasBench201Space


@pytest.mark.slow
def test_fused_with_itself_is_itself():
    model = trained(small_space())
    source = Supernet.from_model(model, name='source')
    target = trained(small_space(), 1)
    report = transfer([source, source, source], target, head='copy', keep=1, noise=0)
    assert {origin.how for origin in report.origins if origin.parameter} == {'fused'}
    assert {key.partition(': ')[0] for key in report.couplings} == {'source'}
    assert all(torch.equal(each, torch.eye(len(each), dtype=each.dtype)) for each in report.couplings.values())
    for name, tensor in target.state_dict().items():
        assert torch.allclose(tensor, model.state_dict()[name], atol=1e-6), name


@pytest.mark.slow
def test_sources_of_different_shapes_are_fused():
    sources = [Supernet.from_model(trained(NasBench201(width, 1, 3), width), name=f'w{width}') for width in (4, 8)]
    target = trained(NasBench201(6, 1, 3), 1)
    report = transfer(
        list(zip(sources, (0.25, 0.75), strict=True)), target, data=(torch.randn(32, 3, 8, 8), torch.arange(32) % 3)
    )
    assert report.source == 'w4 + w8'
    shapes = {(key.partition(': ')[0], *each.shape) for key, each in report.couplings.items()}
    assert {('w4', 4, 6), ('w8', 8, 6)} <= shapes
    assert report.share_inherited == 1.0
    alphas = [choices(target)['cell/0_1'].alpha.detach(), *(source.alpha('cell/0_1') for source in sources)]
    assert torch.allclose(alphas[0], 0.25 * alphas[1] + 0.75 * alphas[2], atol=1e-6)


@pytest.mark.slow
def test_sources_are_fused_where_cells_move_to_another_resolution():
    def space(width: int, cells: int, seed: int) -> torch.nn.Module:
        return trained(DartsSpace(width, cells, num_classes=3, image_size=8, num_nodes=2), seed)

    sources = [Supernet.from_model(space(width, 3, width), name=f'w{width}') for width in (2, 4)]
    report = transfer(sources, space(3, 4, 1), data=(torch.randn(32, 3, 8, 8), torch.arange(32) % 3))
    assert report.share_inherited > 0.99


@pytest.mark.slow
def test_sources_are_fused_where_all_layers_are_at_another_resolution():
    sources = [
        Supernet.from_model(mutate(NasBench201Space(width=4, image_size=8, stem_stride=stride), 'DARTS'), name=name)
        for stride, name in ((1, 'fine'), (2, 'coarse'))
    ]
    target = mutate(NasBench201Space(width=4, image_size=8), 'DARTS')
    report = transfer(sources, target, head='random', data=(torch.randn(300, 3, 8, 8), torch.arange(300) % 10))
    assert report.share_inherited > 0.99
    assert 'fused' in {origin.how for origin in report.origins}


@pytest.mark.slow
def test_added_blocks_of_fused_sources_start_as_the_identity():
    sources = [Supernet.from_model(trained(mobile(16, (1, 2)), seed), name=f's{seed}') for seed in (0, 1)]
    target = trained(mobile(16, (1, 4)), 2)
    report = transfer(sources, target, head='random')
    zeros = [origin.target for origin in report.origins if origin.how == 'identity']
    assert zeros
    assert not any(target.state_dict()[name].any() for name in zeros)


def test_fusion_weights_must_sum_to_one():
    source = Supernet.from_model(trained(small_space()), name='source')
    with pytest.raises(
        TransferError, match=r'weights = \[0.5, 0.6\] for 2 networks sum to 1.1; give one per network, 1 in all'
    ):
        transfer([(source, 0.5), (source, 0.6)], trained(small_space(), 1), head='random')
    with pytest.raises(TransferError, match='with at least one'):
        transfer([], trained(small_space(), 1), head='random')


@pytest.mark.slow
def test_strategies_fuse(tmp_path):
    zoo = tmp_path / 'zoo'
    for seed in (0, 1):
        run(WarmStartDARTS(save_to=zoo), tmp_path, epochs=1, task=make_task(seed=seed))
    fused = run(WarmStartDARTS(source='fused', zoo=zoo), tmp_path, epochs=1, task=make_task(seed=2))
    assert sorted(fused.report.source.split(' + ')) == ['nasbench201-1', 'nasbench201-2']
    assert len(fused.report.ranking) == 2
    listed = run(WarmStartDARTS(source=['nasbench201-2', 'nearest'], zoo=zoo), tmp_path, epochs=1, task=make_task(seed=2))
    assert listed.report.source.startswith('nasbench201-2 + ')


@pytest.mark.parametrize('weights', [(float('nan'), 0.5), (1.5, -0.5), (0.5,)])
def test_weights_of_a_fusion_are_checked(weights):
    source = Supernet.from_model(trained(small_space()), name='source')
    with pytest.raises(TransferError, match='give one per network, 1 in all'):
        transfer([(source, weight) for weight in weights], trained(small_space(), 1), head='random')


@pytest.mark.slow
def test_alpha_and_noise_mean_the_same_for_several_sources():
    source = Supernet.from_model(trained(NasBench201(4, 1, 3)), name='source')
    found = []
    for sources in (source, [source, source]):
        target = trained(NasBench201(8, 1, 3), 1)
        transfer(sources, target, head='random', alpha=0.5, keep=1, noise=0.5)
        filters = target.state_dict()['stem.0.weight'].flatten(1)
        assert len(filters.unique(dim=0)) == 8  # no two repeated channels are alike
        found.append(choices(target)['cell/0_1'].alpha.detach())
    assert torch.allclose(*found)
