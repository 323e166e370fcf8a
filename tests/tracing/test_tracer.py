"""Tracing the channels of a model space: it leaves the network alone, and what it cannot follow is named."""

from __future__ import annotations

import pytest
import torch
from helpers.mapped import difference, trained
from helpers.tiny import Attention, OwnSpace, run, small_space
from nni.nas.hub.pytorch import NasBench201
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_warmstart import Supernet, SupernetZoo, TransferError, WarmStartDARTS, transfer
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.tracing.structure import Structure, structure_of


def test_what_cannot_be_traced_is_named_or_starts_fresh(tmp_path):
    source, target = trained(Attention(4)), trained(Attention(8), 1)
    supernet = Supernet.from_model(source, name='source')
    with pytest.raises(
        TransferError, match=r"module 'mixer' \(Mixer\) of supernet 'source' cannot be mapped: .*untraceable='fresh'"
    ):
        transfer(supernet, target, head='random')
    report = transfer(supernet, target, head='random', untraceable='fresh')
    how = {origin.target: origin.how for origin in report.origins}
    assert how['mixer.scale'] == 'fresh'
    assert how['stem.weight'] == how['body.conv.weight'] == 'widened'
    with pytest.raises(TransferError, match="untraceable = 'maybe' is unknown"):
        transfer(supernet, target, head='random', untraceable='maybe')
    strategy = run(WarmStartDARTS(source=supernet, untraceable='fresh'), tmp_path, epochs=1, space=Attention(8))
    assert {origin.target: origin.how for origin in strategy.report.origins}['mixer.scale'] == 'fresh'


def test_spaces_that_fail_to_run_are_named():
    class Broken(OwnSpace):
        def forward(self, x):
            return self.head(self.norm(self.stem(x)).flatten(1))

    model = mutate(Broken(), 'DARTS')
    with pytest.raises(
        TransferError, match=r"module 'head' .* does not run on an input of shape \(2, 3, 8, 8\) without data"
    ):
        structure_of(model, (2, 3, 8, 8))
    source = Supernet.from_model(trained(OwnSpace()), name='source')
    wide = Broken()
    wide.stem[0] = nn.Conv2d(3, 6, 5, padding=2)
    with pytest.raises(TransferError, match='does not run'):
        transfer(source, mutate(wide, 'DARTS'), head='random')


def test_tracing_leaves_the_network_alone():
    model = trained(small_space())
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    structure = structure_of(model, (2, 3, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.stem.training
    assert torch.equal(random, torch.random.get_rng_state())
    again = Structure.from_bytes(structure.to_bytes())
    assert again.to_bytes() == structure.to_bytes()
    assert again.kinds == structure.kinds


def test_channels_lost_on_the_way_cost_only_their_module(caplog):
    class Spatial(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, x):
            return x * torch.sigmoid(self.norm(x.mean(1, keepdim=True)))

    class Space(OwnSpace):
        def __init__(self):
            super().__init__()
            self.norm = nn.Sequential(self.norm, Spatial())

    supernet = Supernet.from_model(trained(Space()), name='source')
    assert supernet.structure is not None
    assert list(supernet.structure.channels.opaque) == ['norm.1.norm']


def test_structures_that_do_not_fit_their_tensors_are_refused():
    from dataclasses import replace

    from nni_warmstart import SupernetFileError

    narrow, wide = (Supernet.from_model(trained(NasBench201(width, 1, 3)), name='source') for width in (4, 8))
    with pytest.raises(SupernetFileError, match='has a structure that does not fit its tensors'):
        Supernet.from_bytes(replace(narrow, structure=wide.structure).to_bytes())
    with pytest.raises(SupernetFileError, match='has a structure that this version does not understand'):
        Structure.from_bytes(b'nonsense')


class Written(ModelSpace):
    """What people write around their layers: constants that no file has, scales and kernels seen from another side."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Conv2d(3, width, 1)
        self.scale, self.gamma = (nn.Parameter(torch.rand(size)) for size in ((width,), (1, width, 1, 1)))
        self.kernel = nn.Parameter(torch.randn(width, 2 * width))  # transposed: from 'width' to twice as many
        self.back = nn.Linear(2 * width, width)
        self.body = LayerChoice({'conv': nn.Conv2d(width, width, 3, padding=1), 'skip': nn.Identity()}, label='body')
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x - self.mean) * self.scale[None, :, None, None]
        x = nn.functional.conv2d(x, self.kernel.t()[:, :, None, None])
        x = self.back(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.gamma.expand(len(x), -1, *x.shape[2:])
        return self.head(self.body(x).mean((2, 3)))


@pytest.mark.parametrize('width', [6, 12])
def test_views_of_weights_and_linear_layers_on_transposed_pictures(width, tmp_path):
    error, report = difference(trained(Written(4)), trained(Written(width), 1), 8)
    assert error < 1e-5
    assert report.share_inherited == 1.0
    run(WarmStartDARTS(save_to=tmp_path), tmp_path, epochs=1, space=Written(4))
    kept = SupernetZoo(tmp_path)['written-1']
    assert kept.structure is not None
    assert 'mean' not in kept.tensors
