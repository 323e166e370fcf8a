"""``nni-warmstart zoo import``, and what the other commands show of a network."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from helpers.commands import search
from helpers.networks import plain
from helpers.tiny import SMALL
from safetensors.torch import save_file

from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import main

WORD = 'python:helpers.networks:plain'

OWN = {**SMALL, 'space': {'name': 'helpers.tiny:OwnSpace'}}


def imported(folder, *arguments: str) -> int:
    return main(['zoo', 'import', *arguments, '--zoo', str(folder / 'zoo')])


def test_a_network_is_imported_listed_and_shown(folder, capsys):
    save_file(plain(1).state_dict(), folder / 'w.safetensors')
    arguments = ('--name', 'mine', '--image-size', '8', '--licence', 'MIT')
    assert imported(folder, f'{WORD}@{folder}/w.safetensors', *arguments) == 0
    captured = capsys.readouterr()
    assert ''.join(captured.out.split()) == f'Added{folder / "zoo" / "mine.safetensors"}' and captured.err == ''
    entry = SupernetZoo(folder / 'zoo')['mine']
    assert torch.equal(entry.tensors['9.weight'], plain(1).state_dict()['9.weight']) and entry.licence == 'MIT'
    assert main(['zoo', 'list', '--zoo', str(folder / 'zoo')]) == 0
    assert 'mine' in capsys.readouterr().out
    assert main(['zoo', 'show', 'mine', '--zoo', str(folder / 'zoo')]) == 0
    shown = capsys.readouterr().out
    for fact in ('torch.nn.modules.container:Sequential', 'none; a warm start maps', '8 x 8 pixels, 3 channels', 'MIT',
                 'helpers.networks:plain@w.safetensors'):  # fmt: skip
        assert fact in shown
    assert 'probability' not in shown
    assert main(['zoo', 'show', 'mine', '--zoo', str(folder / 'zoo'), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['strategy'] == 'network'


def test_a_name_that_is_taken_is_kept(folder, capsys):
    assert imported(folder, WORD, '--image-size', '8') == 0
    assert 'No licence is published with' in capsys.readouterr().err
    assert imported(folder, WORD, '--image-size', '8') == 2
    assert "has an entry 'plain' already" in capsys.readouterr().err
    assert imported(folder, WORD, '--image-size', '8', '--overwrite') == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((WORD,), 'give their size in pixels (input_shape=, or --image-size of zoo import)'),
        ((WORD, '--image-size', '0'), '--image-size 0 must be from 1 to 4096'),
        ((WORD, '--image-size', '8', '--name', 'a/b'), "zoo entry name 'a/b' may hold"),
        (('torchvision:resnet19',), "torchvision has no classifier 'resnet19'. Did you mean resnet1"),
        (('resnet18',), 'Did you mean torchvision:resnet18?'),
        (('w.pth',), "safetensors.torch.save_file(torch.load('w.pth', weights_only=True), 'w.safetensors')"),
        (('w.pt2',), "torch.export.load('w.pt2').state_dict"),
        (('w.safetensors',), 'has no card); weights of a network go with the function that builds it'),
        (('entry.safetensors',), "entry.safetensors is a supernet ('n') already; nni-warmstart zoo add copies it."),
        (('torchvision:resnet18',), 'are not on the disk'),
    ],
)
def test_what_cannot_be_imported_is_one_line(folder, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv('TORCH_HOME', str(folder))
    for name in ('w.pth', 'w.pt2'):
        torch.save(plain().state_dict(), name)
    save_file(plain().state_dict(), 'w.safetensors')
    Supernet.from_network(plain(), name='n', input_shape=(3, 8, 8)).save('entry.safetensors')
    assert imported(folder, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count('\n') == 1
    assert not SupernetZoo(folder / 'zoo').names()


@pytest.mark.parametrize('source', [f'{WORD}@w.safetensors', 'mine', 'auto'])
def test_a_search_starts_from_a_network_and_goes_on(folder, source):
    (folder / 'search.yml').write_text(yaml.safe_dump(OWN))
    save_file(plain(1).state_dict(), folder / 'w.safetensors')
    assert imported(folder, f'{WORD}@{folder}/w.safetensors', '--name', 'mine', '--image-size', '8') == 0
    strategy = f'strategy={{name: WarmStartDARTS, source: "{source}", zoo: zoo}}'
    assert search(folder, '--set', strategy) == 0
    warm_start = json.loads((folder / 'out' / 'result.json').read_text())['warm_start']
    assert warm_start['source'] in ('plain', 'mine') and warm_start['share_inherited'] > 0.9
    assert search(folder, '--set', strategy, '--resume') == 0


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ('source: auto, download: maybe', "strategy.download = 'maybe', but it must be true or false."),
        ('source: auto, download: 1', 'strategy.download = 1, but it must be true or false.'),
        ('source: "torchvision:resnet19"', "torchvision has no classifier 'resnet19'"),
        ('source: "torchvision:resnet18"', 'there is no'),
        ('source: "torchvison:resnet18"', 'Did you mean torchvision:resnet18?'),
        ('source: w.pth', 'is a pickle, which is never loaded'),
        (f'source: ["{WORD}", auto], zoo: zoo', 'plain, mine cannot be fused with other sources'),
        (f'source: "{WORD}:more"', 'cannot be imported'),
        ('source: "python:helpers.networks:mixing"', "module '1' (Mixer) of supernet 'mixing' cannot be mapped"),
        ('source: "python:helpers.networks:of_nine_pixels"', 'does not take images of shape (3, 32, 32)'),
        ('source: "python:helpers.networks:unclassified"', "network 'unclassified' cannot be a source: no linear layer"),
        (
            'source: "python:helpers.networks:perceptron"',
            'layers in common; choose a network of blocks such as the target has',
        ),
    ],
)
def test_wrong_networks_of_a_search_are_one_line(folder, settings, message, monkeypatch, capsys):
    monkeypatch.setenv('TORCH_HOME', str(folder))
    (folder / 'search.yml').write_text(yaml.safe_dump(OWN))
    torch.save(plain().state_dict(), folder / 'w.pth')
    assert imported(folder, WORD, '--name', 'mine', '--image-size', '8') == 0
    capsys.readouterr()
    assert search(folder, '--set', f'strategy={{name: WarmStartDARTS, {settings}}}') == 2
    said = capsys.readouterr().err
    assert message in said and said.count('\n') == 1


def test_networks_are_ranked_for_a_search(folder, capsys, caplog):
    (folder / 'search.yml').write_text(yaml.safe_dump(OWN))
    assert imported(folder, WORD, '--image-size', '224', '--licence', 'MIT') == 0
    command = ['zoo', 'rank', '--zoo', str(folder / 'zoo'), '--by', 'logme']
    assert main([*command, '--config', str(folder / 'search.yml')]) == 0
    assert 'plain' in capsys.readouterr().out
    assert main([*command, '--data', str(folder / 'shapes.npz')]) == 2
    assert 'Entry plain is not ranked: a network without choices has no space of its own' in caplog.text


def test_a_network_that_can_only_be_taken_in_part_is_imported_with_a_warning(folder, capsys):
    assert imported(folder, 'python:helpers.networks:mixing', '--image-size', '8', '--licence', 'MIT') == 0
    assert 'can be mapped in part only' in (said := capsys.readouterr().err) and said.count('\n') == 1
