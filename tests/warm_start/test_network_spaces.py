"""Networks without choices as sources for the spaces of the hub and a user's own: what is computed, not only shapes."""

from __future__ import annotations

import copy
from unittest.mock import patch

import pytest
import torch
from helpers.network_spaces import Cells, Own, Shuffles, agreement, best, change, mobile_space, selected, started
from helpers.networks import BLOCKS, Plain, ResNetLike, ShuffleLike, mobile_like, randomised, with_activations
from nni.nas.hub.pytorch import DARTS as DartsSpace
from nni.nas.hub.pytorch import MobileNetV3Space, NasBench201, ProxylessNAS, ShuffleNetSpace
from torch import nn

from nni_warmstart import TransferError
from nni_warmstart.mapping import adjustments
from nni_warmstart.nni_adapter.choices import choices

WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64, 72)


def mobilenet_v3_small(width: int, classes: int = 5):
    torchvision = pytest.importorskip('torchvision')
    torch.manual_seed(0)
    return randomised(torchvision.models.mobilenet_v3_small(num_classes=classes, width_mult=width))


@pytest.mark.slow
@pytest.mark.parametrize(('multipliers', 'gates'), [(1.0, 'none'), ((0.5, 1.0, 1.5), 'optional')])
def test_mobilenet_v3_is_a_path_of_its_space(multipliers, gates):
    network = mobilenet_v3_small(1)
    space = MobileNetV3Space(
        5, base_widths=(16, 16, 24, 40, 48, 96, 576, 1024), width_multipliers=multipliers,
        expand_ratios=(3.0, 3.67, 4.0, 4.5, 6.0), squeeze_excite=('force', gates, 'force', 'force', 'force'),
        activation=('hswish', 'relu', 'relu', *['hswish'] * 5), stride=(2, 2, 2, 2, 1, 2, 1, 1), depth_range=(1, 3),
    )  # fmt: skip
    mixed, _ = started(network, copy.deepcopy(space))
    assert agreement(network, selected(mixed, 'depth')) > 0.98 and agreement(network, mixed) > 0.95
    target, report = started(network, space, margin=30)
    assert change(network, target) < 1e-5 and agreement(network, target) > 0.999
    path = best(target)
    assert path['s2_i0_ks'] == '5' and path['s2_i0_exp'] == '4.0' and path['s2_depth'] == '3' and path['s1_i1_exp'] == '3.67'
    assert multipliers == 1.0 or (path['s3_width_mult'] == '1.0' and path['s1_i0_se'] == 'identity')
    assert not report.notes


@pytest.mark.parametrize(
    ('gates', 'multipliers'), [('force', 1.0), pytest.param('optional', (0.5, 1.0), marks=pytest.mark.slow)]
)
def test_gates_of_the_space_alone_start_constant(multipliers, gates):
    network = with_activations(mobile_like(widths=WIDTHS), nn.ReLU)
    target, _ = started(network, mobile_space((*WIDTHS, 72), multipliers=multipliers, gates=gates), 64, 30)
    assert change(network, target, 64) < 1e-5  # the layer before the classifier hands on the features
    if gates == 'optional':
        assert best(target)['s1_i0_se'] == 'identity'
        with torch.no_grad():
            for name, choice in target.named_parameters():
                if name.endswith('se._arch_alpha'):
                    choice.copy_(-choice)
        assert change(network, target, 64) < 1e-4  # with the gates


def test_searched_widths_and_kernels_compute_the_same_as_a_path_and_as_a_mixture():
    network = with_activations(mobile_like(widths=WIDTHS), nn.ReLU)
    target, _ = started(network, mobile_space((*WIDTHS, 72), multipliers=(0.5, 1.0, 1.5)), 64)
    assert change(network, selected(target), 64) < 1e-5
    mixture = selected(target, 'depth')  # of blocks to spare, which are not the identity under a norm
    assert agreement(network, mixture, 64) > 0.98


@pytest.mark.slow
def test_gates_of_the_network_alone_are_means():
    network = mobile_like(gate=True)
    target, report = started(network, ProxylessNAS(5, base_widths=(8, 8, 16, 16, 24, 24, 32, 40, 64)), 64)
    assert agreement(network, selected(target), 64) > 0.98
    assert any('means are used' in note for note in report.notes)


@pytest.mark.slow
def test_other_activations_are_named_and_brought_near():
    network = mobile_like(widths=WIDTHS)
    found = []
    for sharpness in (1.0, adjustments.SHARPNESS):
        with patch.object(adjustments, 'SHARPNESS', sharpness):
            target, report = started(network, mobile_space((*WIDTHS, 72), activation='hswish'), 64, 30)
        assert any('followed by hardswish where the network has relu6' in note for note in report.notes)
        found.append(agreement(network, target, 64))
    assert found[1] > found[0] + 0.1


@pytest.mark.slow
def test_the_mixture_keeps_what_all_candidates_can_compute():
    network = mobile_like(blocks=[[(1, 3)], *[[(3, 3)] * 4] * 5, [(3, 3)]])
    target, _ = started(network, ProxylessNAS(5, base_widths=(8, 8, 16, 16, 24, 24, 32, 40, 64)), 64)
    assert change(network, selected(target, 'depth'), 64) < 1e-4
    network = randomised(Plain((3, 3)))
    target, _ = started(network, Own())
    assert agreement(network, selected(target, 'r')) > 0.98


@pytest.mark.parametrize('before', [False, True])
@pytest.mark.parametrize('count', [2, 4])
def test_residual_blocks_are_a_path_of_cells(count, before):
    network = randomised(ResNetLike(2, before=before))
    target, _ = started(network, Cells(count))
    assert change(network, selected(target)) < 1e-5
    path = best(target)
    assert path['cell/0_1'] == path['cell/1_3'] == 'conv_3x3' and path['cell/0_2'] == path['cell/2_3'] == 'none'
    assert path['cell/0_3'] == ('skip_connect' if before else 'conv_1x1')


@pytest.mark.parametrize(('count', 'norm'), [(2, True), (3, False)])
def test_stages_with_average_pools_on_their_shortcuts_are_exact(count, norm):
    network = randomised(ResNetLike(2, 3, before=True, norm=norm))
    target, report = started(network, NasBench201(8, count, 5))
    assert change(network, selected(target)) < 1e-5
    assert not report.notes


def test_stages_of_a_resnet_have_places():
    network = randomised(ResNetLike(3, 3))
    target, report = started(network, NasBench201(8, 3, 5))
    mapped = {origin.source for origin in report.origins if origin.how == 'copied'}
    assert {name for name in network.state_dict() if 'conv' in name and 'weight' in name} <= mapped
    assert best(target)['cell/1_3'] == 'conv_3x3'
    assert any('on shortcuts' in note for note in report.notes)


def test_a_chain_of_convolutions_is_a_path_of_cells():
    network = randomised(Plain((3, 3, 3)))
    network.blocks = network.blocks[1:]  # one convolution, and three of one width
    network.blocks[0][0] = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    randomised(network)
    target, _ = started(network, Cells(3, 16))
    assert change(network, selected(target)) < 1e-5
    assert best(target)['cell/0_3'] == 'conv_3x3'


@pytest.mark.parametrize('own', [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize('theirs', [(True, False), (False, True), (True, True)])
def test_biases_and_norms_may_be_on_one_side_only(own, theirs):
    network = randomised(Plain((3, 5, 3, 1), norm=theirs[0], bias=theirs[1]))
    target, report = started(network, Own(norm=own[0], bias=own[1]))
    assert change(network, selected(target)) < 1e-5
    assert best(target) == {'a': 'k3', 'ones': '2', 'r0': 'k3', 'r1': 'k5', 't0': 'k3', 'u0': 'k1', 'twos': '1'}
    spare = [
        origin for origin in report.origins if origin.target.startswith('twos.blocks.1') and 'alpha' not in origin.target
    ]
    assert all(each.how == 'identity' for each in spare if each.parameter)


@pytest.mark.parametrize(
    ('kernels', 'path'),
    [((3, 1), {'r0': 'skip', 'ones': '1', 'twos': '1'}), ((3, 5, 3, 3, 1, 5, 3), {'r1': 'k5', 't1': 'k5', 'twos': '2'})],
)
def test_other_depths_of_a_space_of_ones_own(kernels, path):
    network = randomised(Plain(kernels))
    target, _ = started(network, Own())
    assert change(network, selected(target)) < 1e-5
    assert best(target).items() >= path.items()


SHUFFLED = (8, 16, 32, 64, 96)


@pytest.mark.parametrize(
    ('network', 'space', 'affine'),
    [
        ((SHUFFLED, (2, 3, 2)), (SHUFFLED, (2, 3, 2)), True),
        ((SHUFFLED, (2, 3, 2)), (SHUFFLED, (2, 3, 2)), False),
        ((SHUFFLED, (2, 3, 2)), (SHUFFLED, (3, 3, 4)), True),
        (((8, 20, 36, 72, 96), (2, 6, 2)), ((12, 28, 60, 124, 104), (2, 6, 2)), True),
        ((SHUFFLED, (2, 3, 2)), ((10, 24, 52, 112, 104), (3, 4, 2)), False),
    ],
)
def test_shuffled_channels_are_followed_to_other_widths_and_depths(network, space, affine):
    torch.manual_seed(0)
    model = randomised(ShuffleLike(*network), 64)
    target, report = started(model, Shuffles(*space, affine=affine), 64, 30)
    assert set(best(target).values()) == {'k3'} and len(best(target)) == sum(network[1]) and not report.notes
    for name in ('k3', 'k5', 'k7'):
        with torch.no_grad():
            for choice in choices(target).values():
                choice.alpha.copy_(100.0 * torch.tensor([each == name for each in choice.candidates]))
        assert change(model, target, 64) < 1e-5


@pytest.mark.parametrize(
    'settings',
    [
        {},
        pytest.param({'affine': False}, marks=pytest.mark.slow),
        pytest.param({'channel_search': True}, marks=pytest.mark.slow),
    ],
)
def test_a_shufflenet_is_a_path_of_the_hubs_space(settings):
    torch.manual_seed(0)
    network = randomised(ShuffleLike((16, 116, 232, 464, 1024), (4, 8, 4), pool=1, bias=False), 64)  # as wide as x1.0
    target, report = started(network, ShuffleNetSpace(5, **settings), 64, 30)
    assert change(network, target, 64) < 3e-5  # over 20 blocks
    assert best(target)['layer_5'] == 'k3' and 'layer_4' not in best(target)  # the pool's stage hands on
    assert len(report.notes) == 1 and 'hand on every second pixel' in report.notes[0]


def test_shuffled_channels_without_a_place_are_named():
    torch.manual_seed(0)
    network = randomised(ShuffleLike(SHUFFLED, (2, 3, 2)), 64)
    target, report = started(network, Shuffles((8, 16, 36, 64, 96), (2, 3, 2)), 64, 30)  # one branch of 28 for 32 channels
    assert agreement(network, target, 64) > 0.9
    assert any('layers of the network read channels that do not reach their places' in note for note in report.notes)


def test_a_missing_bias_of_the_classifier_is_named():
    torch.manual_seed(0)
    space = Shuffles(SHUFFLED, (2, 3, 2))
    space.fc = nn.Linear(96, 5, bias=False)
    _, report = started(randomised(ShuffleLike(SHUFFLED, (2, 3, 2)), 64), space, 64)
    assert len(report.notes) == 1 and report.notes[0].startswith('1 linear layers (fc) lack the bias that the network has')


def test_a_missing_shortcut_is_named():
    network = with_activations(mobile_like(widths=(8, 8, *WIDTHS[1:-1])), nn.ReLU)  # 8 channels before and after
    for multipliers, missing in ((1.0, False), ((0.5, 1.0), True)):
        space = mobile_space((8, 8, *WIDTHS[1:-1], WIDTHS[-2]), multipliers=multipliers)
        target, report = started(network, space, 64, 30)
        assert any('have a shortcut that the target has not' in note for note in report.notes) == missing
        assert (change(network, target, 64) < 1e-5) != missing


def test_layers_without_a_place_are_named():
    _, report = started(randomised(Plain((3, 3, 3, 3, 1, 3, 1, 3))), Own())
    assert any(note.startswith('1 layers of the network have no place in the target (blocks.') for note in report.notes)


@pytest.mark.parametrize('factor', [0.25, 0.5])
def test_a_narrow_space_keeps_the_channels_that_are_read(factor):
    network = randomised(Plain((3, 5, 3, 1), width=32))
    layers = [*(block[0] for block in network.blocks), network.fc]
    with torch.no_grad():
        for layer in layers[1:]:
            layer.weight[:, torch.randperm(layer.weight.shape[1])[int(factor * layer.weight.shape[1]) :]] = 0.0
    target, report = started(network, Own(int(32 * factor)))
    assert change(network, selected(target)) < 2e-3  # the prediction of dropped channels has a penalty
    assert not report.notes and best(target)['r1'] == 'k5'  # no layer is left out


def test_hardly_a_common_layer_is_refused_in_one_line():
    network = mobile_like(blocks=[[(1, 3)], *BLOCKS[1:]])
    with pytest.raises(
        TransferError, match=r"network 'network' \(.*MobileLike\) and the target have \d of \d+ layers in"
    ) as it:
        started(network, Cells(1), 64)
    assert '\n' not in str(it.value)


def test_cells_that_return_all_their_nodes_have_no_place():
    space = DartsSpace(width=8, num_cells=3, dataset='cifar', auxiliary_loss=False)
    with pytest.raises(TransferError, match='layers in common'):
        started(randomised(ResNetLike(3, 3, classes=10)), space)
