"""``nni-warmstart report``: one HTML file that says what searches left, and runs nothing that their files hold."""

from __future__ import annotations

import base64
import json
import re
import shutil
from functools import partial
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import yaml
from helpers.tiny import SMALL, OwnSpace, save_npz
from nni.tools.nnictl import config_utils

from nni_warmstart.cli import main
from nni_warmstart.report.figures import Edge, _tracks
from nni_warmstart.report.page import found_cells
from nni_warmstart.report.runs import read_search
from nni_warmstart.report.scripts import scripts
from nni_warmstart.search.record import STATE, Curve

WARM = '{{name: WarmStartDARTS, source: {}, arc_learning_rate: 0.01}}'


def search(folder, out, *settings: str, resume: bool = False) -> int:
    changes = [word for each in settings for word in ('--set', each)]
    resumed = ['--resume'] if resume else []
    again = resumed or ['--overwrite']
    return main(['search', '--config', str(folder / 'search.yml'), '--out', str(out), *changes, *again])


@pytest.fixture(scope='module')
def searches(tmp_path_factory):
    """A cold search, a warm one from it, and one whose source was chosen from a zoo of two."""
    folder = tmp_path_factory.mktemp('report')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump(SMALL))
    assert search(folder, folder / 'runs' / 'cold') == 0
    source = folder / 'runs' / 'cold' / 'supernet.safetensors'
    assert search(folder, folder / 'runs' / 'warm', f'strategy={WARM.format(source)}') == 0
    for name in ('near', 'far'):
        assert main(['zoo', 'add', '--zoo', str(folder / 'zoo'), str(source), '--name', name]) == 0
    assert search(folder, folder / 'runs' / 'chosen', f'strategy={WARM.format("nearest")}', 'strategy.zoo=zoo') == 0
    return folder


@pytest.fixture
def runs(searches, tmp_path):
    """A copy, to be changed."""
    shutil.copytree(searches / 'runs', tmp_path / 'runs')
    return tmp_path / 'runs'


class Page(HTMLParser):
    """Tags, texts, tables and images of a page."""

    def __init__(self, path) -> None:
        super().__init__()
        self.source = path.read_text()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.pictures: dict[str, str] = {}
        self.scripts: list[str] = []
        self.in_table = False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == 'table':
            self.in_table = True
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')
        elif tag == 'img':
            kind, _, data = dict(attrs)['src'].partition(',')
            assert kind == 'data:image/svg+xml;base64'
            self.pictures[dict(attrs)['alt']] = base64.b64decode(data).decode()

    def handle_endtag(self, tag):
        self.in_table &= tag != 'table'

    def handle_data(self, data):
        if self.tags[-1:] == ['script'] and data.strip():
            self.scripts.append(data)
            return
        self.texts.append(data)
        if self.in_table and self.tables[-1] and self.tags[-1] in ('td', 'th', 'a'):
            self.tables[-1][-1][-1] += data.strip()

    def table(self, *header: str) -> list[list[str]]:
        """Rows of the only table with this header."""
        (found,) = (table[1:] for table in self.tables if table[0] == list(header))
        return found


def report(out, *where) -> Page:
    assert main(['report', *map(str, where), '--out', str(out)]) == 0
    return Page(out)


def result_of(folder) -> dict:
    return json.loads((folder / 'result.json').read_text())


COSTS = ('parameters', 'multiply-adds', 'ms per image')
OVERVIEW = (
    'no.', 'search', 'data', 'space', 'strategy', 'source', 'epochs', 'validation accuracy', 'test accuracy', 'seconds',
    *COSTS,
)  # fmt: skip


def test_files_of_other_programs_are_left_alone(runs, tmp_path):
    """Editors have a settings.json too, often with comments."""
    (tmp_path / 'project' / '.vscode').mkdir(parents=True)
    (tmp_path / 'project' / '.vscode' / 'settings.json').write_text('// mine\n{}')
    shutil.copytree(runs / 'cold', tmp_path / 'project' / 'cold')
    assert main(['report', str(tmp_path / 'project'), '--out', str(tmp_path / 'page.html')]) == 0


def test_a_cold_and_a_warm_search_side_by_side(searches, tmp_path, capsys):
    cold, warm = (searches / 'runs' / name for name in ('cold', 'warm'))
    page = report(tmp_path / 'page.html', cold, warm)
    assert f'2 searches reported in {tmp_path / "page.html"}' in capsys.readouterr().out
    assert page.texts.count('2 searches') == 1
    rows = page.table(*OVERVIEW)
    for row, name, folder in zip(rows, ('cold', 'warm'), (cold, warm), strict=True):
        result = result_of(folder)
        assert row[1:3] == [name, 'shapes']
        assert row[3] == 'nasbench201 (depth=1, image_size=8, width=4)'
        assert row[6] == '2 of 2'
        assert row[7:] == [
            f'{result["curve"][-1]["default"]:.4f}', f'{result["final"]["test_accuracy"]:.4f}', f'{result["seconds"]:.1f}',
            f'{result["costs"]["parameters"]:,}', f'{result["costs"]["multiply_adds"]:,}',
            f'{result["costs"]["latency_ms"]:.2f}',
        ]  # fmt: skip
    assert [row[5] for row in rows] == ['none (cold)', 'nasbench201-shapes (named)']
    for label in ('validation accuracy', 'train loss', 'alpha entropy', 'skip share'):
        assert {'1. cold', '2. warm'} <= texts(page.pictures[f'{label} over epochs'])
    differing = page.table('setting', '1. cold', '2. warm')
    assert ['strategy.name', 'DARTS', 'WarmStartDARTS'] in differing
    assert all(row[1] != row[2] for row in differing)
    assert page.texts.count('torch') == 2


def texts(picture: str) -> set[str]:
    """Of an SVG, which must be one."""
    return {element.text for element in ElementTree.fromstring(picture).iter('{http://www.w3.org/2000/svg}text')}


def test_the_found_cell_and_its_probabilities(searches, tmp_path):
    page = report(tmp_path / 'page.html', searches / 'runs' / 'cold')
    result = result_of(searches / 'runs' / 'cold')
    assert len(result['alphas']) == 2
    last = result['alphas'][-1]
    rows = page.table('choice', 'chosen', 'probability')
    assert {row[0]: row[1] for row in rows} == result['architecture']
    assert {row[0]: row[2] for row in rows} == {k: f'{last[k][op]:.4f}' for k, op in result['architecture'].items()}
    (drawn,) = (text for text in page.pictures if text.startswith('in to 1'))
    nodes = ('in', '1', '2', 'out')
    for label, op in result['architecture'].items():
        start, end = label.removeprefix('cell/').split('_')
        assert f'{nodes[int(start)]} to {nodes[int(end)]}: {op}' in drawn
    assert {*result['architecture'].values(), 'in', 'out'} <= texts(page.pictures[drawn])
    (heat,) = (picture for text, picture in page.pictures.items() if text.startswith('probabilities of cell/0_1'))
    assert result['architecture'].keys() | last['cell/0_1'].keys() <= texts(heat)
    shown = {text for text in texts(heat) if re.fullmatch(r'0\.\d\d', text)}
    assert shown == {f'{p:.2f}' for choice in last.values() for p in choice.values()}


def test_probabilities_are_those_of_the_architecture(searches):
    """Of every epoch in result.json; the last ones are in architecture.json too, not rounded."""
    folder = searches / 'runs' / 'warm'
    exact = json.loads((folder / 'architecture.json').read_text())['probabilities']
    last = result_of(folder)['alphas'][-1]
    assert last.keys() == exact.keys()
    for label, choice in exact.items():
        assert last[label] == {candidate: round(p, 4) for candidate, p in choice.items()}
        assert sum(last[label].values()) == pytest.approx(1, abs=5e-4)


@pytest.mark.slow
def test_what_a_warm_start_inherited(searches, tmp_path):
    page = report(tmp_path / 'page.html', searches / 'runs' / 'chosen')
    warm = result_of(searches / 'runs' / 'chosen')['warm_start']
    rows = page.table('cell', 'inherited', 'how', 'tensors', 'numbers')
    assert [[row[0], row[2]] for row in rows] == [[cell, how] for cell, how, _, _ in warm['cells']]
    assert sum(int(row[4].replace(',', '')) for row in rows) == sum(size for _, _, _, size, _ in warm['tensors'])
    assert {row[0]: row[1] for row in rows} == {c: f'{100 * warm["share_by_cell"].get(c, 0):.1f} %' for c, *_ in rows}
    by_op = page.table('op', 'inherited')
    assert dict(by_op) == {op: f'{100 * share:.1f} %' for op, share in warm['share_by_op'].items()}
    by_how = {row[0]: int(row[1]) for row in page.table('how', 'tensors', 'numbers')}
    assert sum(by_how.values()) == len(warm['tensors'])
    (summary,) = (text for text in page.texts if text.startswith(f'From {warm["source"]}, the nearest of 2: '))
    assert f'accuracy before training {warm["zero_shot_accuracy"]:.4f}' in summary
    (bars,) = (picture for text, picture in page.pictures.items() if text.startswith(f'{warm["ranking"][0][0]}: '))
    assert {'near', 'far', 'distance of the data'} <= texts(bars)
    assert page.table(*OVERVIEW)[0][5] == f'{warm["source"]} (the nearest of 2)'


def test_nothing_in_the_files_is_markup(runs, tmp_path):
    script = '<script>alert("1")</script>'
    result = result_of(runs / 'warm')
    result['data'] = result['warm_start']['source'] = result['warm_start']['tensors'][0][1] = script
    result['architecture'] = {script: '$bad$ & <b>\x01\ud800', **result['architecture']}
    result['alphas'][1][script] = {'<b>': 0.5, '$x_': 0.25}
    result['versions'][script] = '"><img src=x onerror=alert(1)>'
    (runs / 'warm' / 'result.json').write_text(json.dumps(result))
    settings = json.loads((runs / 'warm' / 'settings.json').read_text())
    settings['space']['name'] = "'" + script
    (runs / 'warm' / 'settings.json').write_text(json.dumps(settings))
    (runs / 'warm').rename(runs / 'a<b>&amp;')
    page = report(tmp_path / 'page.html', runs)
    assert page.tags.count('script') == 3 and 'b' not in page.tags
    assert [*scripts()] == page.scripts[1:]
    assert '<' not in page.scripts[0] and json.loads(page.scripts[0])[0]['series'][0]['name'] == '1. a<b>&amp;'
    assert script in page.texts
    assert 'a<b>&amp;' in page.texts
    assert not [name for name, _ in page.attributes if name.startswith('on')]
    for picture in page.pictures.values():
        assert all('script' not in element.tag for element in ElementTree.fromstring(picture).iter())


@pytest.mark.slow
def test_the_page_needs_no_other_file(searches, tmp_path):
    page = report(tmp_path / 'page.html', searches / 'runs')
    links = [value for name, value in page.attributes if name in ('src', 'href', 'xlink:href', 'srcset', 'action')]
    assert all(link.startswith(('data:', '#')) for link in links)
    assert {'link', 'iframe', 'object', 'base'}.isdisjoint(page.tags)
    assert '@import' not in page.source and 'url(' not in page.source.replace('url(#', '')


@pytest.mark.slow
def test_the_same_folders_give_the_same_page(searches, tmp_path):
    pages = [report(tmp_path / name, searches / 'runs').source for name in ('a.html', 'b.html')]
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_folders_above_searches_and_repeated_ones(searches, tmp_path, capsys):
    page = report(tmp_path / 'page.html', searches / 'runs' / 'warm', searches, searches / 'runs')
    assert '3 searches reported' in capsys.readouterr().out
    assert [row[1] for row in page.table(*OVERVIEW)] == ['warm', 'chosen', 'cold']


@pytest.mark.slow
def test_an_experiment_by_its_id(runs, tmp_path, monkeypatch):
    """NNI's list of experiments says where the folder of an experiment lies; trials write below it."""
    runs.rename(tmp_path / 'trials')
    (tmp_path / 'elsewhere' / 'abc123').mkdir(parents=True)
    (tmp_path / 'trials').rename(tmp_path / 'elsewhere' / 'abc123' / 'trials')
    listed = partial(config_utils.Experiments, home_dir=str(tmp_path / 'nni'))
    listed().add_experiment('abc123', 8080, 0, 'local', 'name', logDir=str(tmp_path / 'elsewhere'))
    monkeypatch.setattr(config_utils, 'Experiments', listed)
    monkeypatch.chdir(tmp_path)
    page = report(tmp_path / 'page.html', 'abc123')
    assert [row[1] for row in page.table(*OVERVIEW)] == ['chosen', 'cold', 'warm']


class PowerCut(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['WarmStartDARTS', 'WarmStartGumbelDARTS', 'WarmStartProxyless'])
def test_an_unfinished_search_says_so_and_goes_on(searches, tmp_path, monkeypatch, strategy):
    settings = (f'strategy={{name: {strategy}, arc_learning_rate: 0.01}}', 'evaluator.max_epochs=3')
    assert search(searches, tmp_path / 'whole', *settings) == 0
    start = Curve.on_train_epoch_start

    def cut(curve, trainer, pl_module):
        if len(curve.figures) == 2:
            raise PowerCut
        start(curve, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(Curve, 'on_train_epoch_start', cut)
        with pytest.raises(PowerCut):
            search(searches, tmp_path / 'cut', *settings)
    page = report(tmp_path / 'page.html', tmp_path / 'cut')
    assert any(text.startswith('Unfinished: 2 of 3 epochs.') for text in page.texts)
    (row,) = page.table(*OVERVIEW)
    whole = result_of(tmp_path / 'whole')
    assert row[2] == 'shapes'
    assert row[6:] == ['2 of 3, unfinished', f'{whole["curve"][1]["default"]:.4f}', *['-'] * 5]
    assert read_search(tmp_path / 'cut', 'cut').alphas == whole['alphas'][:2]
    assert any(text.startswith('probabilities of cell/0_1') for text in page.pictures)
    assert search(searches, tmp_path / 'cut', *settings, resume=True) == 0
    assert result_of(tmp_path / 'cut')['alphas'] == whole['alphas']
    page = report(tmp_path / 'page.html', tmp_path / 'cut')
    assert not any(text.startswith('Unfinished') for text in page.texts)


@pytest.mark.slow
def test_a_finished_search_that_was_started_again_is_unfinished(searches, runs, tmp_path, monkeypatch):
    """With more epochs it is the same run; another rate is another run, of which the old result says nothing."""

    def cut(curve, trainer, pl_module):
        if len(curve.figures) == 3:
            raise PowerCut

    monkeypatch.setattr(Curve, 'on_train_epoch_start', cut)
    with pytest.raises(PowerCut):
        search(searches, runs / 'cold', 'evaluator.max_epochs=4', resume=True)
    found = read_search(runs / 'cold', 'cold')
    assert found.note.startswith('Unfinished: 3 of 4 epochs')
    assert found.result['versions'] and 'final' not in found.result
    with pytest.raises(PowerCut):
        search(searches, runs / 'cold', 'evaluator.max_epochs=4', 'evaluator.learning_rate=0.01')
    found = read_search(runs / 'cold', 'cold')
    assert found.note.startswith('Unfinished: 3 of 4 epochs')
    assert not found.result


def test_a_search_without_an_epoch(runs, tmp_path):
    for name in ('result.json', 'checkpoints/last.ckpt'):
        (runs / 'warm' / name).unlink()
    page = report(tmp_path / 'page.html', runs / 'warm')
    assert any(text.startswith('Unfinished: 0 of 2 epochs.') for text in page.texts)
    assert page.table(*OVERVIEW)[0][6:] == ['0 of 2, unfinished', '-', '-', '-', '-', '-', '-']
    assert not page.pictures


def test_an_older_result(runs, tmp_path):
    """Before probabilities, cells of the transfer and settings were kept, and where the checkpoint was deleted."""
    result = result_of(runs / 'chosen')
    del result['alphas'], result['warm_start']['cells'], result['warm_start']['share_by_cell']
    (runs / 'chosen' / 'result.json').write_text(json.dumps(result))
    (runs / 'chosen' / 'settings.json').unlink()
    shutil.rmtree(runs / 'chosen' / 'checkpoints')
    page = report(tmp_path / 'page.html', runs / 'chosen')
    assert 'Probabilities over epochs' not in page.texts
    assert 'cell' not in [table[0][0] for table in page.tables]
    assert page.table('how', 'tensors', 'numbers')
    assert page.table(*OVERVIEW)[0][2:7] == ['shapes', '?', 'WarmStartDARTS', 'far (the nearest of 2)', '2']


def test_an_older_checkpoint_goes_on(searches, runs):
    """With all states together, and without probabilities: those of its epochs are not known, and later ones have their own
    places."""
    import torch

    path = runs / 'cold' / 'checkpoints' / 'last.ckpt'
    checkpoint = torch.load(path, weights_only=True)
    states = {name: checkpoint['callbacks'].pop(name) for name in list(checkpoint['callbacks']) if name.startswith(STATE)}
    checkpoint[STATE] = {key: value for state in states.values() for key, value in state.items() if key != 'alphas'}
    torch.save(checkpoint, path)
    assert search(searches, runs / 'cold', 'evaluator.max_epochs=3', resume=True) == 0
    alphas = result_of(runs / 'cold')['alphas']
    assert alphas[:2] == [{}, {}]
    assert 'cell/0_1' in alphas[2]
    report(runs / 'page.html', runs / 'cold')


def test_results_without_costs_are_drawn(runs, tmp_path):
    """As those of earlier versions are."""
    result = result_of(runs / 'cold')
    del result['costs']
    (runs / 'cold' / 'result.json').write_text(json.dumps(result))
    assert report(tmp_path / 'page.html', runs / 'cold').table(*OVERVIEW)[0][-3:] == ['-', '-', '-']


def test_a_diverged_search_is_drawn_with_gaps(runs, tmp_path):
    result = result_of(runs / 'cold')
    result['curve'][1] |= {'default': None, 'train_loss': None}
    result['alphas'][1] = {label: dict.fromkeys(choice) for label, choice in result['alphas'][1].items()}
    (runs / 'cold' / 'result.json').write_text(json.dumps(result))
    shutil.rmtree(runs / 'cold' / 'checkpoints')
    page = report(tmp_path / 'page.html', runs / 'cold')
    assert page.table(*OVERVIEW)[0][7] == '-'


def test_a_space_without_cells_has_a_table(searches, tmp_path, monkeypatch):
    import inspect

    (tmp_path / 'report_spaces.py').write_text(
        'import torch\nfrom nni.nas.nn.pytorch import LayerChoice, ModelSpace\nfrom torch import nn\n\n'
        + inspect.getsource(OwnSpace)
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert search(searches, tmp_path / 'own', 'space={name: "report_spaces:OwnSpace", image_size: 8}') == 0
    page = report(tmp_path / 'page.html', tmp_path / 'own')
    assert {row[0] for row in page.table('choice', 'chosen', 'probability')} == {'first', 'second'}
    assert not any(' to ' in text for text in page.pictures)


def test_cells_are_told_by_their_labels():
    darts = {'normal/op_2_0': 'skip', 'normal/input_2_0': [1], 'normal/op_2_1': 'pool', 'normal/input_2_1': [0]}
    assert found_cells(darts) == {'normal': [Edge(1, 2, 'skip'), Edge(0, 2, 'pool')]}
    assert found_cells({'cell/0_1': 'a', 'cell/0_2': 'b', 'cell/1_2': 'c'}) == {
        'cell': [Edge(0, 1, 'a'), Edge(0, 2, 'b'), Edge(1, 2, 'c')]
    }
    for other in (
        {'first': 'conv'}, {'cell/0_2': 'a', 'cell/1_2': 'b'}, {'cell/2_1': 'a'}, {'stage/0_1': 3},
        {'normal/op_2_0': 'skip'}, {'normal/op_2_0': 'skip', 'normal/input_2_0': [0, 1]},
        {'normal/op_2_0': 'skip', 'normal/input_2_0': [2]},
    ):  # fmt: skip
        assert found_cells(other) == {}


@pytest.mark.parametrize('nodes', [3, 4, 6])
def test_arcs_of_a_full_cell_do_not_meet(nodes):
    edges = [Edge(i, j, f'op{i}{j}') for j in range(nodes) for i in range(j)]
    straight, *sides = _tracks(edges, list(range(nodes)))
    assert sorted((e.source, e.target) for e in straight) == [(i, i + 1) for i in range(nodes - 1)]
    assert sorted(e.op for e in straight + [e for side in sides for e, _ in side]) == sorted(e.op for e in edges)
    for side in sides:
        for edge, level in side:
            for other, height in side:
                apart = edge.target <= other.source or other.target <= edge.source
                assert edge == other or level != height or apart


def test_nothing_to_report_is_one_line(searches, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(config_utils, 'Experiments', partial(config_utils.Experiments, home_dir=str(tmp_path / 'nni')))
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'other' / 'settings').mkdir(parents=True)
    (tmp_path / 'other' / 'result.json').write_text('{"curve": []}')
    for name, wrong in (('numbers', {'curve': 5}), ('foreign', {})):
        shutil.copytree(
            runs / 'warm', tmp_path / name, ignore=shutil.ignore_patterns('checkpoints', '*.safetensors', 'arch*')
        )
        result = json.loads((runs / 'warm' / 'result.json').read_text())
        (tmp_path / name / 'result.json').write_text(json.dumps({**result, **wrong}))
    (tmp_path / 'foreign' / 'settings.json').write_text('{"evaluator": "x", "strategy": "y", "data": {}, "space": null}')
    (runs / 'warm' / 'result.json').write_text('{')
    (runs / 'cold' / 'checkpoints' / 'last.ckpt').write_bytes(b'no checkpoint')
    for where, out, message in (
        ('nowhere', 'page.html', 'nowhere is neither a folder nor an experiment that NNI knows'),
        (tmp_path / 'empty', 'page.html', 'empty holds no search: neither result.json nor settings.json'),
        (tmp_path / 'other', 'page.html', 'other holds no search'),
        (runs / 'warm', 'page.html', 'result.json is damaged: Expecting property name'),
        (runs / 'cold', 'page.html', 'last.ckpt is damaged or of another kind; repair or delete it'),
        (tmp_path / 'numbers', 'page.html', 'result.json is damaged: curve is not what a search writes'),
        (tmp_path / 'foreign', 'page.html', 'foreign holds no search'),
        ('~nosuchuser/run', 'page.html', 'is neither a folder nor an experiment'),
        (runs / 'chosen', 'page.pdf', 'page.pdf must end in .html'),
        (runs / 'chosen', 'search.yml/page.html', '--out: folder'),
    ):
        (tmp_path / 'search.yml').touch()
        assert main(['report', str(where), '--out', str(tmp_path / out)]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and error[0].startswith('error: ')
        assert message in error[0]
        assert not (tmp_path / out).exists()


def test_retrained_networks_and_pretrained_supernets_are_no_searches(searches, tmp_path, capsys):
    config = ['--config', str(searches / 'search.yml')]
    run = ['--run', str(searches / 'runs' / 'cold')]
    assert main(['retrain', *config, *run, '--out', str(tmp_path / 'net'), '--set', 'evaluator.max_epochs=1']) == 0
    capsys.readouterr()
    assert main(['report', str(tmp_path), '--out', str(tmp_path / 'page.html')]) == 2
    assert 'holds no search' in capsys.readouterr().err


def test_retrained_networks_are_on_the_page_of_their_search(searches, tmp_path, capsys):
    config = ['--config', str(searches / 'search.yml')]
    run = ['--run', str(searches / 'runs' / 'cold')]
    assert main(['retrain', *config, *run, '--out', str(tmp_path / 'net'), '--set', 'evaluator.max_epochs=1']) == 0
    result = {**result_of(tmp_path / 'net'), 'accuracy': 0.75}  # of the network; 'final' is a mean
    (tmp_path / 'net' / 'result.json').write_text(json.dumps(result))
    shutil.copytree(searches / 'runs' / 'cold', tmp_path / 'same')  # another search with the same architecture
    other = {**result_of(tmp_path / 'same'), 'run': {'id': 'another'}}
    (tmp_path / 'same' / 'result.json').write_text(json.dumps(other))
    page = report(tmp_path / 'page.html', searches / 'runs' / 'cold', tmp_path / 'same', tmp_path / 'net')
    (row,) = page.table('network', 'found by', 'weights', 'epochs', 'accuracy', 'measured on', *COSTS, 'seconds')
    assert row[0].endswith('net') and row[1].endswith('cold')
    assert row[2:7] == ['scratch', '1', '0.7500', 'test', f'{result["parameters"]:,}']
    assert row[7] == f'{result["costs"]["multiply_adds"]:,}'
    assert any('0.7500 on test images' in text for text in page.texts)
    (tmp_path / 'net' / 'result.json').write_text(json.dumps({**result, 'parameters': 'many'}))
    page = report(tmp_path / 'page.html', searches / 'runs' / 'cold', tmp_path / 'net')
    assert any('parameters is not what a search writes' in text for text in page.texts)
