"""What reaches the terminal: text of cards, files, settings and arguments cannot steer it."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from helpers.hostile import ESCAPE, Entry
from helpers.tiny import SMALL, make_task, save_npz, small_space
from rich.table import Table
from rich.text import Text

from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import main, quiet
from nni_warmstart.cli.common import complain, console
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.report.page import write_report
from nni_warmstart.report.scripts import scripts

STEERING = ('\x1b', '\x07', '\x9b', '\u202e', '\u200b', '\r', '\b', '\udcff')


def assert_harmless(*texts: str) -> None:
    for text in texts:
        assert not any(each in text for each in STEERING), text.encode('unicode_escape')


@pytest.fixture(scope='module')
def entry() -> Entry:
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', dataset=make_task())
    return Entry(supernet.to_bytes())


@pytest.fixture
def zoo(tmp_path, entry) -> Path:
    """A readable entry whose card is full of escapes, and two unreadable ones: by their name, and by their card."""
    folder = tmp_path / 'zoo'
    folder.mkdir()
    (folder / f'unreadable{ESCAPE}.safetensors').write_bytes(b'')
    evil = entry.copy()
    label = next(iter(evil.card['candidates']))
    evil.card['candidates'][label] = [f'{ESCAPE}{i}' for i in range(len(evil.card['candidates'][label]))]
    evil.card['history'].update(dataset=ESCAPE, created=ESCAPE, licence=ESCAPE, comment={ESCAPE: '\udcff'})
    evil.card.update(name=ESCAPE, space={'class': ESCAPE}, class_names=[ESCAPE] * 3)
    (folder / 'evil.safetensors').write_bytes(evil.to_bytes())
    evil.card['strategy'] = ESCAPE
    (folder / 'strategy.safetensors').write_bytes(evil.to_bytes())
    return folder


def test_lists_and_cards(zoo, capfd):
    for command in (['zoo', 'list'], ['zoo', 'show', 'evil'], ['doctor']):
        main([*command, '--zoo', str(zoo)])
        captured = capfd.readouterr()
        assert_harmless(captured.out, captured.err)
        if command[0] == 'zoo':
            assert r'\x1b]0;owned\x07' in ''.join(captured.out.split())
    assert main(['zoo', 'show', 'evil', '--zoo', str(zoo), '--json']) == 0
    assert r'\udcff' in capfd.readouterr().out


def test_errors_and_warnings(zoo, capfd, tmp_path):
    save_npz(tmp_path / 'shapes.npz')
    for command in (
        ['zoo', 'show', 'strategy', '--zoo', str(zoo)],
        ['zoo', 'show', f'unreadable{ESCAPE}', '--zoo', str(zoo)],
        ['zoo', 'show', ESCAPE, '--zoo', str(zoo)],
        ['zoo', 'list', '--zoo', f'{tmp_path}/{ESCAPE}'],
        ['zoo', 'rank', '--zoo', str(zoo), '--data', f'{tmp_path}/{ESCAPE}\n.npz'],
        ['search', '--config', f'{tmp_path}/{ESCAPE}\n', '--out', str(tmp_path / 'out')],
    ):
        assert main(command) == 2
        captured = capfd.readouterr()
        assert_harmless(captured.out, captured.err)
        assert len([line for line in captured.err.splitlines() if line.startswith('error: ')]) == 1
        assert captured.err.endswith('\n') and 'Traceback' not in captured.err
    with pytest.raises(SystemExit):
        main(['zoo', 'list', f'{ESCAPE}\n'])
    assert_harmless(capfd.readouterr().err)


@pytest.mark.parametrize('key', ['data/npz/path', 'space/name', 'strategy/name', 'strategy/source', f'strategy/{ESCAPE}'])
def test_values_of_yaml(tmp_path, capfd, key):
    save_npz(tmp_path / 'shapes.npz')
    document = json.loads(json.dumps(SMALL))
    *sections, last = key.split('/')
    inner = document
    for section in sections:
        inner = inner[section]
    inner[last] = f'{ESCAPE}\n'
    if last == 'source':
        inner['name'] = 'WarmStartDARTS'
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(document))
    assert main(['search', '--config', str(tmp_path / 'search.yml'), '--out', str(tmp_path / 'out')]) == 2
    captured = capfd.readouterr()
    assert_harmless(captured.out, captured.err)
    assert len(captured.err.splitlines()) == 1


def test_whatever_rich_draws(capfd):
    table = Table(ESCAPE, title=ESCAPE, caption=ESCAPE)
    table.add_row(ESCAPE)
    table.add_row(Text(ESCAPE, 'red'))
    console.print(table)
    console.print(ESCAPE, Text(ESCAPE))
    console.print_json(data={ESCAPE: ESCAPE})
    with console.status(ESCAPE):
        pass
    console.rule(ESCAPE)
    complain(f'{ESCAPE}\nerror: another line')
    captured = capfd.readouterr()
    assert_harmless(captured.out, captured.err)
    assert len(captured.err.splitlines()) == 1


def test_warnings_of_any_logger(capfd, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, 'handlers', [])
    quiet()
    quiet()
    logging.getLogger('nni_warmstart.anywhere').warning('a %s b', f'{ESCAPE}\nerror: none')
    handler = logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    quiet()
    logging.getLogger('someone.else').warning(ESCAPE)
    err = capfd.readouterr().err
    assert_harmless(err)
    assert err.count(r'\x1b]0;owned\x07') == len(err.splitlines()) == 2


@pytest.mark.slow
def test_a_page_about_searches(zoo, tmp_path, capfd):
    save_npz(tmp_path / 'shapes.npz', n=36)
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(SMALL))
    command = ['search', '--config', str(tmp_path / 'search.yml'), '--out', str(tmp_path / 'out')]
    assert main([*command, '--set', 'evaluator.max_epochs=1']) == 0
    path = tmp_path / 'out' / 'result.json'
    result = json.loads(path.read_text())
    result.update(data=f'<script>{ESCAPE}', source=f'"><img src=x onerror=alert(1)>{ESCAPE}')
    path.write_text(json.dumps(result))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # glyphs that fonts lack
        write_report([str(tmp_path / 'out')], tmp_path / 'report.html')
    page = (tmp_path / 'report.html').read_text()
    assert_harmless(page)
    for own in scripts():
        assert page.count(f'<script>{own}</script>') == 1
        page = page.replace(f'<script>{own}</script>', '')
    assert '<script>' not in page and '<img src=x' not in page
    assert r'\x1b]0;owned' in page


def test_names_of_entries_are_theirs_not_the_card_s(zoo):
    assert SupernetZoo(zoo)['evil'].name == 'evil'
