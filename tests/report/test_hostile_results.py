"""Results that no search has written: the search is left out with its reason, and the page about the others is made."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from helpers.mutations import JSON, changed
from helpers.tiny import SMALL, save_npz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nni_warmstart import ConfigError
from nni_warmstart.cli import main
from nni_warmstart.report.forms import RESULT, SETTINGS, misfit
from nni_warmstart.report.page import write_report
from nni_warmstart.report.runs import read_search
from nni_warmstart.utils.limits import VARIABLE

WARM = {
    'source': 'near', 'head': 'ridge', 'share_inherited': 0.9, 'zero_shot_accuracy': 0.5, 'seconds': {'map': 0.1},
    'ranking': [['near', 0.1], ['far', None]], 'chosen': 'the nearest of 2', 'blocks': {'cells.1': 'cells.0'}, 'choices': {},
    'cells': [['stem', 'copied', 2, 30], ['head', 'fresh', 1, 5]], 'share_by_cell': {'stem': 1.0},
    'share_by_op': {'conv': 0.5},
    'tensors': [['stem.weight', 'copied', 'stem.weight', 30, ''], ['head.weight', 'fresh', None, 5, None]],
}  # fmt: skip


@pytest.fixture(scope='module')
def search(tmp_path_factory) -> Path:
    """The folder of a search of one epoch, with the report of a warm start and few figures, which are drawn quickly."""
    folder = tmp_path_factory.mktemp('search')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': {'max_epochs': 1}}))
    assert main(['search', '--config', str(folder / 'search.yml'), '--out', str(folder / 'a')]) == 0
    result = json.loads((folder / 'a' / 'result.json').read_text())
    curve = [{key: figures[key] for key in ('default', 'train_loss')} for figures in result['curve']]
    alphas = [{label: each[label] for label in ('cell/0_1', 'cell/0_2')} for each in result['alphas']]
    result |= {'warm_start': WARM, 'curve': curve, 'alphas': alphas}
    (folder / 'a' / 'result.json').write_text(json.dumps(result))
    (folder / 'a' / 'checkpoints' / 'last.ckpt').rename(folder / 'last.ckpt')
    return folder / 'a'


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> Path:
    """A folder for a search that is changed again and again."""
    return tmp_path_factory.mktemp('scratch')


@pytest.fixture
def runs(search, tmp_path) -> Path:
    """Two copies of the search: one to be damaged."""
    for name in ('bad', 'good'):
        shutil.copytree(search, tmp_path / 'runs' / name)
    return tmp_path / 'runs'


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_forms_are_those_of_a_search(search):
    assert misfit(read(search / 'result.json'), RESULT) is None
    assert misfit(read(search / 'settings.json'), SETTINGS) is None


@pytest.mark.parametrize(
    ('change', 'wrong'),
    [
        ({'curve': 5}, 'curve'), ({'curve': [5]}, 'curve.0'), ({'alphas': [{'c': {'a': 'b'}}]}, 'alphas.0.c.a'),
        ({'warm_start': {**WARM, 'head': None}}, 'warm_start.head'), ({'warm_start': {'source': 'a'}}, 'warm_start.head'),
        ({'warm_start': {**WARM, 'tensors': [['a', 'b', 'c', True, None]]}}, 'warm_start.tensors.0.3'),
        ({'warm_start': {**WARM, 'ranking': [['a']]}}, 'warm_start.ranking.0'), ({'warm_start': 5}, 'warm_start'),
        ({'costs': {'parameters': 5}}, 'costs.multiply_adds'),
        ({'alphas': [{'c': {}}]}, 'alphas.0.c'), ({'alphas': [{'c': {'a': 10**30}}]}, 'alphas.0.c.a'),
        ({'alphas': [{'c': {'a': -0.1}}]}, 'alphas.0.c.a'), ({'run': 5}, 'run'),
        ({'versions': []}, 'versions'), ({'final': 'x'}, 'final'), ({'architecture': None}, 'architecture'),
    ],
)  # fmt: skip
def test_the_value_of_another_form_is_named(search, change, wrong):
    assert misfit({**read(search / 'result.json'), **change}, RESULT) == wrong


DAMAGES = {
    'text': lambda folder: (folder / 'result.json').write_text('{'),
    'a list': lambda folder: (folder / 'result.json').write_text('[]'),
    'another form': lambda folder: (folder / 'result.json').write_text('{"curve": 1, "architecture": {}, "strategy": ""}'),
    'deep': lambda folder: (folder / 'result.json').write_text('[' * 100000),
    'large': lambda folder: (folder / 'result.json').write_text('[' + '[],' * 2000000 + '[]]'),
    'huge number': lambda folder: (folder / 'result.json').write_text('{"seconds": ' + '9' * 5000 + '}'),
    'latin 1': lambda folder: (folder / 'settings.json').write_bytes(b'{"label": "caf\xe9"}'),
    'sections': lambda folder: (folder / 'settings.json').write_text('{"space": {"arguments": 5}}'),
    'many settings': lambda folder: (folder / 'settings.json').write_text(
        json.dumps({'data': {str(i): i for i in range(20000)}})
    ),
    'pipe': lambda folder: (os.unlink(folder / 'result.json'), os.mkfifo(folder / 'result.json')),
    'device': lambda folder: (os.unlink(folder / 'settings.json'), os.symlink('/dev/zero', folder / 'settings.json')),
    'folder': lambda folder: (os.unlink(folder / 'result.json'), os.mkdir(folder / 'result.json')),
    'many epochs': lambda folder: (folder / 'result.json').write_text(
        json.dumps({**read(folder / 'result.json'), 'curve': [{}] * 10001})
    ),
    'checkpoint': lambda folder: (folder / 'checkpoints' / 'last.ckpt').write_bytes(b'no checkpoint'),
    'list of callbacks': lambda folder: torch.save({'callbacks': []}, folder / 'checkpoints' / 'last.ckpt'),
    'record': lambda folder: torch.save({'nni_warmstart': {'curve': [5]}}, folder / 'checkpoints' / 'last.ckpt'),
    'samples': lambda folder: torch.save(
        {'nni_warmstart': {'curve': [], 'samples': '[5]'}}, folder / 'checkpoints' / 'last.ckpt'
    ),
    'compressed checkpoint': lambda folder: (folder / 'checkpoints' / 'last.ckpt').write_bytes(bomb()),
}  # fmt: skip


def bomb() -> bytes:
    """A checkpoint of ten megabytes in ten kilobytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(10**7))
        archive.writestr('archive/version', b'3')
    return file.getvalue()


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_search_is_left_out_and_named(runs, tmp_path, caplog, capsys, damage):
    DAMAGES[damage](runs / 'bad')
    assert main(['report', str(runs), '--out', str(tmp_path / 'page.html')]) == 0
    assert 'One search reported' in capsys.readouterr().out
    (message,) = caplog.messages
    assert message.startswith('A search is left out: ') and str(runs / 'bad') in message
    page = (tmp_path / 'page.html').read_text()
    assert '<p class="warn">Left out: ' in page and 'search-1' in page and 'search-2' not in page
    # alone it is one line, and no page
    assert main(['report', str(runs / 'bad'), '--out', str(tmp_path / 'alone.html')]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith('error: ') and str(runs / 'bad') in line and len(line) < 1100
    assert not (tmp_path / 'alone.html').exists()


def test_all_damaged_is_the_error_of_the_first(runs, tmp_path, capsys):
    for name in ('bad', 'good'):
        (runs / name / 'result.json').write_text('{')
    assert main(['report', str(runs), '--out', str(tmp_path / 'page.html')]) == 2
    assert 'bad/result.json is damaged' in capsys.readouterr().err


def test_the_limit_of_results_is_that_of_the_user(search, monkeypatch):
    monkeypatch.setenv(VARIABLE, '1')
    assert read_search(search, 'a').curve
    large = json.dumps({**read(search / 'result.json'), 'note': [0] * 5000})
    copied = search.parent / 'large'
    shutil.copytree(search, copied, dirs_exist_ok=True)
    (copied / 'result.json').write_text(large)
    with pytest.raises(ConfigError, match=f'limit of 1 MB .*{VARIABLE}'):
        read_search(copied, 'large')
    monkeypatch.setenv(VARIABLE, '50')
    assert read_search(copied, 'large').curve


@pytest.mark.slow
@pytest.mark.parametrize(
    'change',
    [
        {'alphas': [{f'c{i}': {'a': 0.5} for i in range(3000)}]}, {'alphas': [{'c': {str(i): 0.5 for i in range(20000)}}]},
        {'architecture': {f'cell/{i}_{j}': 'conv' for j in range(60) for i in range(j)}},
        {'architecture': {f'cell{k}/{i}_{j}': 'conv' for k in range(300) for j in range(3) for i in range(j)}},
        {'warm_start': {**WARM, 'ranking': [[f'entry {i}', 0.1] for i in range(5000)]}},
        {'data': 'x' * 10**6},
        {'curve': [{'default': 1e308}, {'default': -1e308}], 'warm_start': {**WARM, 'source': '\ud800'}},
    ],
    ids=['choices', 'candidates', 'nodes', 'cells', 'sources', 'text', 'numbers'],
)  # fmt: skip
def test_of_much_the_beginning_is_drawn(runs, tmp_path, change):
    (runs / 'good' / 'result.json').write_text(json.dumps({**read(runs / 'good' / 'result.json'), **change}))
    assert write_report([str(runs / 'good')], tmp_path / 'page.html') == 1
    assert (tmp_path / 'page.html').stat().st_size < 3e6


def mutated(search: Path, folder: Path, data: st.DataObject) -> bool:
    """Report a search of which one file was changed; return whether there is a page, after an error that is one line."""
    name = data.draw(st.sampled_from(['result.json', 'result.json', 'settings.json']))
    for file in ('result.json', 'settings.json'):
        (folder / file).write_bytes((search / file).read_bytes())
    document = data.draw(changed(read(search / name), JSON))
    (folder / name).write_text(json.dumps(document))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of matplotlib, about letters that a font lacks
            return write_report([str(folder)], folder / 'page.html') == 1
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1 and re.search(r'\.json|holds no search', str(error))
        return False


_BOUNDED = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(_BOUNDED, max_examples=15)
@given(data=st.data())
def test_some_mutated_results(search, scratch, data):
    mutated(search, scratch, data)


@pytest.mark.slow
@settings(_BOUNDED, max_examples=60)
@given(data=st.data())
def test_mutated_results(search, scratch, data):
    mutated(search, scratch, data)


@pytest.mark.slow
def test_every_value_of_a_result_may_be_of_another_kind(search, tmp_path):
    """Every value in turn, in both files: null, a number, text, a list, a section."""
    shutil.copytree(search, tmp_path / 'a')
    pages = 0
    for name in ('result.json', 'settings.json'):
        whole = read(search / name)
        for path in paths(whole):
            for value in (None, -1, 'x', [], {'a': {}}):
                document = copy.deepcopy(whole)
                place = document
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = value
                (tmp_path / 'a' / name).write_text(json.dumps(document))
                try:
                    read_search(tmp_path / 'a', 'a')
                except ConfigError as error:
                    assert name in str(error)
                else:
                    pages += 1
        (tmp_path / 'a' / name).write_text(json.dumps(whole))
    assert pages > 100


def paths(document, above=()) -> list[tuple]:
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [path for key, value in items for path in ((*above, key), *paths(value, (*above, key)))]
