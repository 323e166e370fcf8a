"""doctor: says what is wrong with a machine, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple

import pytest
from helpers.hostile import special_files
from helpers.tiny import run

from nni_warmstart import Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import examination as doctor
from nni_warmstart.cli import main


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def findings(status: str, **settings) -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in doctor.examine(**settings) if finding.status == status}


def test_a_machine_that_passes_these_tests_is_well(free_port, capsys):
    assert main(['doctor', '--port', str(free_port)]) == 0
    output = ' '.join(capsys.readouterr().out.split())
    assert 'All is well.' in output
    assert 'every network' in output  # NNI's server is open to all


@pytest.mark.slow
def test_a_port_in_use(capsys):
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        server.listen()
        port = server.getsockname()[1]
        assert f'nnictl create --port {port + 1}' in findings('bad', port=port)[f'port {port}'].remedy
        assert main(['doctor', '--port', str(port)]) == 1
    assert main(['doctor', '--port', '0']) == 2
    assert '--port 0 must be from 1 to 65535' in capsys.readouterr().err


def test_packages_that_are_old_or_missing(monkeypatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == 'torch':
            return '1.0'
        if name == 'POT':
            raise importlib.metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(importlib.metadata, 'version', version)
    bad = findings('bad', port=0)
    assert bad['torch'].text == '1.0, but >=2.1 is needed'
    assert bad['POT'].remedy.startswith("pip install 'POT")


@pytest.mark.slow
@pytest.mark.parametrize(
    ('module', 'requirement'),
    [('torch', 'torch>=2.1'), ('ot', 'POT>=0.9.4'), ('pytorch_lightning', 'pytorch-lightning<3,>=2.6'), ('nni', 'nni==3.0'),
     ('numpy', 'numpy>=1.24')],
)  # fmt: skip
def test_packages_that_cannot_be_imported(module, requirement, free_port):
    code = f'import sys; sys.modules[{module!r}] = None; from nni_warmstart.cli import main; sys.exit(main(sys.argv[1:]))'
    done = subprocess.run(
        [sys.executable, '-c', code, 'doctor', '--port', str(free_port)],
        capture_output=True, text=True, env={**os.environ, 'COLUMNS': '400'},
    )  # fmt: skip
    assert 'Traceback' not in done.stderr
    assert done.returncode == 1
    bad = [line for line in done.stdout.splitlines() if line.startswith('│ bad')]
    assert [line.split()[3] for line in bad] == (['GPU', 'zoo'] if module == 'torch' else ['zoo'])
    for line in bad:
        assert f'{module} cannot be imported: ' in line
        assert f"pip install --force-reinstall '{requirement}'" in line


def test_surroundings(monkeypatch, tmp_path):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage(2e9, 1.9e9, 1e8))
    monkeypatch.setattr(sys, 'version_info', (3, 9, 0, 'final', 0))
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    monkeypatch.setenv('PATH', str(tmp_path))
    bad = findings('bad', port=0)
    assert '0.1 GB free' in bad['experiments'].text
    assert bad['Python'].text == '3.9.0, and 3.10 to 3.13 are supported'
    assert bad['pkg_resources'].remedy == "pip install 'setuptools<81'"
    assert 'PATH=' in bad['nnictl'].remedy


def test_a_damaged_entry_is_named(tmp_path):
    zoo = SupernetZoo(tmp_path / 'zoo')
    zoo.add(Supernet.from_strategy(run(WarmStartDARTS(), tmp_path, epochs=1), name='mine'))
    assert findings('good', zoo=zoo.root, port=0)['zoo'].text.startswith('1 entries')
    path = tmp_path / 'zoo' / 'mine.safetensors'
    path.write_bytes(path.read_bytes()[:-1])
    bad = findings('bad', zoo=zoo.root, port=0)['zoo']
    assert 'mine.safetensors' in bad.text
    assert 'zoo remove mine' in bad.remedy
    assert 'give another --zoo' in findings('note', zoo=str(tmp_path / 'typo'), port=0)['zoo'].remedy
    assert 'give the right --zoo' in findings('bad', zoo='nosuch://zoo', port=0)['zoo'].remedy


def test_what_it_advises_for_what_is_no_file_works(tmp_path, capsys):
    paths = []
    for path in special_files(tmp_path):
        if not path.stem.isalpha():  # a name that nobody can type
            path.unlink()
            continue
        paths.append(path)
        [finding] = doctor.entries(str(tmp_path))
        assert path.stem in finding.text
        removed = main(['zoo', 'remove', path.stem, '--zoo', str(tmp_path)])
        if path.is_dir():  # what else may be in it is not deleted
            assert 'move that folder elsewhere' in finding.remedy
            assert removed and 'is a folder' in capsys.readouterr().err
            path.rmdir()
        else:
            assert f'zoo remove {path.stem}' in finding.remedy
            assert removed == 0 and not os.path.lexists(path)
    assert len(paths) > 3
    assert not list(tmp_path.iterdir())
