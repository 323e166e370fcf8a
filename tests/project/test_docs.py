"""The documentation is true: code, commands, settings, links and images of README.md and docs/*.md."""

from __future__ import annotations

import atexit
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from helpers.tiny import ROOT
from nni.experiment import ExperimentConfig
from nni.nas.experiment import NasExperiment

import nni_warmstart
from nni_warmstart.cli.main import main, make_parser
from nni_warmstart.runs.config import parse_pretrain, parse_search

DOCS = ROOT / 'docs'
README = ROOT / 'README.md'
PAGES = sorted(DOCS.glob('*.md'))
RUN_COMMANDS = {'own-data.md', 'own-space.md'}
"""Tutorials, whose commands are run as well; those of the other pages are only parsed."""

BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FILE = re.compile(r'# (\S+\.(?:yml|py))\n')
LARGEST = 150_000
"""Bytes of an image."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of every block of code, in their order."""
    return BLOCK.findall(page.read_text())


def hurried(text: str) -> str:
    """The same with one epoch."""
    return re.sub(r'(max_epochs[:=]\s*)\d+', r'\g<1>1', text)


def commands(block: str) -> list[list[str]]:
    """Words of the commands of ours in a block of shell."""
    lines = block.replace('\\\n', ' ').splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith('nni-warmstart ')]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work and to import from, left without a trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))  # NNI keeps experiments there
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    modules, level, running = set(sys.modules), logging.getLogger('nni').level, []
    register = atexit.register

    def registered(function, *arguments, **settings):
        if not isinstance(getattr(function, '__self__', None), NasExperiment):
            return register(function, *arguments, **settings)
        running.append(function)  # NNI would stop it at the very end, when the folder is gone
        return function

    monkeypatch.setattr(atexit, 'register', registered)
    logging.getLogger('nni').setLevel(logging.ERROR)
    yield tmp_path
    for stop in running:
        stop()
    logging.getLogger('nni').setLevel(level)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], '__file__', '')).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_code_runs(page, folder):
    """A page's Python in one namespace, in an empty folder; blocks that begin with a file's name are that file."""
    names = {'__name__': page.stem}
    for language, text in blocks(page):
        name = FILE.match(text)
        if name:
            (folder / name[1]).write_text(hurried(text))
        elif language == 'python':
            exec(compile(hurried(text), page.name, 'exec'), names)
        elif language == 'sh' and page.name in RUN_COMMANDS:
            for words in commands(hurried(text)):
                assert main(words) == 0, words


@pytest.mark.parametrize('page', [*PAGES, README], ids=lambda page: page.name)
def test_commands_and_settings_are_known(page):
    for language, text in blocks(page):
        if language == 'sh':
            for words in commands(text):
                make_parser().parse_args(words)
        elif language == 'yaml':
            document = yaml.safe_load(text)
            if 'trialCommand' in document:
                ExperimentConfig(**document)
            elif isinstance(document.get('data'), list):
                parse_pretrain(document, DOCS)
            else:
                parse_search(document, DOCS)


@pytest.mark.parametrize('page', [*PAGES, README], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = BLOCK.sub('', page.read_text())
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    titles = re.findall(r'^#+ (.*)$', BLOCK.sub('', text), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def test_pictures_are_small():
    for picture in DOCS.glob('*.png'):
        assert picture.stat().st_size < LARGEST, picture


def test_every_page_is_linked_from_the_readme():
    text = README.read_text()
    assert [page.name for page in PAGES if f'docs/{page.name}' not in text] == []


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


def test_the_readme_shows_lines_of_the_example():
    (code,) = (text for language, text in blocks(README) if language == 'python')
    assert code in (ROOT / 'examples' / 'plug_in.py').read_text()


def test_the_two_commands_of_the_readme_are_targets_of_make():
    shown = re.findall(r'^make (\w+)', README.read_text(), re.MULTILINE)
    assert shown == ['demo', 'test']
    assert all(re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), re.MULTILINE) for target in shown)


def test_the_reference_has_every_public_name():
    named = re.findall(r'^::: nni_warmstart\.(\w+)$', (DOCS / 'api.md').read_text(), re.MULTILINE)
    assert sorted(named) == sorted(nni_warmstart.__all__)
