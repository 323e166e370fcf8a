"""NNI's strategies are there, whichever of our modules is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.tiny import ROOT

ADAPTER = sorted(path.stem for path in (ROOT / 'nni_warmstart' / 'nni_adapter').glob('[!_]*.py'))


@pytest.mark.slow
@pytest.mark.parametrize('module', [*(f'nni_adapter.{name}' for name in ADAPTER), 'runs.search', 'search.oneshot_module'])
def test_strategies_are_no_placeholders(module):
    code = f'import nni_warmstart.{module}; from nni.nas.strategy import DARTS; print(DARTS.__module__)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == 'nni.nas.oneshot.pytorch.strategy', done.stderr
