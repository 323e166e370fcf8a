"""Choosing a source: rankings, their controls, and 'nearest' in a search."""

from __future__ import annotations

import logging

import pytest
import torch
from helpers.tiny import OwnSpace, make_task, run, small_space, stripes

from nni_warmstart import DataError, DatasetSketch, Supernet, SupernetZoo, WarmStartDARTS, ZooError
from nni_warmstart.distance.otdd import METHODS
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.warm_start.compatibility import share_in_common
from nni_warmstart.zoo import ranking

STRIPES, BLOBS = 'stripes', 'blobs'


def test_features_are_ranked_as_they_are(tmp_path):
    x, y = torch.randn(60, 20), torch.arange(60) % 3
    model = mutate(small_space(), 'DARTS')
    zoo = SupernetZoo(tmp_path)
    for name, shift in (('far', 5.0), ('same', 0.0)):
        supernet = Supernet.from_model(model, name=name)
        zoo.add(supernet.with_sketches([DatasetSketch.from_dataset((x + shift, y)).compact()]))
    assert [each.name for each in zoo.rank((x, y))] == ['same', 'far']


@pytest.fixture(scope='module')
def zoo(tmp_path_factory) -> SupernetZoo:
    """Two supernets, each trained for an epoch on its own task."""
    folder = tmp_path_factory.mktemp('zoo')
    zoo = SupernetZoo(folder / 'entries')
    for task in (make_task(name=BLOBS), stripes()):
        torch.manual_seed(0)
        strategy = run(WarmStartDARTS(), folder, epochs=1, task=task)
        zoo.add(Supernet.from_strategy(strategy, name=task.name, dataset=task))
    return zoo


@pytest.mark.parametrize('by', ['otdd', 'sliced'])
def test_the_nearest_dataset_ranks_first(zoo, by):
    ranked = zoo.rank(make_task(seed=5), by=by)
    assert [entry.name for entry in ranked] == [BLOBS, STRIPES]
    assert ranked[0].distance < 0.7 * ranked[1].distance
    assert zoo.rank(stripes(seed=5), by=by)[0].name == STRIPES


def test_a_sketch_is_enough(zoo):
    sketch = DatasetSketch.from_dataset(make_task(seed=5))
    assert [r.name for r in zoo.rank(sketch)] == [BLOBS, STRIPES]
    pixels = DatasetSketch.from_dataset(make_task(seed=5), embedding='pixels')
    assert [r.name for r in zoo.rank(pixels)] == [BLOBS, STRIPES]  # compared in the sketch's own embedding
    for by in ('logme', 'probe'):
        with pytest.raises(DataError, match='a sketch has none'):
            zoo.rank(sketch, by=by)


@pytest.mark.parametrize('by', list(ranking.RANKINGS))
def test_every_ranking_orders_all_entries(zoo, by):
    before = torch.random.get_rng_state()
    ranked = zoo.rank(make_task(seed=5), by=by)
    assert sorted(entry.name for entry in ranked) == [BLOBS, STRIPES]
    assert [entry.distance for entry in ranked] == sorted(entry.distance for entry in ranked)
    assert [entry[:2] for entry in zoo.rank(make_task(seed=5), by=by)] == [entry[:2] for entry in ranked]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize('by', ['logme', 'probe'])
def test_of_very_many_classes_a_part_is_shown_to_the_candidates(zoo, by):
    """Of fewer classes, all images are."""
    y = torch.arange(1200) % 300
    x = torch.randint(0, 255, (1200, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    part = {'logme': ranking.SCORED, 'probe': ranking.PROBED}[by]
    x_part, y_part, is_part = ranking._shown((x, y), 3, 8, part)
    assert is_part and len(x_part) == min(part[1], 4 * part[0])
    assert y_part.unique().tolist() == list(range(part[0]))
    assert sorted(entry.name for entry in zoo.rank((x, y), by=by)) == [BLOBS, STRIPES]
    x_all, y_all, is_part = ranking._shown((x, y % 256), 3, 8, part)
    assert not is_part and len(x_all) == 1200 and y_all.max() == 255


def test_static_and_random_ignore_the_target(zoo):
    for by in ('static', 'random'):
        assert [r[:2] for r in zoo.rank(make_task(), by=by)] == [r[:2] for r in zoo.rank(stripes(), by=by)]
    orders = {tuple(r.name for r in zoo.rank(stripes(), by='random', seed=seed)) for seed in range(8)}
    assert len(orders) == 2


@pytest.mark.slow
def test_probe_ranks_by_accuracy_after_halving(zoo):
    """A candidate whose weights are destroyed loses to the one that was trained."""
    trained = zoo[BLOBS]
    ruined = {k: torch.zeros_like(t) if 'weight' in k or 'bias' in k else t for k, t in trained.tensors.items()}
    broken = Supernet(**{**vars(trained), 'name': 'broken', 'tensors': ruined})
    ranked = ranking.rank([broken, trained], make_task(seed=5), by='probe')
    assert [entry.name for entry in ranked] == [BLOBS, 'broken']
    three = ranking.rank([broken, trained.renamed('second'), trained], make_task(seed=5), by='probe')
    assert three[-1].name == 'broken' and three[-1].distance >= 1  # it did not go on to the second round


@pytest.mark.parametrize('by', ['logme', 'probe'])
def test_a_candidate_that_cannot_run_is_left_out(zoo, by, caplog):
    good = zoo[BLOBS]
    own = Supernet(**{**vars(good), 'name': 'own', 'space': {'class': 'somewhere:Space'}})
    diverged = {k: t * float('nan') if t.is_floating_point() else t for k, t in good.tensors.items()}
    lost = Supernet(**{**vars(good), 'name': 'lost', 'tensors': diverged})
    with caplog.at_level(logging.WARNING):
        ranked = ranking.rank([own, lost, good], make_task(), by=by)
    assert ranked[0].name == BLOBS and 'own' not in [entry.name for entry in ranked]
    assert 'Entry own is not ranked' in caplog.text
    with pytest.raises(ZooError, match='no entry can be run on these images'):
        ranking.rank([own], make_task(), by=by)


def test_pairwise_distances(zoo):
    names, distances = ranking.pairwise(list(zoo.entries()), make_task(seed=5))
    assert names == [BLOBS, STRIPES, BLOBS]
    assert torch.equal(distances, distances.T)
    assert distances[0, 2] < distances[0, 1]


def test_entries_without_a_sketch_are_named(zoo, caplog):
    entries = list(zoo.entries())
    bare = Supernet(**{**vars(entries[0]), 'name': 'bare', 'sketches': {}})
    with caplog.at_level(logging.WARNING):
        assert len(ranking.rank([*entries, bare], make_task())) == 2
    assert 'bare' in caplog.text
    with pytest.raises(ZooError, match='no entry has a sketch'):
        ranking.rank([bare], make_task())


def test_empty_and_single_zoos(tmp_path, zoo):
    with pytest.raises(ZooError, match='has no readable entry to rank'):
        SupernetZoo(tmp_path / 'none').rank(make_task())
    single = SupernetZoo(tmp_path / 'one')
    single.add(zoo[BLOBS])
    for by in ranking.RANKINGS:
        assert [entry.name for entry in single.rank(make_task(), by=by)] == [BLOBS]


def test_distances_that_rank_are_rankings():
    ranked = [method.ranking for method in METHODS.values() if method.ranking]
    assert list(ranking.RANKINGS)[: len(ranked)] == ranked == ['otdd', 'sliced']


def test_unknown_ranking(zoo):
    with pytest.raises(ZooError, match="by 'best' is unknown; choose one of otdd"):
        zoo.rank(make_task(), by='best')


def test_search_from_the_nearest(zoo, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        strategy = run(WarmStartDARTS(source='nearest', zoo=zoo), tmp_path, epochs=1, task=make_task(seed=5))
    assert strategy.report.source == BLOBS
    assert [name for name, _ in strategy.report.ranking] == [BLOBS, STRIPES]
    assert strategy.report.seconds['choosing'] > 0
    assert 'the nearest of 2' in caplog.text
    assert strategy.report.to_dict()['ranking'][0][0] == BLOBS


@pytest.mark.slow
def test_nearest_takes_only_what_fits(zoo, tmp_path):
    with pytest.raises(ZooError, match=r"source 'nearest': zoo .* has no entry that fits this model space .*; it has blobs"):
        run(WarmStartDARTS(source='nearest', zoo=zoo), tmp_path, space=OwnSpace())
    other = SupernetZoo(tmp_path / 'zoo')
    other.add(Supernet.from_model(mutate(OwnSpace(), 'DARTS'), name='own', dataset=make_task()))
    other.add(zoo[STRIPES])
    strategy = run(WarmStartDARTS(source='nearest', zoo=other), tmp_path, epochs=1, space=small_space())
    assert strategy.report.source == STRIPES


def test_nearest_takes_only_what_the_head_can_use(zoo, tmp_path):
    bare = SupernetZoo(tmp_path / 'zoo')
    nearest = zoo[BLOBS]
    bare.add(Supernet(**{**vars(nearest), 'sketches': {k: v for k, v in nearest.sketches.items() if k != nearest.key}}))
    bare.add(zoo[STRIPES])
    for head, chosen in (('ridge', BLOBS), ('ot', STRIPES)):
        strategy = run(WarmStartDARTS(source='nearest', zoo=bare, head=head), tmp_path, epochs=1, task=make_task(seed=5))
        assert strategy.report.source == chosen
    assert share_in_common([zoo[STRIPES]], mutate(small_space(2), 'DARTS'), 'copy') == [1.0]
    assert share_in_common([zoo[STRIPES]], mutate(small_space(3), 'DARTS'), 'copy') == [0.0]


def test_a_remembered_search_can_be_ranked(zoo, tmp_path):
    run(WarmStartDARTS(save_to=tmp_path / 'mine'), tmp_path, epochs=1)
    assert [r.name for r in SupernetZoo(tmp_path / 'mine').rank(make_task())] == ['nasbench201-1']


def test_a_probe_needs_two_images_of_a_class(zoo, caplog):
    with pytest.raises(ZooError, match='the warnings above say why'):
        zoo.rank((torch.rand(2, 3, 8, 8), torch.tensor([0, 1])), by='probe')
    assert 'have one of each class, and the probe needs one more' in caplog.text
