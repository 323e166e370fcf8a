"""Alignment and fusion of small random networks: permutations come back, functions are kept, nothing is averaged wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_warmstart.errors import TransferError
from nni_warmstart.mapping.alignment import align, fuse
from nni_warmstart.mapping.mapper import map_tensors
from nni_warmstart.mapping.repair import activations, carried, noise, repair
from nni_warmstart.tracing.structure import Structure, structure_of

SHAPE = (2, 3, 8, 8)


class Plain(nn.Module):
    """Convolutions with a bias and a batch norm, flattened into a linear layer."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.second, self.head = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.Linear(2 * width * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.norm(self.first(x)))))
        return self.head(F.max_pool2d(F.relu(self.second(x)), 2).flatten(1))


class Residual(nn.Module):
    """A stream that three layers add to."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 5)
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.a(F.relu(x))
        x = x + self.b(F.relu(x))
        return self.head(F.relu(x).mean((2, 3)))


class MLP(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(192, 3 * width), nn.ReLU(), nn.Linear(3 * width, width), nn.ReLU())
        self.head = nn.Linear(width, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.flatten(1)))


NETWORKS: list[Callable[[int], nn.Module]] = [Plain, Residual, MLP]


def made(kind: Callable[[int], nn.Module], seed: int = 0, width: int = 6) -> nn.Module:
    """With statistics and affine parameters that tell channels apart."""
    torch.manual_seed(seed)
    model = kind(width)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def filled(model: nn.Module, state: dict[str, Tensor], kind: Callable[[int], nn.Module], width: int = 6) -> nn.Module:
    new = kind(width)
    new.load_state_dict({**model.state_dict(), **state})
    return new.eval()


def shuffled(state: dict[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ends = np.concatenate([structure.channels.inputs, structure.channels.outputs])

    def couple(theirs: Any, mine: Any) -> Tensor:
        eye = torch.eye(len(mine), dtype=torch.float64)
        return eye if np.isin(mine.channels, ends).any() else eye[torch.randperm(len(mine), generator=generator)]

    return map_tensors(state, structure, structure, couple=couple).tensors


def pictures(count: int = 64) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('method', ['weights', 'activations', 'both'])
def test_a_permutation_is_recovered(kind: Callable[[int], nn.Module], method: str) -> None:
    model = made(kind)
    state, structure = model.state_dict(), structure_of(model, SHAPE)
    other = shuffled(state, structure)
    assert any(not torch.equal(other[name], state[name]) for name in other)
    given = None
    if method != 'weights':
        given = activations(filled(model, other, kind), pictures()), activations(model, pictures())
    mapping = align(other, structure, structure, state, activations=given, weights=method != 'activations')
    fused = fuse([mapping.tensors, state], [0.5, 0.5])
    assert set(fused) == set(structure.channels.tensors)
    for name, tensor in fused.items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('width', [6, 9, 12])
@pytest.mark.parametrize('by_weights', [True, False])
def test_the_function_is_kept_in_another_network_of_equal_or_larger_width(
    kind: Callable[[int], nn.Module], width: int, by_weights: bool
) -> None:
    source, target = made(kind), made(kind, seed=1, width=width)
    of_source, of_target = structure_of(source, SHAPE), structure_of(target, SHAPE)
    given = None if by_weights else (activations(source, pictures()), activations(target, pictures()))
    mapping = align(source.state_dict(), of_source, of_target, target.state_dict(), activations=given)
    x = pictures(16)
    with torch.no_grad():
        expected, found = source(x), filled(target, mapping.tensors, kind, width)(x)
    assert mapping.couplings.found, 'nothing was coupled'
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_stream_of_a_residual_network_has_one_permutation() -> None:
    source, target = made(Residual), made(Residual, seed=1)
    structure = structure_of(source, SHAPE)
    state = source.state_dict()
    moved = align(state, structure, structure, target.state_dict()).tensors
    order = [int((state['stem.bias'] == value).nonzero()) for value in moved['stem.bias']]
    assert order != sorted(order) and sorted(order) == list(range(6))
    for name in ('a.bias', 'b.bias'):
        assert torch.equal(moved[name], state[name][order])
    assert torch.equal(moved['head.weight'], state['head.weight'][:, order])
    assert torch.equal(moved['a.weight'], state['a.weight'][order][:, order])
    assert torch.equal(moved['head.bias'], state['head.bias'])


def test_bias_and_batch_norm_alone_decide() -> None:
    """With equal incoming and outgoing weights for every channel only its norm tells it apart."""
    source = made(Plain)
    with torch.no_grad():
        for name, p in source.named_parameters():
            if name.split('.')[0] in ('first', 'depthwise', 'second'):
                p.fill_(0.1)
    structure, state = structure_of(source, SHAPE), source.state_dict()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    other = {name: t[order] if name.startswith('norm') and t.dim() else t for name, t in state.items()}
    moved = align(state, structure, structure, other).tensors
    for name in ('norm.weight', 'norm.bias', 'norm.running_mean', 'norm.running_var'):
        torch.testing.assert_close(moved[name], other[name], rtol=0, atol=0)


@pytest.mark.parametrize('narrow', ['merge', 'select'])
def test_a_narrower_target_takes_every_channel_or_the_best_ones(narrow: str) -> None:
    source, target = made(MLP, width=6), made(MLP, seed=1, width=3)
    of_source, of_target = structure_of(source, SHAPE), structure_of(target, SHAPE)
    mapping = align(source.state_dict(), of_source, of_target, target.state_dict(), narrow=narrow)
    inner = [c for c in mapping.couplings.found.values() if c.shape[0] != c.shape[1]]
    assert len(inner) == 2
    for coupling in inner:
        assert (coupling.sum(0) == (2 if narrow == 'merge' else 1)).all()
        assert (coupling.sum(1) <= 1).all()
    assert all(mapping.tensors[name].shape == tensor.shape for name, tensor in target.state_dict().items())


@pytest.mark.parametrize('weights', [[0.5, 0.6], [1.0], [0.5, 0.500002]])
def test_weights_must_sum_to_one(weights: list[float]) -> None:
    state = {'w': torch.ones(2)}
    with pytest.raises(TransferError, match=r'weights = \[.*sum to'):
        fuse([state, state], weights)


def test_the_mean_is_weighted() -> None:
    fused = fuse([{'w': torch.zeros(2)}, {'w': torch.ones(2)}], [0.25, 0.75 + 5e-7])
    torch.testing.assert_close(fused['w'], torch.full((2,), 0.75))


def test_other_arguments_are_checked() -> None:
    model = made(MLP)
    structure, state = structure_of(model, SHAPE), model.state_dict()
    with pytest.raises(TransferError, match="narrow = 'cut'"):
        align(state, structure, structure, state, narrow='cut')
    sides = activations(model, pictures(8)), activations(model, pictures(9))
    with pytest.raises(TransferError, match=r"'layers\.0' have 8 rows and those of 'layers\.0' 9"):
        align(state, structure, structure, state, activations=sides)


@pytest.mark.parametrize('kind', NETWORKS)
@pytest.mark.parametrize('regress', [True, False])
def test_repair_leaves_a_network_that_makes_what_it_should(kind: Callable[[int], nn.Module], regress: bool) -> None:
    model = made(kind)
    sides = activations(model, pictures())
    repaired = repair(model, model.state_dict(), pictures(), [sides, sides], [0.5, 0.5], regress=regress)
    for name, tensor in repaired.items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', [Residual, MLP])
def test_regression_recovers_damaged_weights_and_rescaling_a_scale(kind: Callable[[int], nn.Module]) -> None:
    model, x = made(kind), pictures(400)
    state, sides = model.state_dict(), activations(model, x)
    halved = {name: tensor * 0.5 for name, tensor in state.items()}
    noisy = {name: tensor + 0.3 * tensor.std() * torch.randn(tensor.shape) for name, tensor in state.items()}
    with torch.no_grad():
        wanted = model(x)
        for broken, regress, tolerance in ((halved, False, 1e-4), (halved, True, 0.1), (noisy, True, 0.2)):
            errors = [
                float((filled(model, each, kind)(x) - wanted).norm() / wanted.norm())
                for each in (broken, repair(model, broken, x, [sides], [1.0], regress=regress))
            ]
            assert errors[1] < tolerance and errors[1] < 0.6 * errors[0], errors


def test_what_is_read_times_the_weights_is_what_is_made() -> None:
    """Strides, dilations and paddings, against torch's own convolution."""
    from nni_warmstart.mapping.repair import _input_rows, _rows

    for options in ({'stride': 2, 'padding': 1}, {'dilation': 2, 'padding': (2, 1)}, {'stride': (1, 2)}):
        layer = nn.Conv2d(3, 4, (3, 2), bias=False, **options)
        x = torch.randn(50, 3, 15, 17)
        with torch.no_grad():
            torch.testing.assert_close(
                _input_rows(layer, x) @ layer.weight.flatten(1).T, _rows(layer(x)), rtol=1e-4, atol=1e-5
            )


def test_activations_are_bounded_and_carried_over() -> None:
    source, target = made(Plain), made(Plain, seed=1, width=12)
    of_source, of_target = structure_of(source, SHAPE), structure_of(target, SHAPE)
    x = noise((300, 3, 8, 8))
    assert abs(float(x.mean())) < 1e-5 and abs(float(x.std()) - 1) < 1e-5
    theirs, ours = activations(source, x), activations(target, x)
    assert theirs.keys() == {'first', 'norm', 'depthwise', 'second', 'head'}
    assert all(8192 <= len(each) <= 8192 + 300 for path, each in theirs.items() if path in ('first', 'norm', 'depthwise'))
    mapping = align(source.state_dict(), of_source, of_target, target.state_dict(), activations=(theirs, ours))
    expected = activations(filled(target, mapping.tensors, Plain, 12), x)
    for path, found in carried(theirs, mapping, of_source, of_target).items():
        torch.testing.assert_close(found, expected[path], rtol=1e-4, atol=1e-4)
