"""Networks without choices in a zoo: which rules take them, how they are ranked, and that they are never fused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.networks import WIDTHS, mobile_like, perceptron, plain
from helpers.tiny import OwnSpace, make_task, run, stripes
from nni.nas.hub.pytorch import ProxylessNAS
from torch import nn

from nni_warmstart import Supernet, SupernetZoo, TransferError, WarmStartDARTS, ZooError, transfer
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.warm_start.compatibility import share_in_common
from nni_warmstart.warm_start.settings import TransferSettings
from nni_warmstart.zoo.ranking import rank
from nni_warmstart.zoo.selection import LEAST, NETWORKS, SourceSelector


def network(name: str = 'plain', seed: int = 0) -> Supernet:
    return Supernet.from_network(plain(seed), name=name, input_shape=(3, 8, 8))


@pytest.fixture(scope='module')
def supernets(tmp_path_factory) -> list[Supernet]:
    """Supernets of the own space, of two datasets."""
    found = []
    for name, task in {'blobs': make_task(), 'stripes': stripes()}.items():
        strategy = WarmStartDARTS()
        run(strategy, tmp_path_factory.mktemp('logs'), space=OwnSpace(task.num_classes), epochs=1, task=task)
        found.append(Supernet.from_strategy(strategy, name=name, dataset=task))
    return found


def filled(path, *entries: Supernet) -> SupernetZoo:
    zoo = SupernetZoo(path / 'zoo')
    for entry in entries:
        zoo.add(entry)
    return zoo


def selector(zoo, **settings) -> SourceSelector:
    task = make_task(n=400, seed=5)
    batches = [(task.train_x[:100].float() / 64 - 2, task.train_y[:100])]
    return SourceSelector(zoo, mutate(OwnSpace(), 'DARTS'), lambda part: batches, TransferSettings(**settings))


def test_the_share_in_common_is_that_of_aligned_layers():
    target, head = mutate(OwnSpace(), 'DARTS'), nn.Linear(6, 4)
    part = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    sources = [Supernet.from_network(each, name='n', input_shape=(3, 8, 8)) for each in (plain(), part, perceptron())]
    whole, some, nothing = share_in_common(sources, target, images=torch.zeros(2, 3, 8, 8))
    assert whole == 1 > some > nothing == 0


def test_a_wrapper_for_several_devices_is_not_part_of_the_network():
    expected, ((found, _),) = network(), selector(None).choose(nn.DataParallel(plain())).sources
    assert (found.name, found.space) == (type(plain()).__name__, expected.space)
    assert found.structure.to_bytes() == expected.structure.to_bytes()
    assert found.tensors.keys() == expected.tensors.keys()


@pytest.mark.slow
def test_blocks_that_the_network_lacks_count_half():
    target = mutate(ProxylessNAS(num_labels=3, base_widths=WIDTHS), 'DARTS')
    deeper = mobile_like(blocks=[[(1, 3)], *([(6, 3)] * 4 for _ in range(5)), [(6, 3)]])
    found = (deeper, mobile_like(), perceptron())
    sources = [Supernet.from_network(each, name='n', input_shape=(3, 64, 64)) for each in found]
    whole, some, nothing = share_in_common(sources, target, images=torch.zeros(2, 3, 64, 64))
    assert whole == 1 > some > LEAST > nothing


def test_nearest_takes_a_network_whose_data_are_known(supernets, tmp_path):
    sketched = network().sketched(make_task())
    assert set(sketched.sketches) == {'pixels', 'random_conv'}
    choice = selector(filled(tmp_path, sketched, supernets[1])).choose('nearest')
    assert [each.name for each, _ in choice.sources] == ['plain']
    assert len(choice.ranking) == 2
    own = network().sketched(make_task(), plain())
    assert own.key in own.sketches


def test_nearest_leaves_out_networks_of_unknown_data(supernets, tmp_path, caplog):
    choice = selector(filled(tmp_path, network(), *supernets)).choose('nearest')
    assert [each.name for each, _ in choice.sources] == ['blobs']
    assert [each.name for each in choice.ranking] == ['blobs', 'stripes']
    assert 'not ranked' not in caplog.text
    only = filled(tmp_path / 'only', network())
    with pytest.raises(ZooError, match=r"source 'nearest': no data are known of plain, .*or take 'auto'"):
        selector(only).choose('nearest')


def test_a_network_does_not_fit_where_half_of_the_space_has_no_partner(tmp_path):
    zoo = filled(tmp_path, Supernet.from_network(perceptron(), name='flat', input_shape=(3, 8, 8)))
    for rule in ('auto', 'nearest'):
        with pytest.raises(ZooError, match='has no entry that fits this model space'):
            selector(zoo).choose(rule)


@pytest.mark.parametrize(
    ('errors', 'order'),
    [
        ({'blobs': 0.2, 'plain': 0.17, 'blobs + stripes': 0.17}, ['blobs', 'plain', 'blobs + stripes']),
        ({'blobs': 0.2, 'plain': 0.1}, ['plain', 'blobs']),
        ({'blobs': 0.2, 'plain': 0.21, 'blobs + stripes': 0.1}, ['blobs + stripes', 'blobs', 'plain']),
        ({'blobs': 0.3, 'plain': 0.2, 'blobs + stripes': 0.0}, ['plain', 'blobs']),  # fused only where the nearest leads
    ],
)
def test_auto_takes_a_network_that_errs_clearly_less(supernets, tmp_path, monkeypatch, errors, order):
    def measured(self, sources):
        name = ' + '.join(each.name for each, _ in sources)
        return SimpleNamespace(name=name, error=errors[name], seconds=0.0, plan=None)

    monkeypatch.setattr(SourceSelector, '_probe', measured)
    choice = selector(filled(tmp_path, network(), *supernets)).choose('auto')
    assert [each.name for each in choice.ranking] == order


def test_auto_tries_the_networks_that_fit_best(tmp_path, monkeypatch):
    tried = []

    def measured(self, sources):
        tried.append(sources[0][0].name)
        return SimpleNamespace(name=tried[-1], error=0.1, seconds=0.0, plan=None)

    monkeypatch.setattr(SourceSelector, '_probe', measured)
    selector(filled(tmp_path, *(network(f'n{index}') for index in range(4)))).choose('auto')
    assert tried == ['n0', 'n1'] and len(tried) == NETWORKS


def test_auto_starts_from_the_only_network(tmp_path):
    strategy = WarmStartDARTS(source='auto', zoo=filled(tmp_path, network()))
    run(strategy, tmp_path, space=OwnSpace(), epochs=1)
    assert strategy.report.source == 'plain' and strategy.report.share_inherited > 0.9


def test_auto_really_maps_a_network_and_applies_its_plan(supernets, tmp_path):
    choice = selector(filled(tmp_path, network(), supernets[0])).choose('auto')
    assert {each.name for each in choice.ranking} == {'plain', 'blobs'}
    target = mutate(OwnSpace(), 'DARTS')
    task = make_task(seed=5)
    report = choice.plan.apply(target, [(task.train_x.float() / 64 - 2, task.train_y)])
    assert report.source == choice.ranking[0].name


def test_joint_takes_no_network(tmp_path):
    facts = {'datasets': {'a': {}, 'b': {}}}
    entry = Supernet.from_network(plain(), name='both', input_shape=(3, 8, 8), history=facts)
    with pytest.raises(ZooError, match='no supernet of several datasets'):
        selector(filled(tmp_path, entry)).choose('joint')


def test_a_network_is_not_fused(supernets, tmp_path):
    zoo = filled(tmp_path, network().sketched(make_task()), *supernets)
    assert {each.name for each, _ in selector(zoo).choose('fused').sources} == {'blobs', 'stripes'}
    for sources in (['plain', 'blobs'], ['blobs', 'plain'], [plain(), 'blobs'], ['python:helpers.networks:plain', 'blobs']):
        with pytest.raises(TransferError, match=r'cannot be fused with other sources: .*; name it alone') as refused:
            run(WarmStartDARTS(source=sources, zoo=zoo), tmp_path, space=OwnSpace(), epochs=1)
        assert '\n' not in str(refused.value)
    only = filled(tmp_path / 'only', network().sketched(make_task()))
    with pytest.raises(
        ZooError, match=r"source 'fused': networks without choices cannot be fused, and there are only plain\."
    ):
        selector(only).choose('fused')
    assert [each.name for each, _ in selector(only).choose('auto').sources] == ['plain']
    with pytest.raises(TransferError, match='cannot be fused'):
        transfer([network(), supernets[0]], mutate(OwnSpace(), 'DARTS'), head='random')


def test_one_network_in_a_list_is_that_network(tmp_path):
    strategy = WarmStartDARTS(source=['python:helpers.networks:plain'])
    run(strategy, tmp_path, space=OwnSpace(), epochs=1)
    assert strategy.report.source == 'plain'


@pytest.mark.parametrize('by', ['logme', 'probe'])
def test_networks_are_ranked_in_the_space_of_the_search(supernets, by, caplog):
    task = make_task(n=96, seed=5)
    blobs = Supernet(**{**vars(supernets[0]), 'name': 'other'})

    def make(entry, classes):
        return mutate(OwnSpace(classes), 'DARTS')

    ranked = rank([network(), blobs], task, by=by, make_target=make)
    assert {each.name for each in ranked} >= {'plain'}
    with pytest.raises(ZooError, match='no entry can be run on these images'):
        rank([network()], task, by=by)
    assert 'Entry plain is not ranked: a network without choices has no space of its own' in caplog.text
