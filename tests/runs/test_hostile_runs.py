"""Folders of searches that were altered, given to the commands that go on from them: one line, and status 2."""

from __future__ import annotations

import copy
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers.mutations import JSON, changed
from helpers.tiny import SMALL, save_npz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nni_warmstart import WarmStartError
from nni_warmstart.cli import main
from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.retrain import make_network, read_architecture
from nni_warmstart.runs.setup import make_space


@pytest.fixture(scope='module')
def search(tmp_path_factory) -> Path:
    """search.yml, its data, and the folder ``run`` of its search."""
    folder = tmp_path_factory.mktemp('search')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': {'max_epochs': 1, 'batch_size': 8}}))
    assert main(['search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'run')]) == 0
    return folder


def put(path: Path, content: object) -> None:
    path.unlink()
    if content is os.mkfifo:
        os.mkfifo(path)
    elif isinstance(content, Path):
        path.symlink_to(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))


HOSTILE = {
    'text': b'{', 'no text': b'\xff\xfe\x00', 'deep': b'[' * 10**5, 'wide': b'[' + b'[],' * 2 * 10**6 + b'[]]',
    'list': [], 'null': None, 'number': b'9' * 5000, 'pipe': os.mkfifo, 'device': Path('/dev/zero'), 'folder': Path('/'),
}  # fmt: skip


@pytest.mark.parametrize('content', HOSTILE.values(), ids=HOSTILE)
def test_other_files_in_place_of_an_architecture(search, tmp_path, capsys, content):
    shutil.copytree(search / 'run', tmp_path / 'run')
    put(tmp_path / 'run' / 'architecture.json', content)
    where = ['--run', str(tmp_path / 'run'), '--out', str(tmp_path / 'net')]
    assert main(['retrain', '--config', str(search / 'search.yml'), *where]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('error: ') and 'architecture.json' in line and len(line) < 1100


@pytest.mark.parametrize('name', ['text', 'no text', 'deep', 'list', 'number'])
def test_other_files_in_place_of_settings(search, tmp_path, capsys, name):
    shutil.copytree(search / 'run', tmp_path / 'run')
    put(tmp_path / 'run' / 'settings.json', HOSTILE[name])
    assert main(['search', '--config', str(search / 'search.yml'), '--out', str(tmp_path / 'run'), '--resume']) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('error: ') and 'settings.json is damaged' in line and len(line) < 1100


@pytest.mark.parametrize('kind', ['compressed', 'overlapping'])
def test_a_checkpoint_of_parts_that_are_larger_than_itself(search, tmp_path, capsys, kind):
    shutil.copytree(search / 'run', tmp_path / 'run')
    path = tmp_path / 'run' / 'checkpoints' / 'last.ckpt'
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED if kind == 'compressed' else zipfile.ZIP_STORED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
        file.writestr('more', bytes(10**6))
        if kind == 'overlapping':
            file.filelist += [copy.copy(file.getinfo('more'))]
    assert main(['search', '--config', str(search / 'search.yml'), '--out', str(tmp_path / 'run'), '--resume']) == 2
    assert 'last.ckpt is damaged or of another kind' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('sample', 'message'),
    [
        ({}, 'cannot be frozen to the architecture {}'), ('ab', 'holds no architecture'), (None, 'holds no architecture'),
        ({'cell/0_1': 'x' * 10**5}, 'cannot be frozen to the architecture'), ({'cell/0_1': {}}, 'cannot be frozen'),
    ],
)  # fmt: skip
def test_other_architectures(search, tmp_path, capsys, sample, message):
    whole = json.loads((search / 'run' / 'architecture.json').read_text())['sample']
    shutil.copytree(search / 'run', tmp_path / 'run')
    put(
        tmp_path / 'run' / 'architecture.json',
        {'sample': {**whole, **sample} if sample and isinstance(sample, dict) else sample},
    )
    where = ['--run', str(tmp_path / 'run'), '--out', str(tmp_path / 'net')]
    assert main(['retrain', '--config', str(search / 'search.yml'), *where]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line and len(line) < 1100
    assert not (tmp_path / 'net' / 'network.safetensors').exists()


_BOUNDED = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(_BOUNDED, max_examples=25)
@given(data=st.data())
def test_mutated_architectures(search, tmp_path_factory, data):
    """The network that is meant, or one clear error."""
    folder = tmp_path_factory.getbasetemp()
    document = json.loads((search / 'run' / 'architecture.json').read_text())
    (folder / 'architecture.json').write_text(json.dumps(data.draw(changed(document, JSON))))
    config = parse_search(yaml.safe_load((search / 'search.yml').read_text()), search)
    try:
        network = make_network(make_space(config.space, 3), read_architecture(folder), None)
    except WarmStartError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert sum(parameter.numel() for parameter in network.parameters()) > 0
