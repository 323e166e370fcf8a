"""A new head, distance, source of data, strategy or command is made in two places: its own, and one line of a registry."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
import torch
import yaml
from helpers.tiny import SMALL, batches, target

from nni_warmstart import ConfigError, transfer
from nni_warmstart.cli import main as cli_main
from nni_warmstart.runs.config import parse_search
from nni_warmstart.warm_start.heads.base import Head, LinearHead
from nni_warmstart.warm_start.heads.registry import HEADS


def zeros(data) -> LinearHead:
    return LinearHead(torch.zeros(data.n_classes, data.features.shape[1]), torch.zeros(data.n_classes))


def test_a_head(monkeypatch, source, tmp_path):
    monkeypatch.setitem(HEADS, 'zeros', Head(fit=zeros))
    model = target(3)
    report = transfer(source, model, head='zeros', data=batches(3))
    assert not model.classifier.weight.any()
    assert {origin.how for origin in report.origins if origin.target.startswith('classifier')} == {'fitted'}
    strategy = {'name': 'WarmStartDARTS', 'head': 'zeros'}
    assert parse_search({**SMALL, 'strategy': strategy}, tmp_path).strategy.arguments['head'] == 'zeros'
    with pytest.raises(ConfigError, match=r'choose one of .*, zeros\.'):
        parse_search({**SMALL, 'strategy': {**strategy, 'head': 'ones'}}, tmp_path)


def test_a_command(monkeypatch, capsys):
    module = types.ModuleType('nni_warmstart.cli.hello')
    module.HELP, module.DESCRIPTION = 'say hello', 'Say hello to somebody.'
    module.add_arguments = lambda parser: parser.add_argument('name')
    module.run = lambda arguments: print(f'hello {arguments.name}')
    monkeypatch.setitem(sys.modules, 'nni_warmstart.cli.hello', module)
    monkeypatch.setattr(sys.modules['nni_warmstart.cli.main'], 'COMMANDS', ('spaces', 'hello'))
    assert cli_main(['hello', 'world']) == 0
    with pytest.raises(SystemExit):
        cli_main(['--help'])
    shown = capsys.readouterr().out
    assert shown.startswith('hello world\n')
    assert 'say hello' in shown


SCRIPT = """
import sys
import numpy as np
import torch
from nni_warmstart.data import sources
from nni_warmstart.data.source import PATH, Setting, Source
from nni_warmstart.data.task import checked_task
from nni_warmstart.distance import otdd

def noise(settings, image_size):
    generator = torch.Generator().manual_seed(settings['seed'])
    y = torch.arange(24) % 3
    x = torch.randint(0, 255, (24, 3, image_size, image_size), generator=generator, dtype=torch.uint8)
    return checked_task('noise', x, y, x[:0], y[:0], ['a', 'b', 'c'])

def sevens(a, b, *, reg, projections, seed):
    return otdd.DatasetDistance(7.0, torch.eye(1), None, 0.0, True, 0.0, 'seven', 0.0)

sources.SOURCES['noise'] = Source({'seed': Setting(int, 0)}, noise, lambda settings: 'noise')  # the two lines
otdd.METHODS['seven'] = otdd.Method(sevens, 'seven', 'always seven')

from nni_warmstart.cli import main
command = ['--config', 'search.yml', '--set', 'data={noise: {seed: 3}}']
assert main(['search', *command, '--out', 'out']) == 0
assert main(['zoo', 'rank', '--by', 'seven', *command]) == 0
assert main(['search', '--config', 'search.yml', '--set', 'data={noise: {sed: 3}}', '--out', 'other']) == 2
assert main(['report', 'out']) == 0
"""


@pytest.mark.slow
def test_a_source_of_data_and_a_distance(folder):
    (folder / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': {'max_epochs': 1, 'batch_size': 4}}))
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'on noise' in done.stdout
    assert 'by seven' in done.stdout
    assert 'error: key data.noise.sed is unknown; did you mean seed?' in done.stderr
    assert 'noise' in (folder / 'report.html').read_text()
