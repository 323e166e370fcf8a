"""The committed tables of the benchmarks are those that the committed runs give."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from helpers.tiny import ROOT

from nni_warmstart import SupernetZoo

REPORTS = {
    'choice.py': ['--report'],
    'digits.py': ['--report'],
    'distance.py': ['--report'],
    'narrowing.py': ['--report'],
    'otfusion.py': ['--report'],
    'pretraining.py': ['report'],
    'claim_networks.py': ['--report'],
    'claim.py': ['--report'],
    'shapes.py': ['--report'],
}
"""Script -> arguments that make it write its table and run nothing; claim.py takes over what claim_networks.py writes."""

RUN_ALL = """
import runpy, sys
for script, arguments in {reports}.items():
    sys.argv = [script, *arguments]
    print(script, flush=True)
    runpy.run_path(script, run_name='__main__')
"""


@pytest.mark.slow
def test_tables_are_those_of_the_committed_runs(tmp_path):
    copy = shutil.copytree(ROOT / 'benchmarks', tmp_path / 'benchmarks')
    shutil.copytree(ROOT / 'examples', tmp_path / 'examples')
    tables = [path for path in (copy / 'results').iterdir() if path.suffix in ('.md', '.json')]
    committed = {path.name: path.read_text() for path in tables if path.name != 'mapper.md'}  # runs in a few minutes, whole
    for path in tables:
        if path.name in committed:
            path.unlink()
    done = subprocess.run([sys.executable, '-c', RUN_ALL.format(reports=REPORTS)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-1500:]
    made = {name: (copy / 'results' / name).read_text() for name in committed if (copy / 'results' / name).exists()}
    assert made == committed


@pytest.mark.slow
def test_a_supernet_that_goes_on_from_another_is_rebuilt_with_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import rebuild_zoo

    folder = tmp_path / 'data'
    folder.mkdir()
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (80, 8, 8, 3), dtype=np.uint8)
    for name in ('letters', 'things'):
        np.savez(folder / f'{name}.npz', train_x=pictures, train_y=np.arange(80) % 4)
    first = {
        'data': [{'npz': {'path': f'{name}.npz'}, 'licence': 'MIT'} for name in ('letters', 'things')],
        'space': {'name': 'nasbench201', 'width': 4, 'depth': 1, 'image_size': 8},
        'evaluator': {'max_epochs': 1, 'steps_per_epoch': 1, 'batch_size': 8},
        'strategy': {'name': 'DARTS'},
    }
    then = {**first, 'strategy': {'name': 'WarmStartDARTS', 'source': 'begun', 'keep': 1.0}}
    monkeypatch.setattr(rebuild_zoo, 'document', lambda name: dict({'begun': first, 'gone-on': then}[name]))
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    zoo = SupernetZoo(tmp_path / 'zoo')
    rebuild_zoo.make('gone-on', zoo, folder)
    assert zoo.names() == ['gone-on']
    assert zoo['gone-on'].history['strategy'] == then['strategy']

    rebuild_zoo.make('begun', zoo, folder)
    alone = SupernetZoo(tmp_path / 'alone')
    rebuild_zoo.make('begun', alone, folder)
    assert alone['begun'].key == zoo['begun'].key != zoo['gone-on'].key
    rebuild_zoo.make('gone-on', alone, folder)  # from the one that is there
    assert alone['gone-on'].key == zoo['gone-on'].key

    (folder / 'things.npz').unlink()
    with pytest.raises(FileNotFoundError, match=r'begun needs .*things\.npz'):
        rebuild_zoo.make('begun', SupernetZoo(tmp_path / 'none'), folder)


def test_seconds_of_different_series_are_not_compared(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    from claim_report import compare, summarise, table

    cold = {'curve': [0.1, 0.8, 0.8, 0.8], 'epoch_seconds': [1.0] * 4, 'series': 'first', 'test_accuracy': 0.8}
    warm = {**cold, 'curve': [0.8] * 4, 'start_seconds': {'mapping': 1.0}, 'classes': 2, 'source': 'joint'}
    assert compare(cold, warm)['speedup_seconds'] == 1.0
    later = {**warm, 'series': 'second'}
    assert compare(cold, later)['speedup_seconds'] is None
    assert compare(cold, later)['speedup_epochs'] == 2.0

    mixed = {'cold': {0: cold, 1: cold}, 'warm': {0: warm, 1: later}}
    assert summarise(table({'task': mixed}, 'warm'))['speedup_seconds_geomean'] == 1.0
    apart = {'cold': {0: cold}, 'warm': {0: later}}
    assert summarise(table({'task': apart}, 'warm'))['speedup_seconds_geomean'] is None
