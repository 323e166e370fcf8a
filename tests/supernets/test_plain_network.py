"""Networks without choices as sources: what is recorded, exact round trips, and networks that are refused."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import mobile_like
from torch import nn

from nni_warmstart import Supernet, SupernetFileError, TransferError
from nni_warmstart.supernets.file_format import pack, unpack
from nni_warmstart.tracing.layers import layers_of


def test_a_network_is_remembered_exactly(tmp_path):
    network = mobile_like()
    names = [f'class {index}' for index in range(5)]
    licence = {'licence': 'Apache-2.0'}
    source = Supernet.from_network(network, name='mobile', input_shape=(3, 64, 64), class_names=names, history=licence)
    source.save(tmp_path / 'network.safetensors')
    read = Supernet.load(tmp_path / 'network.safetensors')
    assert read.is_network and not read.alphas and read.pictures == (3, 64)
    assert read.class_names == names and read.history['licence'] == 'Apache-2.0'
    assert read.structure.to_bytes() == source.structure.to_bytes()
    other = mobile_like(1)
    other.load_state_dict(read.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(other(x), network(x))
    with pytest.raises(TransferError, match=r'network without choices .*no file can build'):
        read.build()


def test_padding_on_one_side_is_seen():
    layers = layers_of(mobile_like(same=True), (2, 3, 64, 64))
    assert layers['first.0'].start == (-1, -1) and layers['first.0'].size == 32
    assert layers['trunk.1.body.4'].start == (0, 0)  # 3 x 3, stride 2
    assert layers['trunk.3.body.4'].start == (-1, -1)  # 5 x 5, stride 2
    assert layers['trunk.6.body.3'].start == (-3, -3)  # 7 x 7, stride 1
    assert layers['first.1'].eps == 1e-5


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 5))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize(
    ('network', 'shape', 'message'),
    [
        (mobile_like, (3, 64), r'input_shape = \(3, 64\) .* must be \(channels, height, width\)'),
        (mobile_like, (1, 64, 64), r"'n' \(MobileLike\) does not take images of shape \(1, 64, 64\)"),
        (Broken, (3, 9, 9), r"'n' \(Broken\) does not take images"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), (3, 8, 8), "'n' cannot be a source: no linear"),
        (lambda: nn.Sequential(nn.Flatten()), (3, 8, 8), 'it has no parameters'),
        (lambda: nn.Sequential(nn.LazyLinear(3)), (3, 8, 8), 'has no shape yet'),
        (dict, (3, 8, 8), 'model is a dict, but it must be a network'),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(network, shape, message):
    with pytest.raises(TransferError, match=message) as refused:
        Supernet.from_network(network(), name='n', input_shape=shape)
    assert '\n' not in str(refused.value)


def test_class_names_are_one_for_each_class():
    with pytest.raises(TransferError, match='5 classes, and class_names has 1'):
        Supernet.from_network(mobile_like(), name='n', input_shape=(3, 64, 64), class_names=['a'])


def test_a_file_of_a_network_with_alphas_is_malformed():
    tensors, card = unpack(Supernet.from_network(mobile_like(), name='n', input_shape=(3, 64, 64)).to_bytes(), 'file')
    card['alphas'], card['candidates'] = {'a': 'out.bias'}, {'a': ['1', '2', '3', '4', '5']}
    with pytest.raises(SupernetFileError, match='a network without choices has no alphas'):
        Supernet.from_bytes(pack(tensors, card), 'file')
