"""Pretrained networks by name: torchvision's, timm's and a user's own, whose weights are on the disk or are refused."""

from __future__ import annotations

import copy
import hashlib
import pickle
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
import torchvision.models
from helpers.networks import plain
from safetensors.torch import save_file
from torch import nn

from nni_warmstart import ConfigError, Supernet, SupernetFileError, TransferError, WarmStartError
from nni_warmstart.supernets.pretrained import registry, timm_models, torchvision_models
from nni_warmstart.supernets.pretrained.images import IMAGENET, take_standardised
from nni_warmstart.supernets.pretrained.registry import named_network

NAME = 'mobilenet_v3_small'


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return torchvision.models.mobilenet_v3_small(num_classes=1000)


def in_cache(content: bytes | None, monkeypatch, tmp_path) -> Path:
    """Let torchvision publish this content for the network, and put it into torch's folder; None puts nothing there."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    digest = hashlib.sha256(content or b'').hexdigest()[:8]
    weights = torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(weights, 'url', f'https://example.invalid/models/{NAME}-{digest}.pth')
    path = tmp_path / 'torch' / 'hub' / 'checkpoints' / f'{NAME}-{digest}.pth'
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return path


@pytest.fixture
def published(monkeypatch, tmp_path) -> Path:
    """Random weights as if torchvision had published them."""
    torch.save(network().state_dict(), tmp_path / 'weights')
    return in_cache((tmp_path / 'weights').read_bytes(), monkeypatch, tmp_path)


def test_a_network_of_torchvision_is_read_with_what_is_published_of_it(published):
    source = named_network(f'torchvision:{NAME}')
    for name, tensor in network().state_dict().items():
        assert torch.equal(source.state_dict()[name], tensor), name
    assert (source.name, source.pictures, source.dataset, source.licence) == (NAME, (3, 224), 'ImageNet-1K', None)
    assert len(source.class_names) == 1000 and source.class_names[0] == 'tench'
    assert source.history['origin'] == f'torchvision:{NAME}@IMAGENET1K_V1'
    assert source.history['normalisation'] == {'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
    assert named_network(f'torchvision:{NAME}@IMAGENET1K_V1', input_shape=64, licence='MIT').licence == 'MIT'


def test_a_licence_that_torchvision_tells_is_kept(published, monkeypatch):
    weights = torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(weights, 'meta', {**weights.meta, 'license': 'CC-BY-NC-4.0'})
    assert named_network(f'torchvision:{NAME}', input_shape=64).licence == 'CC-BY-NC-4.0'


def test_a_network_that_normalises_again_is_changed_for_it(published, monkeypatch):
    def make(name, **arguments):
        made = network()
        made.transform_input = False
        return made

    monkeypatch.setattr(torchvision_models, 'make', make)
    source = named_network(f'torchvision:{NAME}', input_shape=64)
    assert source.history['normalisation'] == {'mean': [0.5] * 3, 'std': [0.5] * 3}
    scale = torch.tensor(IMAGENET['std']).view(1, 3, 1, 1) / 0.5
    assert torch.allclose(source.tensors['features.0.0.weight'], scale * network().features[0][0].weight)


def test_weights_of_ones_own_go_with_any_name(tmp_path, monkeypatch):
    save_file(network(1).state_dict(), tmp_path / 'mine.safetensors')
    source = named_network(f'torchvision:{NAME}@{tmp_path}/mine.safetensors', input_shape=64)
    assert torch.equal(source.tensors['features.0.0.weight'], network(1).state_dict()['features.0.0.weight'])
    assert (source.pictures, source.class_names, source.num_classes) == ((3, 64), [], 1000)
    save_file(plain(1).state_dict(), tmp_path / 'plain.safetensors')
    source = named_network(f'python:helpers.networks:plain@{tmp_path}/plain.safetensors', input_shape=8)
    assert (source.name, source.pictures) == ('plain', (3, 8))
    assert torch.equal(source.tensors['9.weight'], plain(1).state_dict()['9.weight'])
    source = named_network('python:helpers.networks:plain', input_shape=(3, 8, 8), name='other')
    assert source.name == 'other' and source.history['origin'] == 'python:helpers.networks:plain'
    assert torch.equal(source.tensors['9.weight'], plain().state_dict()['9.weight'])


def test_files_of_before_lack_the_counts_of_batch_norms(tmp_path):
    state = {name: tensor for name, tensor in plain(1).state_dict().items() if not name.endswith('tracked')}
    save_file(state, tmp_path / 'old.safetensors')
    source = named_network(f'python:helpers.networks:plain@{tmp_path}/old.safetensors', input_shape=8)
    assert torch.equal(source.tensors['1.running_var'], state['1.running_var'])


def not_a_network():
    return {'weights': 1}


def failing():
    raise RuntimeError('no\nway')


@pytest.mark.parametrize(
    ('word', 'error', 'message'),
    [
        ('torchvision:mobilenet_v3_smal', ConfigError, r"no classifier '.*'\. Did you mean mobilenet_v3_small\?"),
        ('torchvision:', ConfigError, r"'torchvision:' names no network: write torchvision:NAME, timm:NAME or python:"),
        ('torchvison:resnet18', ConfigError, r'Did you mean torchvision:resnet18\?'),
        ('mobilenet_v3_larg', ConfigError, r'Did you mean torchvision:mobilenet_v3_large\?'),
        ('torchvision:resnet50@V3', ConfigError, r"no weights 'V3'; it has IMAGENET1K_V1, IMAGENET1K_V2\."),
        ('python:helpers.networks:plane', ConfigError, r"source python = 'helpers\.networks:plane' cannot be imported"),
        ('python:helpers.networks', ConfigError, 'must be package.module:name'),
        (f'python:{__name__}:not_a_network', ConfigError, r'returned a dict; it must return a network \(nn\.Module\)'),
        (f'python:{__name__}:failing', ConfigError, 'fails: RuntimeError: no way'),
        ('python:helpers.networks:plain', TransferError, 'give their size in pixels'),
        ('python:helpers.networks:plain@nowhere.safetensors', SupernetFileError, 'nowhere.safetensors cannot be read: No'),
        ('timm:resnet18', ConfigError, r"timm is not installed .*pip install 'nni-warmstart\[timm\]'"),
    ],
)  # fmt: skip
def test_what_names_no_network_is_refused_in_one_line(word, error, message, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(error, match=message) as refused:
        named_network(word)
    assert '\n' not in str(refused.value)


def test_weights_that_are_not_there_are_fetched_on_request_only(monkeypatch, tmp_path):
    torch.save(network().state_dict(), tmp_path / 'weights')
    path = in_cache((tmp_path / 'weights').read_bytes(), monkeypatch, tmp_path)
    path.rename(tmp_path / 'server')
    fetched = []

    def fetch(url, to, prefix, progress):
        fetched.append((url, prefix))
        shutil.copy(tmp_path / 'server', to)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    with pytest.raises(SupernetFileError, match=rf'there is no {path}; .*download: true in the strategy'):
        named_network(f'torchvision:{NAME}')
    assert fetched == []
    named_network(f'torchvision:{NAME}', input_shape=64, download=True)
    named_network(f'torchvision:{NAME}', input_shape=64, download=True)
    assert fetched == [(f'https://example.invalid/models/{path.name}', path.stem.rpartition('-')[2])]


def test_a_server_that_fails_is_one_line(monkeypatch, tmp_path):
    in_cache(None, monkeypatch, tmp_path)

    def fetch(*_, **__):
        raise OSError('<urlopen error\nno route>')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    with pytest.raises(SupernetFileError, match=r'cannot be fetched \(<urlopen error no route>\); put its file at'):
        named_network(f'torchvision:{NAME}', download=True)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize('form', ['zip', 'legacy', 'tar'])
def test_no_code_of_a_published_file_runs(form, monkeypatch, tmp_path):
    """Not even under the name and the checksum of weights of torchvision."""
    content = {'weight': Code(tmp_path / 'ran')}
    if form == 'tar':
        import tarfile

        (tmp_path / 'sys_info').write_bytes(pickle.dumps(Code(tmp_path / 'ran')))
        for name in ('pickle', 'storages', 'tensors'):
            (tmp_path / name).write_bytes(pickle.dumps(Code(tmp_path / 'ran')))
        with tarfile.open(tmp_path / 'file', 'w') as archive:
            for name in ('sys_info', 'pickle', 'storages', 'tensors'):
                archive.add(tmp_path / name, name)
    else:
        torch.save(content, tmp_path / 'file', _use_new_zipfile_serialization=form == 'zip')
    in_cache((tmp_path / 'file').read_bytes(), monkeypatch, tmp_path)
    with pytest.raises(SupernetFileError, match=r'holds no plain weights') as refused:
        named_network(f'torchvision:{NAME}')
    assert '\n' not in str(refused.value)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('content', [[1, 2], {'a': 1}, {'a': torch.zeros(2)}])
def test_a_published_file_with_something_else_is_refused(content, monkeypatch, tmp_path):
    torch.save(content, tmp_path / 'file')
    in_cache((tmp_path / 'file').read_bytes(), monkeypatch, tmp_path)
    with pytest.raises((SupernetFileError, TransferError), match=r'holds no plain weights|does not fit MobileNetV3'):
        named_network(f'torchvision:{NAME}')


def test_a_damaged_file_is_recognised_by_its_name(published):
    published.write_bytes(published.read_bytes()[:-1] + b'x')
    with pytest.raises(SupernetFileError, match=r'is damaged: its checksum does not begin with [0-9a-f]{8}; remove it'):
        named_network(f'torchvision:{NAME}')


@pytest.mark.parametrize(
    ('name', 'remedy'),
    [
        ('w.pth', r"safetensors\.torch\.save_file\(torch\.load\('w\.pth', weights_only=True\), 'w\.safetensors'\)"),
        ('w.bin', r"torch\.load\('w\.bin', weights_only=True\)"),
        ('w.pt2', r"torch\.export\.load\('w\.pt2'\)\.state_dict"),
        ('w.safetensors', r"torch\.load\('w\.safetensors'"),  # whatever its name is
    ],
)
@pytest.mark.parametrize('form', ['zip', 'legacy', 'plain'])
def test_pickles_are_refused_and_not_read(name, remedy, form, tmp_path):
    if form == 'plain':
        (tmp_path / name).write_bytes(pickle.dumps({'weight': Code(tmp_path / 'ran')}))
    else:
        torch.save({'weight': Code(tmp_path / 'ran')}, tmp_path / name, _use_new_zipfile_serialization=form == 'zip')
    for read in (
        lambda: named_network(f'python:helpers.networks:plain@{tmp_path / name}', input_shape=8),
        lambda: Supernet.load(tmp_path / name),
    ):
        with pytest.raises(SupernetFileError, match=f'{name} is a pickle, which is never loaded, .*{remedy}') as refused:
            read()
        assert '\n' not in str(refused.value)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.slow
def test_what_is_advised_about_exported_programs_works(tmp_path):
    exported = torch.export.export(plain(1), (torch.zeros(2, 3, 8, 8),))
    torch.export.save(exported, tmp_path / 'w.pt2')
    save_file(torch.export.load(tmp_path / 'w.pt2').state_dict, tmp_path / 'w.safetensors')
    source = named_network(f'python:helpers.networks:plain@{tmp_path}/w.safetensors', input_shape=8)
    assert torch.equal(source.tensors['9.weight'], plain(1).state_dict()['9.weight'])


@pytest.mark.parametrize('change', ['shape', 'missing', 'more'])
def test_weights_that_do_not_fit_name_the_tensor(change, tmp_path):
    state = plain().state_dict()
    if change == 'shape':
        state['9.bias'] = torch.zeros(5)
    elif change == 'missing':
        del state['9.bias']
    else:
        state['10.bias'] = torch.zeros(4)
    save_file(state, tmp_path / 'w.safetensors')
    with pytest.raises(TransferError, match=r"w\.safetensors does not fit Sequential: '(9|10)\.bias' has shape"):
        named_network(f'python:helpers.networks:plain@{tmp_path}/w.safetensors', input_shape=8)


def test_a_safetensors_file_that_is_damaged_is_one_line(tmp_path):
    (tmp_path / 'w.safetensors').write_bytes(b'\x10' + bytes(7) + b'{"a": nonsense} ')
    with pytest.raises(SupernetFileError, match=r'w\.safetensors is not a safetensors file, or damaged'):
        named_network(f'python:helpers.networks:plain@{tmp_path}/w.safetensors', input_shape=8)


def test_weights_alone_are_no_supernet(tmp_path):
    save_file(plain().state_dict(), tmp_path / 'w.safetensors')
    with pytest.raises(SupernetFileError, match=r'no card.*python:package.module:function@FILE'):
        Supernet.load(tmp_path / 'w.safetensors')


def test_a_file_of_weights_starts_at_the_folder_of_the_settings(tmp_path):
    assert registry.beside(tmp_path, 'python:a.b:c@w.safetensors') == f'python:a.b:c@{tmp_path}/w.safetensors'
    assert registry.beside(tmp_path, 'torchvision:a@IMAGENET1K_V1') == 'torchvision:a@IMAGENET1K_V1'
    assert registry.beside(tmp_path, 'torchvision:a@/w.safetensors') == 'torchvision:a@/w.safetensors'


def a_timm(config) -> types.ModuleType:
    """A package that has what is used of timm."""

    def create_model(name, pretrained):
        assert not pretrained
        made = plain()
        made.pretrained_cfg = config
        return made

    timm = types.ModuleType('timm')
    timm.create_model, timm.is_model = create_model, ['tiny'].__contains__
    timm.list_models, timm.list_pretrained = (lambda: ['tiny']), (lambda wanted: ['tiny.in1k'] * (wanted == 'tiny.*'))
    return timm


CONFIG = {
    'architecture': 'tiny', 'tag': 'in1k', 'hf_hub_id': 'some/tiny', 'license': 'apache-2.0', 'input_size': (3, 8, 8),
    'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5),
}  # fmt: skip


def test_a_network_of_timm_is_taken_from_the_cache_of_the_hub(monkeypatch, tmp_path):
    hub = pytest.importorskip('huggingface_hub')
    monkeypatch.setitem(sys.modules, 'timm', a_timm(CONFIG))
    save_file(plain(1).state_dict(), tmp_path / 'model.safetensors')
    monkeypatch.setattr(hub, 'try_to_load_from_cache', lambda repository, file: None)
    with pytest.raises(SupernetFileError, match=r'no model\.safetensors of some/tiny in .*download: true'):
        named_network('timm:tiny')
    monkeypatch.setattr(hub, 'hf_hub_download', lambda repository, file: str(tmp_path / file))
    for download in (True, False):
        source = named_network('timm:tiny', download=download)
        assert torch.equal(source.tensors['9.weight'], plain(1).state_dict()['9.weight'])
        assert (source.name, source.pictures, source.licence) == ('tiny', (3, 8), 'apache-2.0')
        assert source.history['origin'] == 'timm:tiny.in1k'
        monkeypatch.setattr(hub, 'try_to_load_from_cache', lambda repository, file: str(tmp_path / file))


@pytest.mark.parametrize(
    ('word', 'config', 'error', 'message'),
    [
        ('timm:tinny', CONFIG, ConfigError, r"timm has no network 'tinny'\. Did you mean tiny"),
        ('timm:tiny.in2k', CONFIG, ConfigError, r"timm has no network 'tiny\.in2k'\. Did you mean tiny\.in1k\?"),
        ('timm:tiny@V1', CONFIG, ConfigError, 'timm names weights after a dot'),
        ('timm:tiny', {**CONFIG, 'hf_hub_id': None}, SupernetFileError, "publishes no safetensors file of 'tiny'"),
    ],
)
def test_what_timm_does_not_have_is_one_line(word, config, error, message, monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', a_timm(config))
    with pytest.raises(error, match=message):
        named_network(word)


@pytest.mark.parametrize('bias', [True, False])
def test_a_network_takes_standardised_images_instead_of_its_own(bias):
    torch.manual_seed(0)
    before = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4))
    after, own = copy.deepcopy(before), {'mean': (0.5, 0.4, 0.3), 'std': (0.5, 0.6, 0.7)}
    take_standardised(after, own)
    x = torch.rand(2, 3, 8, 8)
    as_trained, standardised = (
        (x - torch.tensor(each['mean']).view(-1, 1, 1)) / torch.tensor(each['std']).view(-1, 1, 1)
        for each in (own, IMAGENET)
    )
    assert torch.allclose(before.eval()(as_trained), after.eval()(standardised), atol=1e-5)
    take_standardised(before, IMAGENET)
    assert (before[0].bias is None) == (not bias)
    assert torch.equal(before[0].weight.sign(), after[0].weight.sign())


def test_the_network_of_a_name_takes_standardised_images(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'timm', a_timm(CONFIG))
    save_file(plain(1).state_dict(), tmp_path / 'model.safetensors')
    monkeypatch.setattr(timm_models, '_on_disk', lambda *_: str(tmp_path / 'model.safetensors'))
    source, scale = named_network('timm:tiny'), torch.tensor(IMAGENET['std']).view(1, 3, 1, 1) / 0.5
    assert torch.allclose(source.tensors['0.weight'], scale * plain(1).state_dict()['0.weight'])
    assert source.history['normalisation'] == {'mean': [0.5] * 3, 'std': [0.5] * 3}


def test_all_errors_are_of_this_package(published, monkeypatch):
    """Of the network that is read as much as of its name."""
    monkeypatch.setattr(torchvision.models.mobilenetv3.MobileNetV3, '_forward_impl', lambda self, x: self.features(x))
    with pytest.raises(WarmStartError, match='no linear layer'):
        named_network(f'torchvision:{NAME}')
