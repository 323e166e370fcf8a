"""Supernets: exact round trips over NNI's hub, and files that are refused."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import replace

import nni.nas.hub.pytorch as hub
import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.tiny import OwnSpace, make_task, run, small_space
from torch.utils.data import DataLoader

from nni_warmstart import ConfigError, Supernet, SupernetFileError, TransferError, WarmStartDARTS
from nni_warmstart.data import digits, split
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.model_spaces import create, hub_spaces
from nni_warmstart.nni_adapter.mutation import mutate, strategy_kind
from nni_warmstart.supernets.file_format import pack, unpack
from nni_warmstart.utils.files import write_atomic

# Every model space of the hub, small, and whether NNI's DARTS strategy can mutate it.
HUB = {
    'NasBench201': {'stem_out_channels': 4, 'num_modules_per_stack': 1},
    'DARTS': {'width': 4, 'num_cells': 3},
    'ENAS': {'width': 4, 'num_cells': 3},
    'NASNet': {'width': 4, 'num_cells': 3},
    'PNAS': {'width': 4, 'num_cells': 3},
    'AmoebaNet': {'width': 4, 'num_cells': 3},
    'NDS': {'op_candidates': ['skip_connect', 'conv_3x3'], 'width': (4, 8), 'num_cells': (3, 6), 'dataset': 'cifar'},
    'MobileNetV3Space': {
        'num_labels': 10, 'base_widths': (8, 8, 8, 16, 16, 16, 16, 16, 32), 'width_multipliers': (0.5, 1.0),
        'expand_ratios': (1.0, 2.0), 'depth_range': (1, 2),
    },
    'ProxylessNAS': {'num_labels': 10, 'base_widths': (8, 8, 8, 8, 16, 16, 16, 16, 32)},
    'ShuffleNetSpace': {'num_labels': 10},
    'AutoFormer': {
        'search_embed_dim': (16, 32), 'search_mlp_ratio': (1.0, 2.0), 'search_num_heads': (2,), 'search_depth': (1, 2),
        'img_size': 32, 'num_labels': 10,
    },
}  # fmt: skip
CANNOT = {
    'NasBench101': 'its cells choose their topology, for which NNI has no differentiable module (TypeError in mutate)',
}


def test_every_hub_space_is_in_a_list():
    same = {'AutoformerSpace': 'AutoFormer'}  # NNI has two names for it
    assert {same.get(name, name) for name in hub_spaces()} == HUB.keys() | CANNOT.keys()


@pytest.mark.slow
@pytest.mark.parametrize('name', CANNOT)
def test_spaces_that_nni_cannot_mutate(name):
    with pytest.raises(TypeError):
        mutate(getattr(hub, name)(), 'DARTS')


@pytest.mark.slow
@pytest.mark.parametrize('name', HUB)
def test_round_trip_is_exact(name, tmp_path):
    torch.manual_seed(0)
    model = mutate(getattr(hub, name)(**HUB[name]), 'DARTS')
    with torch.no_grad():
        for tensor in model.state_dict().values():  # nothing may equal a fresh initialisation by chance
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
    Supernet.from_model(model, name=name.lower()).save(tmp_path / 'net.safetensors')
    loaded = Supernet.load(tmp_path / 'net.safetensors')
    again = loaded.build()  # from the card alone
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), again.eval()(x))
    assert model.state_dict().keys() == again.state_dict().keys()
    for label, choice in choices(model).items():
        assert torch.equal(choice.alpha, choices(again)[label].alpha)
        assert list(choice.candidates) == loaded.candidates[label]


def test_half_precision_halves_the_file_and_little_else(tmp_path):
    model = mutate(small_space(), 'DARTS')
    name, weight = next((name, each) for name, each in model.named_parameters() if each.dim() > 1)
    with torch.no_grad():
        weight.view(-1)[0] = 7e4  # beyond its range
    whole = Supernet.from_model(model, name='net').sketched(make_task())
    whole.in_half().save(tmp_path / 'net.safetensors')
    loaded = Supernet.load(tmp_path / 'net.safetensors')
    stored, state = loaded.tensors, loaded.state_dict()
    assert {each.dtype for each in state.values() if each.is_floating_point()} == {torch.float32}
    assert stored[name].dtype == torch.float32 and any(each.dtype == torch.float16 for each in stored.values())
    for key, each in whole.state_dict().items():
        assert torch.allclose(state[key].double(), each.double(), rtol=5e-4, atol=1e-7)
    assert loaded.sketches[loaded.key].embedding == loaded.key != whole.key
    built = loaded.build(small_space()).state_dict()
    assert all(torch.equal(built[key], each) for key, each in state.items())
    assert whole.in_half().in_half().key == loaded.key


@pytest.mark.slow
def test_shared_alphas_are_stored_once():
    model = mutate(hub.DARTS(width=4, num_cells=6, dataset='cifar'), 'DARTS')
    supernet = Supernet.from_model(model, name='shared')
    assert supernet.aliases, 'six cells share the alphas of two labels'
    assert len(supernet.tensors) + len(supernet.aliases) == len(model.state_dict())
    assert len(supernet.alphas) == 28  # 14 edges of the normal and 14 of the reduction cell


@pytest.mark.parametrize('kind', ['GumbelDARTS', 'Proxyless'])
def test_other_strategies_are_remembered(kind):
    model = mutate(small_space(), kind)
    supernet = Supernet.from_model(model, name='net')
    assert supernet.strategy == kind
    assert strategy_kind(supernet.build()) == kind


def test_own_class_is_rebuilt_only_when_passed(tmp_path):
    supernet = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path, space=OwnSpace(), epochs=1), name='own')
    assert supernet.space == {'class': 'helpers.tiny:OwnSpace'}
    with pytest.raises(TransferError, match='a file never chooses what code runs'):
        supernet.build()
    for space in (OwnSpace(), OwnSpace):
        built = supernet.build(space=space)
        assert all(torch.equal(t, supernet.state_dict()[n]) for n, t in built.state_dict().items())


def test_a_card_cannot_run_code(tmp_path):
    """A card that names another class is refused without importing it."""
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='evil')
    (tmp_path / 'evil_module.py').write_text('raise SystemExit("imported")')
    for name in ('evil_module:Space', 'os:system', 'subprocess:Popen'):
        changed = Supernet.from_bytes(pack(supernet.tensors, {**supernet.card, 'space': {'name': name, 'arguments': {}}}))
        with pytest.raises(TransferError, match='not a registered or hub space'):
            changed.build()


def test_wrong_space_names_tensor_and_shapes():
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='net')
    with pytest.raises(TransferError, match=r"tensor '.*' has shape .* use transfer\(\)"):
        supernet.build(space=hub.NasBench201(stem_out_channels=8, num_modules_per_stack=1))


def test_only_supernets_are_remembered():
    with pytest.raises(TransferError, match='NasBench201 is not a supernet'):
        Supernet.from_model(small_space(), name='raw')


@pytest.fixture(scope='module')
def packed() -> bytes:
    return Supernet.from_model(mutate(small_space(), 'DARTS'), name='net').to_bytes()


@pytest.mark.parametrize('keep', [0, 4, 100, 5000, -1])
def test_truncated_files_are_refused(packed, keep, tmp_path):
    path = tmp_path / 'net.safetensors'
    path.write_bytes(packed[:keep])
    with pytest.raises(SupernetFileError, match=r'net\.safetensors.*(truncated|damaged|not a)'):
        Supernet.load(path)


def test_one_altered_bit_is_refused(packed):
    for position in (len(packed) - 3, len(packed) // 2):
        changed = bytearray(packed)
        changed[position] ^= 1
        with pytest.raises(SupernetFileError, match='altered'):
            Supernet.from_bytes(bytes(changed))


def test_an_altered_card_is_refused(packed):
    with pytest.raises(SupernetFileError, match='altered'):
        Supernet.from_bytes(packed.replace(b'NasBench201', b'NasBench202', 1))


def test_foreign_files_are_refused(tmp_path):
    foreign = safetensors.torch.save({'weight': torch.zeros(2)})
    with pytest.raises(SupernetFileError, match='not a supernet of nni-warmstart'):
        Supernet.from_bytes(foreign)
    torch.save({'weight': torch.zeros(2)}, tmp_path / 'pickle.pt')
    with pytest.raises(SupernetFileError, match=r'pickle\.pt'):
        Supernet.load(tmp_path / 'pickle.pt')
    with pytest.raises(SupernetFileError, match=r'nowhere.*cannot be read'):
        Supernet.load(tmp_path / 'nowhere.safetensors')


def test_newer_files_are_refused(monkeypatch, packed):
    supernet = Supernet.from_bytes(packed)
    monkeypatch.setattr('nni_warmstart.supernets.header.FORMAT', 4)
    newer = supernet.to_bytes()
    monkeypatch.undo()
    with pytest.raises(SupernetFileError, match='file format 4, and this version reads up to 3; upgrade'):
        Supernet.from_bytes(newer)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'name': 3}, 'name is not a str'),
        ({'alphas': {'x': 'no such tensor'}}, 'names tensors that are not in the file'),
        ({'alphas': {'x': ['list']}}, 'aliases and alphas must name tensors'),
        ({'candidates': {}}, 'alpha and candidates of .* do not fit together'),
        ({'space': {'name': 'NasBench201'}}, 'space names neither a class nor a name with arguments'),
        ({'strategy': 'ENAS'}, "names the strategy 'ENAS'"),
        ({'surprise': 1}, 'a card that this version does not understand'),
    ],
)
def test_malformed_cards_are_refused(packed, change, message):
    supernet = Supernet.from_bytes(packed)
    with pytest.raises(SupernetFileError, match=message):
        Supernet.from_bytes(pack(supernet.tensors, {**supernet.card, **change}))


def test_a_diverged_run_is_remembered_too(packed):
    supernet = Supernet.from_bytes(packed)
    history = {'curve': [{'train_loss': float('nan'), 'default': 0.5}, {'train_loss': float('inf')}]}
    again = Supernet.from_bytes(replace(supernet, history=history).to_bytes())
    assert again.history['curve'] == [{'train_loss': None, 'default': 0.5}, {'train_loss': None}]


def test_a_history_of_anything_that_a_file_can_hold(tmp_path):
    model = mutate(small_space(), 'DARTS')
    history = {'accuracy': np.float32(0.5), 'loss': torch.tensor(float('inf')), 'seeds': {1: (2, 3), 'b': None}}
    Supernet.from_model(model, name='one', history=history).save(tmp_path / 'one.safetensors')
    kept = Supernet.load(tmp_path / 'one.safetensors').history
    assert {key: kept[key] for key in history} == {'accuracy': 0.5, 'loss': None, 'seeds': {'1': [2, 3], 'b': None}}
    with pytest.raises(ConfigError, match='of type Tensor cannot be kept in a file; give numbers'):
        Supernet.from_model(model, name='one', history={'weights': torch.ones(3)})
    with pytest.raises(ConfigError, match=r"history.pictures = 'big', which is not \[channels, side\]"):
        Supernet.from_model(model, name='one', history={'pictures': 'big'})


@pytest.mark.slow
def test_pictures_of_a_hub_space_are_those_it_was_trained_on():
    """The space takes several sizes; its card says which it has seen."""
    task = make_task(side=8)
    model = mutate(small_space(), 'DARTS')
    for dataset in (task, split(task).train, DataLoader(split(task).train, 8), (task.train_x, task.train_y)):
        assert Supernet.from_model(model, name='one', dataset=dataset).pictures == (3, 8)
    assert Supernet.from_model(model, name='one').pictures == (3, 32)


def test_writing_is_atomic(tmp_path, monkeypatch, packed):
    """A write that fails leaves the old file and no rubbish."""
    path = tmp_path / 'net.safetensors'
    path.write_bytes(packed)

    def full(descriptor: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(OSError, match='No space left'):
        write_atomic(path, b'new')
    assert path.read_bytes() == packed
    assert [p.name for p in tmp_path.iterdir()] == ['net.safetensors']


def test_the_card_is_json_in_the_metadata(packed):
    length = int.from_bytes(packed[:8], 'little')
    header = json.loads(packed[8 : 8 + length])
    card = json.loads(header['__metadata__']['nni_warmstart.card'])
    assert card['space'] == {
        'name': 'NasBench201', 'arguments': {'stem_out_channels': 4, 'num_modules_per_stack': 1, 'num_labels': 3},
    }  # fmt: skip


KINDS = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.complex64,
]  # fmt: skip


def test_files_are_those_of_the_library():
    """Of every type and shape; views, and tensors that share memory, are written as what they show."""
    whole = torch.randn(6, 5)
    tensors = {f'{kind}{shape}': torch.ones(shape).to(kind) for kind in KINDS for shape in ((), (0, 3), (3,), (2, 1, 4))}
    tensors |= {'ü': whole, 'rows': whole[2:4], 'columns': whole[:, 1:3], 'turned': whole.T, 'again': whole}
    data = pack(tensors, {'name': 'ü', 'a': 1})
    read = safetensors.torch.load(data)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)
        alone = hashlib.sha256(b'{}' + f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        alone.update(safetensors.torch.save({'': tensor.contiguous().clone()}))
        length = int.from_bytes((packed := pack({name: tensor}, {}))[:8], 'little')
        metadata = json.loads(packed[8 : 8 + length])['__metadata__']
        assert metadata['nni_warmstart.sha256'] == alone.hexdigest()  # what earlier versions wrote, and expected
    header = data[8 : 8 + int.from_bytes(data[:8], 'little')]
    assert len(header) % 8 == 0
    own = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    library = safetensors.torch.save(own, json.loads(header)['__metadata__'])
    moved = (len(header) + 1).to_bytes(8, 'little') + header + b' ' + data[8 + len(header) :]
    for readable in (data, library, bytearray(data), bytearray(moved)):  # the last one has its numbers at odd places
        again, card = unpack(readable, 'file')
        assert card == {'name': 'ü', 'a': 1}
        assert all(
            torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype for name, tensor in tensors.items()
        )
    with pytest.raises(SupernetFileError, match=r"tensor 'x' has the type torch\.float8_e5m2, which no file"):
        pack({'x': torch.zeros(2).to(torch.float8_e5m2)}, {})


@pytest.mark.parametrize(
    ('end', 'value', 'divergence'),
    [
        ('.weight', 1e30, 'weights beyond 1e+06'),
        ('.weight', float('nan'), 'weights that are not finite'),
        ('.running_var', 1e12, None),
        ('.running_var', 1e30, 'weights beyond 1e+18'),
        ('.mask', torch.finfo(torch.float32).min, None),
        ('.mask', float('-inf'), 'weights that are not finite'),
    ],
)
def test_weights_of_no_network_that_works(packed, end, value, divergence):
    """Buffers, such as masks of attention, may hold any finite constants."""
    supernet = Supernet.from_bytes(packed)
    name = next((name for name in supernet.tensors if name.endswith(end)), f'body{end}')
    tensors = {**supernet.tensors, name: torch.full((2, 3), value)}
    altered = replace(supernet, tensors=tensors)
    assert altered.divergence == divergence
    assert altered.diverged == (divergence is not None)


def test_variances_below_zero_are_refused(packed):
    supernet = Supernet.from_bytes(packed)
    name = next(name for name in supernet.tensors if name.endswith('running_var'))
    supernet.tensors[name].fill_(-1)
    with pytest.raises(SupernetFileError, match=r'entry has variances below zero in .*running_var'):
        Supernet.from_bytes(supernet.to_bytes(), 'entry')


def test_raw_data_are_recorded_in_the_shape_that_the_space_takes():
    model = mutate(create('nasbench201', {'width': 4, 'image_size': 8}, num_classes=10), 'DARTS')
    supernet = Supernet.from_model(model, name='grey', dataset=digits())
    assert supernet.pictures == (3, 8)
    assert supernet.structure is not None
    assert supernet.key in supernet.sketches


def test_names_of_classes_may_be_an_array():
    model = mutate(small_space(), 'DARTS')
    supernet = Supernet.from_model(model, name='named', class_names=np.array(['a', 'b', 'c']))
    assert Supernet.from_bytes(supernet.to_bytes()).class_names == ['a', 'b', 'c']


@pytest.mark.parametrize('value', [10**301, functools.reduce(lambda inner, _: [inner], range(200), 1)])
def test_what_cannot_be_read_again_is_not_written(tmp_path, value):
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='odd', history={'value': value})
    with pytest.raises(SupernetFileError, match='a card cannot be written'):
        supernet.save(tmp_path / 'odd.safetensors')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_supernet_of_another_precision_has_a_sketch_in_its_own_features(dtype):
    kept = Supernet.from_model(mutate(OwnSpace(), 'DARTS').to(dtype), name='other', dataset=make_task())
    assert any(name.startswith('supernet:') for name in kept.sketches)


def test_class_names_that_are_not_as_many_as_the_outputs_are_said(caplog):
    kept = Supernet.from_model(mutate(OwnSpace(), 'DARTS'), name='two', class_names=['a', 'b'])
    assert kept.class_names == ['a', 'b']
    assert "Supernet 'two' has 2 class names for 3 outputs" in caplog.text
