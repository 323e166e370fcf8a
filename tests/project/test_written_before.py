"""Files that earlier versions wrote are read, and their unfinished runs go on to the same end.

The archive holds what commit 387da87 left of a search, a retraining and a pretraining of two epochs each after the first
one, the zoo that they used, and, in expected.json and zoo2, what that commit made of the second epoch.
"""

from __future__ import annotations

import json
import tarfile

import pytest
import torch
from helpers.tiny import ROOT

from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import main
from nni_warmstart.supernets.network import Network

ARCHIVE = ROOT / 'tests' / 'project' / 'written_before' / '387da87.tar.xz'


@pytest.fixture
def before(tmp_path, monkeypatch):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter='data')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_supernets_zoos_and_networks(before):
    zoo = SupernetZoo(before / 'zoo')
    assert zoo.names() == ['both', 'first']
    assert zoo['both'].history['datasets'].keys() == {'one', 'two'}
    for entry in zoo.entries():
        assert entry.structure is not None
        assert {'pixels', 'random_conv', entry.key} == entry.sketches.keys()
        rebuilt = entry.build().state_dict()
        assert all(torch.equal(rebuilt[name], tensor) for name, tensor in entry.state_dict().items())
    supernet = Supernet.load(before / 'search' / 'supernet.safetensors')
    assert supernet.class_names == ['a', 'b', 'c']
    network = Network.load(before / 'retrain' / 'network.safetensors')
    assert network.build()(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_a_search_and_a_retraining_go_on(before):
    expected = json.loads((before / 'expected.json').read_text())
    assert main(['search', '--config', 'search.yml', '--out', 'search', '--resume']) == 0
    found = json.loads((before / 'search' / 'result.json').read_text())
    kept = ('default', 'train_loss', 'alpha_entropy', 'val_loss')
    assert [[epoch[key] for key in kept] for epoch in found['curve']] == [
        pytest.approx([epoch[key] for key in kept], rel=1e-5) for epoch in expected['search']['curve']
    ]
    assert found['final']['test_accuracy'] == pytest.approx(expected['search']['final']['test_accuracy'])
    assert found['warm_start']['source'] == 'first'

    assert main(['retrain', '--config', 'search.yml', '--run', 'whole', '--out', 'retrain', '--resume']) == 0
    found = json.loads((before / 'retrain' / 'result.json').read_text())
    assert found['curve'] == pytest.approx(expected['retrain']['curve'])


def test_a_pretraining_goes_on(before):
    command = ['pretrain', '--config', 'pretrain.yml', '--name', 'both', '--zoo', 'zoo', '--out', 'pretrain', '--resume']
    assert main(command) == 0
    found, expected = (SupernetZoo(before / zoo)['both'] for zoo in ('zoo', 'zoo2'))
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_report_of_runs(before):
    assert main(['report', 'search', '--out', 'report.html']) == 0
    assert 'Unfinished' not in (before / 'report.html').read_text()
