"""Entries that nobody would write by accident, through the commands: no traceback, no gigabytes, no hang, none lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.hostile import CASES, Entry, special_files
from helpers.measured import Measured, measured
from helpers.tiny import SMALL, make_task, save_npz

from nni_warmstart import Supernet
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.nni_adapter.mutation import mutate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('hostile')]

LARGEST, LONGEST = 500, 10
"""Megabytes above the imports, and seconds, that a command may take."""

HEAVY = ('huge-tensor',)
"""Sound but for their size, so that a command that reads all entries reads them."""

STEERS = re.compile(r'\x1b\]|\x1b\[31m|\x9b|\x07|\x08|\u202e|\u200b|owned\n')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A search with its data, and a sound entry of its space, of two datasets, so that every rule could take it."""
    folder = tmp_path_factory.mktemp('hostile')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump(SMALL))
    model = mutate(create('nasbench201', {'width': 4, 'depth': 1, 'image_size': 8}, 3), 'DARTS')
    history = {'datasets': {'a': {'licence': 'MIT'}, 'b': {}}}
    supernet = Supernet.from_model(model, name='sound', dataset=make_task(), class_names=['a', 'b', 'c'], history=history)
    supernet.save(folder / 'sound.safetensors')
    return folder


@pytest.fixture(scope='module')
def entry(folder) -> Entry:
    return Entry((folder / 'sound.safetensors').read_bytes())


def check(result: Measured, *statuses: int) -> None:
    assert result.status in statuses, result
    assert 'Traceback' not in result.output, result.output
    assert not STEERS.search(result.output), result.output
    assert result.megabytes < LARGEST, result
    assert result.seconds < LONGEST, result


def commands(folder: Path, zoo: Path, name: str) -> dict[str, list[str]]:
    source = json.dumps({'name': 'WarmStartDARTS', 'source': str(zoo / f'{name}.safetensors')})
    search = ['search', '--config', str(folder / 'search.yml'), '--set', 'evaluator.max_epochs=1']
    return {
        'list': ['zoo', 'list', '--zoo', str(zoo)],
        'show': ['zoo', 'show', name, '--zoo', str(zoo)],
        'rank': ['zoo', 'rank', '--zoo', str(zoo), '--data', str(folder / 'shapes.npz')],
        'doctor': ['doctor', '--zoo', str(zoo)],
        'add': ['zoo', 'add', str(zoo / f'{name}.safetensors'), '--zoo', str(folder / 'added'), '--name', name],
        'search': [*search, '--out', str(zoo / 'out'), '--set', f'strategy={source}'],
    }


def zoo_of(folder: Path, name: str) -> Path:
    zoo = folder / f'zoo-{name}'
    zoo.mkdir()
    shutil.copy(folder / 'sound.safetensors', zoo / 'sound.safetensors')
    return zoo


def try_all(folder: Path, zoo: Path, name: str) -> None:
    """Every command: those about all entries do without it, those about it say in one line what is wrong, or work."""
    before = sorted(os.listdir(zoo))
    results = {}
    for action, command in commands(folder, zoo, name).items():
        result = results[action] = measured(command, folder / 'output.txt')
        check(result, *{'list': [0], 'rank': [0], 'doctor': [0, 1]}.get(action, [0, 2]))
        if result.status == 2:
            errors = [line for line in result.output.splitlines() if line.startswith('error: ')]
            assert len(errors) == 1 and result.output.endswith(errors[0] + '\n'), result.output
        if action in ('list', 'rank'):
            assert 'sound' in result.output
        shutil.rmtree(zoo / 'out', ignore_errors=True)
    if results['show'].status:  # one that diverged is shown, but not added
        assert results['add'].status == 2
        assert 'Skipping zoo entry' in results['rank'].output
        assert results['doctor'].status == 1
    assert sorted(os.listdir(zoo)) == before


@pytest.mark.parametrize('name', CASES)
def test_hostile_entries(folder, entry, name):
    zoo = zoo_of(folder, name)
    (zoo / f'{name}.safetensors').write_bytes(CASES[name](entry.copy()))
    try_all(folder, zoo, name)
    shutil.rmtree(zoo)


@pytest.mark.parametrize('name', [name for name in CASES if name.startswith(('space-', 'images-'))])
def test_spaces_that_have_to_be_made(folder, entry, name):
    """For a target of another width, or to be run on images, and without a structure in the file."""
    zoo = zoo_of(folder, name)
    (zoo / f'{name}.safetensors').write_bytes(CASES[name](entry.copy()))
    (folder / 'wide.yml').write_text(yaml.safe_dump({**SMALL, 'space': {**SMALL['space'], 'width': 8}}))
    strategy = json.dumps({'name': 'WarmStartDARTS', 'source': 'nearest', 'zoo': str(zoo)})
    search = ['search', '--config', str(folder / 'wide.yml'), '--set', 'evaluator.max_epochs=1', '--out', str(zoo / 'out')]
    rank = ['zoo', 'rank', '--zoo', str(zoo), '--data', str(folder / 'shapes.npz'), '--by']
    for command, statuses in (
        ([*search, '--set', f'strategy={strategy}'], [0]),
        (['zoo', 'show', name, '--zoo', str(zoo), '--onto', str(folder / 'wide.yml')], [0, 2]),
        ([*rank, 'logme'], [0]),
        ([*rank, 'probe'], [0]),
    ):
        check(measured(command, folder / 'output.txt'), *statuses)
    shutil.rmtree(zoo)


def test_what_is_no_file(folder):
    zoo = zoo_of(folder, 'special')
    for path in list(special_files(zoo)):
        try_all(folder, zoo, path.name.removesuffix('.safetensors'))


@pytest.mark.parametrize('rule', ['auto', 'nearest', 'fused', 'joint'])
def test_rules_do_without_all_of_them(folder, entry, rule):
    zoo = zoo_of(folder, rule)
    for name in CASES.keys() - {*HEAVY}:
        (zoo / f'{name}.safetensors').write_bytes(CASES[name](entry.copy()))
    list(special_files(zoo))
    strategy = json.dumps({'name': 'WarmStartDARTS', 'source': rule, 'zoo': str(zoo)})
    command = ['search', '--config', str(folder / 'search.yml'), '--set', 'evaluator.max_epochs=1']
    result = measured([*command, '--out', str(zoo / 'out'), '--set', f'strategy={strategy}'], folder / 'output.txt', 120)
    assert result.status == 0 and 'Traceback' not in result.output, result.output
    assert not STEERS.search(result.output)
    assert result.megabytes < LARGEST
    assert len(re.findall('Skipping zoo entry', result.output)) > 40
