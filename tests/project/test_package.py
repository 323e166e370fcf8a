"""The wheel, installed elsewhere, carries everything, and the examples run on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import ROOT

from nni_warmstart import SupernetZoo

pytestmark = pytest.mark.xdist_group('wheel')  # two builds in one folder at once would disturb each other


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Folder that holds the wheel's content."""
    folder = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob('*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--target', str(folder / 'site'), str(wheel)], check=True)
    return folder / 'site'


def run_installed(installed, code: list[str], cwd):
    environment = {**os.environ, 'PYTHONPATH': str(installed)}
    return subprocess.run([sys.executable, *code], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_wheel_carries_spaces_and_zoo(installed, tmp_path):
    code = (
        'import nni_warmstart, nni_warmstart.search_spaces as s;'
        'from nni_warmstart import SupernetZoo;'
        'print(nni_warmstart.__file__, s.__file__, SupernetZoo.shipped().root, SupernetZoo.shipped().names())'
    )
    done = run_installed(installed, ['-c', code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(installed)) == 3
    assert 'joint-nasbench201-w8' in done.stdout


@pytest.mark.slow
def test_plug_in_example_runs_on_the_wheel(installed, tmp_path):
    done = run_installed(installed, [str(ROOT / 'examples' / 'plug_in.py')], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"warm start from '.*', the best of \d that were tried: 100.0% of the parameters", done.stdout)
    curve = re.search(r'^\[(.*)\]$', done.stdout, re.MULTILINE)
    assert float(curve[1].split(',')[-1]) > 0.9
    assert "'cell/0_1'" in done.stdout


@pytest.mark.slow
def test_choose_source_example_runs_on_the_wheel(installed, tmp_path):
    done = run_installed(installed, [str(ROOT / 'examples' / 'choose_source.py')], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r'^\d+\.\d+ \+- \d', done.stdout)
    assert 'tensor([' in done.stdout
    assert 'joint-nasbench201-w8' in done.stdout


@pytest.mark.slow
def test_other_shapes_example_runs_on_the_wheel(installed, tmp_path):
    done = run_installed(installed, [str(ROOT / 'examples' / 'other_shapes.py')], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warm start from 'joint-nasbench201-w8': 100.0% of the parameters inherited" in done.stdout
    assert 'cells.0 {' in done.stdout
    assert (tmp_path / 'mapping.png').is_file()


@pytest.mark.slow
def test_many_datasets_example_runs_on_the_wheel(installed, tmp_path):
    done = run_installed(installed, [str(ROOT / 'examples' / 'many_datasets.py')], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warm start from 'nasbench201-1': 100.0% of the parameters inherited" in done.stdout


@pytest.mark.parametrize(
    ('name', 'page'),
    [
        ('plug_in', 'index'),
        ('choose_source', 'choosing'),
        ('other_shapes', 'other-shapes'),
        ('many_datasets', 'many-datasets'),
    ],
)
def test_pages_show_the_examples_as_they_are(name, page):
    code = (ROOT / 'examples' / f'{name}.py').read_text().rpartition('"""\n\n')[2]
    assert f'```python\n{code}```' in (ROOT / 'docs' / f'{page}.md').read_text()


@pytest.mark.slow
def test_shipped_supernets():
    """Small, readable, with a card that says what they come from; no digits of any kind among the images."""
    zoo = SupernetZoo.shipped()
    hubs = {'MobileNetV3Space': ('width_multipliers', [0.5]), 'ProxylessNAS': ('width_mult', [0.25])}
    for space, singles, (argument, widths) in (
        ('nasbench201', 8, ('width', [16, 8])),
        ('darts', 3, ('width', [4, 8])),
        *((space, 0, form) for space, form in hubs.items()),
    ):
        entries = [entry for entry in zoo.entries() if entry.space['name'] == space]
        joint = [entry for entry in entries if len(entry.history['datasets']) > 1]
        assert [entry.space['arguments'][argument] for entry in joint] == widths
        assert len(entries) - len(joint) == singles
    assert sum(Path(zoo.path(name)).stat().st_size for name in zoo.names()) < 25_000_000
    for name in zoo.names():
        entry = zoo[name]
        wide = name in ('joint-nasbench201-w16', 'joint-darts-w8')
        most = 7_000_000 if entry.space['name'] in hubs else 2_100_000 if wide else 1_100_000
        assert Path(zoo.path(name)).stat().st_size <= most
        entry.build()
        assert entry.key in entry.sketches  # it can be ranked and its classes transported
        facts = entry.history
        assert facts['seed'] == 0
        assert facts['command'] == f'python benchmarks/rebuild_zoo.py --data DIR {name}'
        assert all(dataset['licence'] for dataset in facts['datasets'].values())
        forbidden = {'digits8x8', 'mnist', 'usps', 'kannada_digits', 'sign_digits', 'spoken_digits', 'math_symbols'}
        assert not forbidden & facts['datasets'].keys()
