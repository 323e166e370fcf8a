"""Mapping a supernet onto spaces of other shapes: functions are kept where they can be, and all is accounted for."""

from __future__ import annotations

import pytest
import torch
from helpers.mapped import darts, difference, mobile, trained
from helpers.tiny import make_task, run, small_space
from nni.nas.hub.pytorch import NasBench201, ProxylessNAS, ShuffleNetSpace
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from torch import nn

from nni_warmstart import Supernet, TransferError, WarmStartDARTS, transfer
from nni_warmstart.cli import main
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import NasBench201Space


class Wide(ShuffleNetSpace):
    """NNI's ShuffleNet, whose widths are fixed, at other widths and with two blocks a stage."""

    factor = 1.0

    @property
    def stage_out_channels(self):
        return self.__dict__['widths']

    @stage_out_channels.setter
    def stage_out_channels(self, widths):
        self.__dict__['widths'] = [width if width < 0 else int(width * self.factor) for width in widths]

    @property
    def stage_repeats(self):
        return [3, 2, 2, 2]

    @stage_repeats.setter
    def stage_repeats(self, repeats):
        pass


class HalfWide(Wide):
    factor = 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ('make', 'narrow', 'wide', 'side'),
    [
        (lambda width: NasBench201(width, 1, 3), 4, 6, 8),
        (darts, 4, 6, 8),
        (darts, 4, 16, 8),
        (mobile, 16, 32, 32),
        (lambda width: ProxylessNAS(3, (width,) * 9), 8, 16, 32),
        (lambda width: (HalfWide if width == 1 else Wide)(3), 1, 2, 32),
    ],
    ids=['nasbench201', 'darts', 'darts-x4', 'mobilenet', 'proxyless', 'shufflenet'],
)
def test_widening_keeps_the_function(make, narrow, wide, side):
    error, report = difference(trained(make(narrow)), trained(make(wide), 1), side)
    assert error < 1e-5
    assert report.share_inherited == 1.0
    assert {'widened'} <= {origin.how for origin in report.origins}


def test_the_same_space_is_copied_to_the_bit():
    error, report = difference(trained(small_space()), trained(small_space(), 1), 8)
    assert error == 0.0
    assert {origin.how for origin in report.origins} == {'copied'}


@pytest.mark.slow
def test_proxyless_supernets_are_mapped_too():
    def space(width: int) -> ModelSpace:
        return ProxylessNAS(3, (width,) * 9)

    error, _ = difference(trained(space(8), kind='Proxyless'), trained(space(16), 1, 'Proxyless'), 32)
    assert error < 1e-5


@pytest.mark.slow
def test_the_order_of_candidates_is_irrelevant():
    ops = ('skip_connect', 'max_pool_3x3', 'sep_conv_3x3', 'conv_1x1')
    error, report = difference(trained(darts(4, ops)), trained(darts(4, ops[::-1]), 1), 8)
    assert error < 1e-5
    assert report.share_inherited == 1.0


def test_growing_kernels_keeps_the_function():
    source = trained(darts(4, ('skip_connect', 'conv_1x1', 'sep_conv_3x3')))
    error, report = difference(source, trained(darts(4, ('sep_conv_5x5', 'skip_connect', 'conv_3x3')), 1), 8)
    assert error < 1e-5
    assert report.choices['normal/2_0'] == {
        'sep_conv_5x5': 'sep_conv_3x3', 'skip_connect': 'skip_connect', 'conv_3x3': 'conv_1x1',
    }  # fmt: skip
    assert any(origin.how == 'kernel-resized' and 'kernel 3 -> 5' in origin.by for origin in report.origins)


def test_a_separable_convolution_starts_with_what_an_ordinary_one_does():
    source = trained(darts(4, ('skip_connect', 'conv_1x1')))
    error, report = difference(source, trained(darts(6, ('dil_conv_3x3', 'skip_connect')), 1), 8)
    assert error < 1e-5
    assert report.share_inherited == 1.0
    assert report.choices['normal/2_0'] == {'dil_conv_3x3': 'conv_1x1', 'skip_connect': 'skip_connect'}
    assert any(origin.how == 'identity' and 'hands on' in origin.by for origin in report.origins)


def test_an_ordinary_convolution_is_not_taken_from_a_separable_ones_depthwise_part():
    source = trained(darts(4, ('skip_connect', 'dil_conv_3x3')))
    _, report = difference(source, trained(darts(4, ('conv_3x3', 'skip_connect')), 1), 8)
    taken = [origin for origin in report.origins if origin.op == 'conv_3x3' and origin.parameter]
    assert taken
    assert all(origin.source for origin in taken)


def test_new_ops_start_fresh_with_the_mean_logit():
    source = trained(darts(4, ('skip_connect', 'conv_3x3')))
    target = trained(darts(4, ('conv_3x3', 'max_pool_3x3', 'skip_connect', 'dil_conv_3x3')), 1)
    _, report = difference(source, target, 8)
    theirs, mine = (choices(model)['normal/2_0'].alpha.detach() for model in (source, target))
    mean = theirs.mean()  # of its two ops and of the edge that is not chosen
    assert torch.allclose(mine, torch.stack([theirs[1], mean, theirs[0], mean, theirs[2]]))
    assert all(o.how == 'fresh' for o in report.origins if o.op == 'dil_conv_3x3' and o.parameter)
    assert report.shares('op')['conv_3x3'] == 1.0
    assert report.shares('op')['dil_conv_3x3'] == 0.0


class Plain(ModelSpace):
    """Everything else: bias, grouped convolution, layer norm, concatenation, flattening, a stem of any stride."""

    def __init__(self, width: int = 8, channels: int = 3, stride: int = 1, side: int = 8, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride, 1)
        self.choice = LayerChoice(
            {'grouped': nn.Conv2d(width, width, 3, padding=1, groups=2), 'skip': nn.Identity()}, label='c'
        )
        self.blocks = Repeat(lambda index: Residual(width), (1, 2), label='depth')
        self.left, self.right = nn.Conv2d(width, width, 1), nn.Conv2d(width, width // 2, 1)
        if shared:
            self.again = self.left
        self.norm = nn.LayerNorm(width + width // 2)
        self.wide = nn.Linear((width + width // 2) * (side // stride) ** 2, 2 * width)
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x):
        x = torch.relu(self.blocks(self.choice(torch.relu(self.stem(x)))))
        x = torch.cat([self.left(x), self.right(x)], 1)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(torch.tanh(self.wide(x.flatten(1))))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width)
        self.back = nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        return x + self.back(torch.relu(self.norm(self.convolution(x))))


def test_every_kind_of_layer_is_widened():
    error, report = difference(trained(Plain(8)), trained(Plain(16), 1), 8)
    assert error < 1e-5
    assert report.share_inherited == 1.0


class Groups(ModelSpace):
    """Groups of a fixed width, and depthwise convolutions that make several channels of one."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        ops = {'groups': nn.Conv2d(width, width, 3, padding=1, groups=width // 4), 'skip': nn.Identity()}
        self.body = LayerChoice(ops, label='body')
        self.many, self.norm = nn.Conv2d(width, 3 * width, 3, padding=1, groups=width), nn.BatchNorm2d(3 * width)
        self.back = nn.Conv2d(3 * width, width, 1, groups=width // 4)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = torch.relu(self.body(torch.relu(self.stem(x))))
        return self.head((x + self.back(torch.relu(self.norm(self.many(x))))).mean((2, 3)))


@pytest.mark.parametrize('width', [12, 16])
def test_more_groups_of_the_same_width_keep_the_function(width):
    error, report = difference(trained(Groups(8)), trained(Groups(width), 1), 8)
    assert error < 1e-5
    assert all(origin.how != 'fresh' for origin in report.origins if origin.parameter)


def test_pictures_of_other_channels():
    source, target = trained(NasBench201(4, 1, 3)), trained(NasBench201(4, 1, 3), 1)
    grey = mutate(NasBench201Space(4, in_channels=1, num_classes=3), 'DARTS')
    transfer(Supernet.from_model(source, name='source'), grey, head='copy', keep=1, noise=0)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(grey.eval()(x), source.eval()(x.expand(-1, 3, -1, -1)), atol=1e-5)
    grey_narrow = mutate(NasBench201Space(2, in_channels=1, num_classes=3), 'DARTS')
    assert transfer(Supernet.from_model(source, name='source'), grey_narrow, head='random').share_inherited > 0.9
    assert grey_narrow.stem[0].weight.isfinite().all()
    transfer(Supernet.from_model(grey, name='grey'), target, head='copy', keep=1, noise=0)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(target.eval()(x), grey.eval()(x.mean(1, keepdim=True)), atol=1e-5)


def test_stems_of_other_strides():
    source = trained(NasBench201Space(4, image_size=8))
    _, report = difference(source, trained(NasBench201Space(8, image_size=16, stem_stride=2), 1), 16)
    assert report.share_inherited == 1.0


@pytest.mark.slow
def test_noise_breaks_the_symmetry_of_copies_only_and_follows_the_seed():
    source = Supernet.from_model(trained(small_space()), name='source')
    first, again, other = (trained(NasBench201(8, 1, 3), 1) for _ in range(3))
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        transfer(source, model, head='random', keep=1, noise=1e-2, seed=seed)
    kernels = [model.stem[0].weight.detach() for model in (first, again, other)]
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])
    copies = (kernels[0][:4] - kernels[0][4:]).abs().max() / kernels[0].pow(2).mean().sqrt()
    assert 0 < copies < 0.1


def test_shared_modules_and_alphas():
    class Shared(ModelSpace):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, width, 3, padding=1)
            self.body = LayerChoice({'conv': nn.Conv2d(width, width, 3, padding=1), 'skip': nn.Identity()}, label='body')
            self.same = self.body
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            return self.head(self.same(torch.relu(self.body(self.stem(x)))).mean((2, 3)))

    error, report = difference(trained(Shared(4)), trained(Shared(8), 1), 8)
    assert error < 1e-5
    assert report.share_inherited == 1.0


@pytest.mark.slow
def test_strategies_start_from_sources_of_other_shapes(tmp_path):
    first = run(WarmStartDARTS(save_to=tmp_path / 'zoo'), tmp_path, epochs=1)
    wide = NasBench201(stem_out_channels=8, num_modules_per_stack=2, num_labels=3)
    second = run(
        WarmStartDARTS(source='nearest', zoo=tmp_path / 'zoo'), tmp_path, epochs=1, space=wide, task=make_task(seed=1)
    )
    assert first.report is None
    assert second.report.source == 'nasbench201-1'
    assert second.report.share_inherited == 1.0


@pytest.mark.slow
def test_show_onto(tmp_path, capsys):
    (tmp_path / 'search.yml').write_text('data: {name: digits}\nspace: {name: nasbench201, width: 12, image_size: 8}\n')
    command = ['zoo', 'show', 'joint-nasbench201-w8', '--onto', str(tmp_path / 'search.yml')]
    assert main([*command, '--picture', str(tmp_path / 'map.png')]) == 0
    printed = capsys.readouterr().out
    assert '% of the parameters inherited' in printed
    assert 'conv_3x3 100%' in printed
    assert "head 'ridge'" in printed
    assert (tmp_path / 'map.png').read_bytes().startswith(b'\x89PNG')
    assert main([*command, '--tensors']) == 0
    assert 'out 8 -> 12, in 3' not in capsys.readouterr().out
    assert main([*command, '--picture', str(tmp_path / 'map.gif')]) == 2


@pytest.mark.slow
@pytest.mark.parametrize('side', [8, 12])  # the source's, and another
def test_halving_the_width_is_fitted_on_pictures(side):
    source = Supernet.from_model(
        trained(NasBench201Space(8, image_size=8, num_classes=3)), name='source', history={'pictures': [3, 8]}
    )
    x = torch.randn(64, 3, side, side)
    theirs = source.build(NasBench201Space(8, image_size=8, num_classes=3)).eval()(x)
    errors = []
    for data in (None, (x, torch.arange(64) % 3)):
        target = trained(NasBench201Space(4, image_size=side, num_classes=3), 1)
        transfer(source, target, head='copy', keep=1, noise=0, data=data)
        with torch.no_grad():
            errors.append(float((target.eval()(x) - theirs).norm() / theirs.norm()))
    assert errors[1] < errors[0]
    assert errors[1] < 0.9


def test_proxyless_targets_may_be_deeper():
    source = Supernet.from_model(trained(small_space(), kind='Proxyless'), name='source')
    report = transfer(source, trained(NasBench201(4, 2, 3), 1, 'Proxyless'), head='random')
    assert report.share_inherited > 0.9


def test_copied_heads_need_equal_classes_in_other_shapes_too():
    source = Supernet.from_model(trained(NasBench201(4, 1, 3)), name='source')
    target = trained(NasBench201(8, 1, 5), 1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(TransferError, match="head 'copy' needs equal classifiers"):
        transfer(source, target, head='copy')
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_targets_of_another_kind():
    source = Supernet.from_model(trained(NasBench201(4, 1, 3)), name='source')
    target = trained(NasBench201(8, 1, 3), 1).double()
    assert transfer(source, target, head='random').share_inherited > 0.9
    with pytest.raises(TransferError, match='target must be a mutated model space, not NoneType'):
        transfer(source, None, head='random')


@pytest.mark.parametrize('source', [None, 'name', [1], [(1, 2, 3)]])
def test_sources_of_another_type_are_refused(source):
    with pytest.raises(TransferError, match='source must be a Supernet'):
        transfer(source, trained(small_space()), head='random')


def test_nothing_of_the_source_is_nothing_inherited():
    source = Supernet.from_model(trained(small_space()), name='source')
    report = transfer(source, trained(NasBench201(8, 1, 3), 1), head='random', keep=0, alpha='reset')
    assert report.share_inherited == 0.0


def test_frozen_modules_stay_frozen():
    target = trained(small_space(), 1)
    target.train()
    target.stem[1].eval()
    data = (torch.randn(16, 3, 8, 8), torch.arange(16) % 3)
    transfer(Supernet.from_model(trained(small_space()), name='source'), target, data=data)
    assert target.training
    assert not target.stem[1].training


def test_pictures_need_a_search(capsys):
    assert main(['zoo', 'show', 'joint-nasbench201-w8', '--picture', 'map.png']) == 2
    assert '--picture and --tensors need --onto' in capsys.readouterr().err
