"""The committed tables of the benchmarks are those that the committed runs give; scripts and their index agree."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import ROOT

from nni_warmstart import SupernetZoo

BENCHMARKS = ROOT / 'benchmarks'
SCRIPTS = sorted(
    str(path.relative_to(BENCHMARKS)) for path in BENCHMARKS.rglob('*.py') if "__name__ == '__main__'" in path.read_text()
)
DARTS = '{name: darts, width: 8, num_cells: 5, image_size: 32, stem_stride: 2}'
HUB = '{name: darts, width: 16, num_cells: 8, image_size: 32}'
DARTS_RECIPES = ('--recipe', 'a3416907cac1', '2296ff697cfa')  # before and after the source was rounded to half precision
REPORTS = [
    ('budgets/run.py', '--report'),
    ('choice/run.py', '--report'),
    ('data/run.py', '--report'),
    ('digits/run.py', '--report'),
    ('discretisation/run.py', '--report'),
    ('distance/run.py', '--report'),
    ('mapper/run.py', '--report'),
    ('narrowing/run.py', '--report'),
    ('otfusion/run.py', '--report'),
    ('pretraining/run.py', 'report'),
    ('claim/networks.py', '--report'),
    ('claim/run.py', '--report'),
    ('claim/run.py', '--report', '--out', 'benchmarks/claim_by_plans'),
    ('claim/run.py', '--report', '--space', DARTS, *DARTS_RECIPES, '--out', 'benchmarks/claim_darts'),
    ('claim/run.py', '--report', '--space', HUB, '--out', 'benchmarks/claim_hub'),
    ('networks/costs.py', '--report'),
    ('networks/ground_truth.py', '--report'),
    ('networks/random_cells.py', '--report'),
    ('networks/source_cells.py', '--report'),
    ('networks/training.py', '--report'),
    ('shapes/run.py', '--report'),
    ('step/run.py', '--report'),
    ('step/run.py', '--gpu', '--report'),
    ('step/search.py', '--report'),
]
"""Commands that write tables and run nothing; claim/run.py takes over what claim/networks.py writes."""
PAGES = [ROOT / 'README.md', BENCHMARKS / 'README.md', BENCHMARKS / 'NOTES.md', *sorted((ROOT / 'docs').glob('*.md'))]

RUN_ALL = """
import runpy, sys
from pathlib import Path
import nni_warmstart  # once: each script by itself would take as long again
path = [folder for folder in sys.path if not (Path(folder) / 'benchmarks').exists()]
for script, *arguments in {commands}:
    for name in [name for name in sys.modules if name.partition('.')[0] == 'benchmarks']:
        del sys.modules[name]
    script = Path({folder!r}) / script
    sys.path[:] = [str(script.parent), *path]
    sys.argv = [str(script), *arguments]
    print('>>>', *sys.argv, flush=True)
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        assert not stop.code, stop.code
"""
"""Runs scripts in one process, each as if it were started by itself from another folder."""


def run_all(commands: list[tuple[str, ...]], folder: Path, elsewhere: Path) -> str:
    """What scripts of a copy of the benchmarks print."""
    code = RUN_ALL.format(commands=commands, folder=str(folder))
    done = subprocess.run([sys.executable, '-c', code], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-1500:]
    return done.stdout


def made_from_rows(folder: Path) -> list[Path]:
    """Tables of benchmarks; those of pretrained networks are written by the measurement itself."""
    measured = ('features', 'features_MobileNetV3Space', 'structure')
    return [path for path in folder.glob('*/*') if path.suffix in ('.md', '.json') and path.stem not in measured]


@pytest.mark.slow
def test_tables_are_those_of_the_committed_runs(tmp_path):
    copy = shutil.copytree(BENCHMARKS, tmp_path / 'benchmarks')
    shutil.copytree(ROOT / 'examples', tmp_path / 'examples')
    tables = made_from_rows(copy)
    committed = {path: path.read_text() for path in tables}
    assert len(committed) == 30
    for path in tables:
        path.unlink()
    run_all(REPORTS, copy, tmp_path)
    made = {path: path.read_text() for path in made_from_rows(copy)}
    assert made == committed


@pytest.fixture(scope='module')
def helps(tmp_path_factory) -> dict[str, str]:
    """Script -> what its ``--help`` prints."""
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    printed = run_all([(script, '--help') for script in SCRIPTS], BENCHMARKS, elsewhere)
    return dict(zip(SCRIPTS, printed.split('>>>')[1:], strict=True))


@pytest.mark.slow
def test_every_script_says_what_it_takes(helps):
    assert len(helps) > 12
    for script, text in helps.items():
        assert 'usage: ' in text, script
        assert f'benchmarks/{script} ' in text.partition('usage: ')[2], script  # its page begins with how it is run


def commands(page: Path) -> list[list[str]]:
    """Words of the commands of benchmarks in a page's text and blocks of code, from the script on."""
    text = page.read_text().replace('\\\n', ' ')
    found = re.findall(r'python benchmarks/([^`#&]*?)(?=`|#|&&|\n(?:python|cp|```)|$)', text)
    return [shlex.split(command) for command in found]


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_benchmarks_exist(page, helps):
    for script, *arguments in commands(page):
        known = helps[script].partition('options:')[2]
        assert [word for word in arguments if word.startswith('--') and word not in known] == [], script


def test_the_index_names_every_benchmark():
    text = (BENCHMARKS / 'README.md').read_text()
    named = {words[0] for words in commands(BENCHMARKS / 'README.md')}
    assert named == {script for script in SCRIPTS if not re.search(r'/(peer|ours)_', script)}
    assert {path.name for path in BENCHMARKS.glob('*/*.md')} <= set(re.findall(r'\[(\S+\.md)\]', text))


@pytest.mark.parametrize('page', sorted(BENCHMARKS.rglob('*.md')), ids=lambda page: str(page.relative_to(BENCHMARKS)))
def test_links_of_benchmarks_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
        assert '://' in target or (page.parent / target).exists(), target


@pytest.mark.slow
def test_a_supernet_that_goes_on_from_another_is_rebuilt_with_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import rebuild_zoo

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
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.claim.comparison import compare, summarise, table

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
