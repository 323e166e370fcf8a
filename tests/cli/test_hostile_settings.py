"""Hostile YAML, given to every command that takes some: one line that is not long, in a second or so, and status 2."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers.tiny import SMALL, save_npz

from nni_warmstart import ConfigError, DataError, trial
from nni_warmstart.cli import main
from nni_warmstart.runs.config import DataConfig, parse_search
from nni_warmstart.runs.settings import read

LARGEST = 2**17  # bytes of a file of settings


def laughs(line: str) -> str:
    """Aliases that multiply: a line per level, which refers to the one before nine times."""
    again = ', '.join(['*a{before}'] * 9)
    return ''.join(
        line.format(level=level, before=level - 1, again=again.format(before=level - 1)) for level in range(1, 30)
    )


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    'a billion laughs': ('a0: &a0 [x]\n' + laughs('a{level}: &a{level} [{again}]\n'), 'more than 10000 values'),
    'merged laughs': ('a0: &a0 {k: v}\n' + laughs('a{level}: &a{level}\n  k{level}: v\n  <<: [{again}]\n'), 'key a0 is'),
    'wide merges': ('a: &a {' + ', '.join(f'k{i}: 1' for i in range(4000)) + '}\nb:\n' + '- <<: *a\n' * 8000,
                    'more than 10000 values'),
    'many merges': ('a: &a {x: 1}\nb: {<<: [' + ', '.join(['*a'] * 16000) + ']}', 'more than 10000 values'),
    'an alias of itself': ('data: &a\n  name: *a', 'an alias (*) may contain itself'),
    'deep lists': ('[' * 1000, 'is not YAML: maximum recursion depth'),
    'deep sections': ('{a: ' * 1000, 'is not YAML: maximum recursion depth'),
    'nested sections': ('data: ' + '{a: ' * 50 + '}' * 50, 'sections in each other'),
    'many values': ('[' + ','.join(['1'] * 60000) + ']', 'more than 10000 values'),
    'huge number': ('evaluator: {max_epochs: 0x' + 'f' * 5000 + '}', 'max_epochs is a whole number of more'),
    'huge decimal number': ('seed: ' + '9' * 5000, 'is not YAML: Exceeds the limit'),
    'huge number by colons': ('evaluator: {max_epochs: 1' + ':1' * 9000 + '}', 'max_epochs is a whole number of more'),
    'huge key': ('0x' + 'f' * 900 + ': 1', 'a key that is a whole number of more than 64 bits'),
    'long text': ('evaluator: {max_epochs: "' + 'x' * 90000 + '"}', 'it must be a whole number'),
    'long key': ('? ' + 'k' * 90000 + '\n: 1', 'is unknown; known are data'),
    'large file': ('#' * (LARGEST + 1), 'has more than 128 kB'),
    'key twice': ('seed: 1\nseed: 2', "key 'seed' is given twice"),
    'tab': ('data:\n\tname: digits', "found character '\\t'"),
    'latin 1': ('data: {name: caf\xe9}'.encode('latin-1'), 'is not YAML: unacceptable character'),
    'NUL': ('seed: \0', 'is not YAML: unacceptable character'),
    'binary': (bytes(range(256)), 'is not YAML'),
    'empty': ('', 'holds no keys'),
    'list': ('- data', 'holds no keys'),
    'number': ('3', 'holds no keys'),
    'two documents': ('seed: 1\n---\nseed: 2', 'is not YAML: expected a single document'),
    'Python object': ('seed: !!python/object/apply:os.system [touch executed]', 'could not determine a constructor'),
    'control characters': ('"\\e]0;title\\a": 1', 'key \\x1b]0;title\\x07 is unknown'),
    'lines': ('"a\\nb\\nc": 1', 'key a b c is unknown'),
    'text for a section': ('space: "a\\nb"', "space = 'a\\nb', but it must be a section"),
    'date': ('evaluator: {max_epochs: 2024-01-01}', 'max_epochs = datetime.date(2024, 1, 1), but it must be a whole number'),
    'set': ('space: !!set {a, b}', 'but it must be a section with keys'),
    'NaN': ('evaluator: {max_epochs: .nan}', 'max_epochs = nan, but it must be a whole number'),
}  # fmt: skip

COMMANDS = {
    'run': ['run', '--out', 'out'],
    'search': ['search', '--out', 'out'],
    'retrain': ['retrain', '--run', 'run', '--out', 'out'],
    'pretrain': ['pretrain', '--name', 'a', '--zoo', 'zoo'],
    'zoo rank': ['zoo', 'rank'],
    'zoo show': ['zoo', 'show', 'joint-nasbench201-w8', '--onto'],
}


def check_one_line(text: str, message: str) -> None:
    (line,) = text.strip().splitlines()
    assert line.startswith('error: ')
    assert message in line
    assert len(line) <= 1100
    assert line.isprintable()


CASES = [('search', name) for name in HOSTILE]
CASES += [
    (command, name) for command in (*COMMANDS, 'trial') for name in ('a billion laughs', 'binary', 'huge number', 'lines')
]


@pytest.mark.parametrize(('command', 'name'), dict.fromkeys(CASES))
def test_hostile_files(tmp_path, monkeypatch, capsys, command, name):
    monkeypatch.chdir(tmp_path)
    content, message = HOSTILE[name]
    Path('search.yml').write_bytes(content if isinstance(content, bytes) else content.encode())
    words = COMMANDS.get(command, [])
    words = [*words, 'search.yml'] if words[-1:] == ['--onto'] else [*words, '--config', 'search.yml']
    began = time.process_time()
    assert (trial.main(words) if command == 'trial' else main(words)) in (1, 2)
    assert time.process_time() - began < 10
    text = capsys.readouterr().err
    check_one_line(text, message if command != 'pretrain' or 'data must be a list' not in text else '')
    assert {path.name for path in tmp_path.iterdir()} <= {'search.yml', 'zoo', 'out'}


def test_what_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / 'pipe.yml')
    for path, message in (
        (tmp_path / 'pipe.yml', 'it is a pipe, a socket or a device'), ('/dev/zero', 'it is a pipe, a socket or a device'),
        (tmp_path, 'Is a directory'), ('a\0b.yml', 'embedded null byte'), ('a' * 5000, 'File name too long'),
    ):  # fmt: skip
        assert main(['search', '--config', str(path), '--out', str(tmp_path / 'out')]) in (1, 2)
        check_one_line(capsys.readouterr().err, message)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_text_of_any_encoding_that_says_so(tmp_path, encoding):
    (tmp_path / 'search.yml').write_bytes('data: {name: digits, label: café}'.encode(encoding))
    assert parse_search(read(tmp_path / 'search.yml'), tmp_path).data.label == 'café'


def test_merge_keys_of_a_usual_size(tmp_path):
    (tmp_path / 'search.yml').write_text('data: &a {name: digits}\nevaluator: {max_epochs: 3}\nspace: {<<: {name: darts}}')
    assert parse_search(read(tmp_path / 'search.yml'), tmp_path).space.name == 'darts'


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({}, 'data must have exactly one of name, npz, folder, torchvision, huggingface, webdataset, python; it has none'),
        ({'name': 'digits', 'npz': {'path': 'a'}}, 'it has name, npz'),
        ({'name': 3}, 'data.name = 3, but it must be text'),
        ({'npz': 'a.npz'}, "data.npz = 'a.npz', but it must be a section with keys"),
        ({'npz': {}}, 'data.npz.path = None, but it must be a path'),
    ],
)
def test_data_settings_made_by_hand(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**settings).load(tmp_path, 8)


def test_paths_in_settings_that_no_system_takes(tmp_path):
    save_npz(tmp_path / 'shapes.npz')
    for kind, path in (('npz', 'a\0b'), ('folder', 'a\0b'), ('npz', 'a' * 5000), ('folder', 'a' * 5000)):
        config = parse_search({**SMALL, 'data': {kind: {'path': path}}}, tmp_path)
        with pytest.raises(DataError) as caught:
            config.data.load(tmp_path, 8)
        assert len(str(caught.value)) <= 1000
