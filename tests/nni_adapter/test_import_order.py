"""NNI's strategies are there, whichever of our modules is imported first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers.tiny import ROOT

ADAPTER = sorted(path.stem for path in (ROOT / 'nni_warmstart' / 'nni_adapter').glob('[!_]*.py'))
MODULES = [*(f'nni_adapter.{name}' for name in ADAPTER), 'runs.search', 'search.oneshot_module']

IMPORT_EACH = """
import importlib, json, os, sys
import pytorch_lightning, torch, torchmetrics, torchvision  # once: they take longer than NNI, which each imports anew
assert not any(name.partition('.')[0] in ('nni', 'nni_warmstart') for name in sys.modules)
for module in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        importlib.import_module('nni_warmstart.' + module)
        from nni.nas.strategy import DARTS
        os.write(1, (module + ' ' + DARTS.__module__ + '\\n').encode())
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Imports each module in a process of its own."""


@pytest.mark.slow
def test_strategies_are_no_placeholders():
    command = [sys.executable, '-W', 'ignore', '-c', IMPORT_EACH, json.dumps(MODULES)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == [f'{module} nni.nas.oneshot.pytorch.strategy' for module in MODULES], done.stderr
