"""What a newcomer sees first: version, help, completion, the card of an entry, and what a search starts from."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from importlib.metadata import version

import pytest
from helpers.commands import search

from nni_warmstart import SupernetZoo
from nni_warmstart.cli import main
from nni_warmstart.cli.main import COMMANDS

ENTRY = 'nasbench201-w8-braille'
ACTIONS = [['zoo', action] for action in ('list', 'show', 'rank', 'add', 'remove')]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-m', 'nni_warmstart.cli', *words], capture_output=True, text=True)


def test_version():
    done = run('--version')
    assert (done.returncode, done.stdout, done.stderr) == (0, f'nni-warmstart {version("nni-warmstart")}\n', '')


@pytest.mark.slow
def test_help_of_every_command_is_quick_and_quiet():
    """A third of a second on an idle machine, most of it Python's own start; torch alone would take seconds."""
    for words in ([], *([name] for name in COMMANDS), *ACTIONS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(*words, '--help')
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and done.stderr == '', words
        assert 'usage: nni-warmstart' in done.stdout
        took = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        assert took < 1.5, words  # of the processor, which a busy machine hardly lengthens


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'tcsh'])
def test_completion(shell, capsys):
    pytest.importorskip('shtab')
    with pytest.raises(SystemExit) as stop:
        main(['--print-completion', shell])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, 'overwrite'))


def test_completion_without_its_package_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    with pytest.raises(SystemExit) as stop:
        main(['--print-completion', 'bash'])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith('error: shtab is not installed') and error.count('\n') == 1
    assert "pip install 'nni-warmstart[completion]'" in error


def test_the_card_of_an_entry_is_for_people(capsys):
    assert main(['zoo', 'show', ENTRY]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == ENTRY
    assert re.search(r'^space +nasbench201, .*width 8', shown, re.MULTILINE)
    assert re.search(r'^images +16 x 16 pixels, 3 channels *$', shown, re.MULTILINE)
    assert 'classes 20: braille/a, braille/b, ' in ' '.join(shown.split())
    assert re.search(r'^ +braille +2989 +20 +0\.9854 +MIT *$', shown, re.MULTILINE)
    assert re.search(r'cell/0_1 .*conv_3x3 0\.\d\d', shown)
    assert '{' not in shown
    assert len(shown.splitlines()) < 40


def test_the_rest_of_the_card_is_json(capsys):
    entry = SupernetZoo.shipped()[ENTRY]
    assert main(['zoo', 'show', ENTRY, '--json']) == 0
    card = json.loads(capsys.readouterr().out)
    assert card['class_names'] == entry.class_names
    assert card['history'] == entry.history
    for label, probability in card['probabilities'].items():
        assert list(probability) == entry.candidates[label]
        assert list(probability.values()) == pytest.approx(entry.alpha(label).softmax(-1).tolist())


@pytest.mark.parametrize(
    ('settings', 'line'),
    [
        ('{name: WarmStartDARTS}', 'Cold start: no source was given; strategy.source = auto takes one from the zoo.'),
        ('{name: DARTS, source: auto}', "Cold start: DARTS is NNI's own strategy; WarmStartDARTS takes a source."),
        (f'{{name: WarmStartDARTS, source: {ENTRY}}}', f"Warm start from '{ENTRY}': "),
    ],
)
def test_a_search_says_what_it_starts_from(folder, capsys, settings, line):
    assert search(folder, '--set', f'strategy={settings}', '--set', 'evaluator.max_epochs=1') == 0
    shown = capsys.readouterr().out
    assert line in shown
    assert shown.index(line) < shown.index('Results in')


def test_a_resumed_search_says_so(folder, capsys):
    assert search(folder) == 0
    capsys.readouterr()
    assert search(folder, '--resume') == 0
    assert f'Resumed from {folder}/out/checkpoints/last.ckpt' in capsys.readouterr().out.replace('\n', '')
