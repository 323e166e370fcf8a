"""The house keeps its order: private names of NNI behind one door, a light import, nothing that is NNI's on the terminal."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest
from helpers.tiny import ROOT

PACKAGE = ROOT / 'nni_warmstart'
PRIVATE = ('nni.mutable', 'nni.nas.oneshot', 'nni.runtime', 'nni.tools', 'nni.trial')
"""Modules of NNI that its documentation does not offer."""
HEAVY = ('torch', 'nni', 'numpy', 'ot', 'pytorch_lightning', 'sklearn', 'matplotlib')


def imported(path) -> set[str]:
    """Names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {str(node.module), *(f'{node.module}.{alias.name}' for alias in node.names)}
    return found


def test_private_names_of_nni_are_behind_one_door():
    files = [path for path in PACKAGE.rglob('*.py') if 'nni_adapter' not in path.parts]
    assert len(files) > 50
    wrong = {
        f'{path.relative_to(PACKAGE)}: {name}'
        for path in files for name in imported(path) if name.startswith(PRIVATE)
    }  # fmt: skip
    assert wrong == set()


def test_few_modules_lie_at_the_top_of_the_package():
    assert len(list(PACKAGE.glob('*.py'))) <= 6


def python(code: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *options, '-c', code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    'code',
    [
        'import nni_warmstart',
        "import nni_warmstart.cli\ntry: nni_warmstart.cli.main(['--help'])\nexcept SystemExit: pass",
        "import nni_warmstart.cli\ntry: nni_warmstart.cli.main(['search', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_importing_loads_nothing_heavy(code):
    done = python(f'{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])')
    assert done.stdout.splitlines()[-1] == '[]', done.stderr


@pytest.mark.slow
def test_public_names_are_there_when_they_are_used():
    code = 'import nni_warmstart as n; print(all(hasattr(n, name) for name in n.__all__), set(n.__all__) <= set(dir(n)))'
    assert python(code).stdout == 'True True\n'
    assert python('import nni_warmstart as n; print(n.data.Task.__name__, n.search_spaces.SPACES.keys())').returncode == 0
    assert "has no attribute 'Nothing'" in python('import nni_warmstart; nni_warmstart.Nothing').stderr


@pytest.mark.slow
@pytest.mark.parametrize('command', ['spaces', 'zoo list', 'doctor --port 45123'])
def test_no_command_prints_a_warning_that_is_nnis(command):
    done = subprocess.run(
        [sys.executable, '-m', 'nni_warmstart.cli', *command.split()],
        capture_output=True, text=True, env={**os.environ, 'PYTHONWARNINGS': ''},
    )  # fmt: skip
    assert done.stderr == ''
    assert done.returncode == 0
