"""`make` finds a Python that NNI runs on: tried with interpreters that only say they are of another version."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from helpers.tiny import ROOT

PRETENDER = """#!/bin/sh
if [ "$1" = -c ]; then
    exec {real} -c "import sys; sys.version_info = (3, {minor}, 0, 'final', 0); sys.executable = '$0'; {broken}$2"
fi
mkdir -p .venv/bin && echo "3.{minor} $*" > .venv/bin/python
"""
UV = '#!/bin/sh\nmkdir -p .venv/bin && echo "uv $*" > .venv/bin/python\n'
TOOLS = ('make', 'sh', 'mkdir', 'touch')


@pytest.fixture
def machine(tmp_path):
    """A folder with our Makefile, and a PATH that has nothing but a few tools."""
    for tool in TOOLS:
        (tmp_path / 'bin').mkdir(exist_ok=True)
        (tmp_path / 'bin' / tool).symlink_to(str(shutil.which(tool)))
    shutil.copy(ROOT / 'Makefile', tmp_path)
    return tmp_path


def install(machine, **pythons: str) -> None:
    """Put commands on the PATH: a Python by its minor version, perhaps without `ensurepip`, or a script."""
    for name, what in pythons.items():
        minor, _, broken = what.partition(' ')
        script = PRETENDER.format(
            real=sys.executable, minor=minor, broken="sys.modules['ensurepip'] = None; " if broken else ''
        )
        path = machine / 'bin' / name.replace('_', '.')
        path.write_text(script if minor.isdigit() else what)
        path.chmod(0o755)


def make(machine, *variables: str) -> subprocess.CompletedProcess[str]:
    environment = {'PATH': str(machine / 'bin'), 'HOME': str(machine)}
    command = ['make', *variables, '.venv/bin/python']
    return subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ('pythons', 'taken'),
    [
        ({'python3': '11'}, '3.11'),
        ({'python3': '13', 'python3_11': '11'}, '3.13'),
        ({'python3': '14', 'python3_11': '11', 'python3_12': '12'}, '3.12'),
        ({'python3': '9', 'python3_10': '10'}, '3.10'),
        ({'python3': '12 broken', 'python3_10': '10'}, '3.10'),
        ({'python3_13': '13', 'uv': UV}, '3.13'),
    ],
)
def test_a_python_that_is_there_is_taken(machine, pythons, taken):
    install(machine, **pythons)
    done = make(machine)
    assert done.returncode == 0, done.stderr
    assert (machine / '.venv' / 'bin' / 'python').read_text() == f'{taken} -m venv .venv\n'


@pytest.mark.parametrize('pythons', [{'python3': '14'}, {'python3': '12 broken'}, {}])
def test_else_uv_fetches_one(machine, pythons):
    install(machine, **pythons, uv=UV)
    assert make(machine).returncode == 0
    made = (machine / '.venv' / 'bin' / 'python').read_text()
    assert made == 'uv venv --quiet --seed --python >=3.10,<3.14 .venv\n'


@pytest.mark.parametrize('pythons', [{'python3': '14'}, {'python3': '8'}, {}])
def test_else_one_line_says_what_to_install(machine, pythons):
    install(machine, **pythons)
    done = make(machine)
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first == 'NNI needs Python 3.10 to 3.13 with its module venv: install one of them, or uv, which fetches one.'
    assert all(line.startswith('make: ***') for line in rest)
    assert not (machine / '.venv').exists()


def test_a_python_that_is_named_is_the_only_one_tried(machine):
    install(machine, python3='12', python3_10='10')
    assert make(machine, 'PYTHON=python3.10').returncode == 0
    assert (machine / '.venv' / 'bin' / 'python').read_text() == '3.10 -m venv .venv\n'


def test_an_environment_that_is_there_is_kept(machine):
    (machine / '.venv' / 'bin').mkdir(parents=True)
    (machine / '.venv' / 'bin' / 'python').write_text('mine')
    assert make(machine).returncode == 0
    assert (machine / '.venv' / 'bin' / 'python').read_text() == 'mine'
