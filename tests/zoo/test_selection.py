"""What ``source=`` stands for: 'joint', 'auto', and the entries that fit best."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import Attention, OwnSpace, make_task, run, small_space, stripes
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import NasBench201
from nni.nas.space import RawFormatModelSpace

from nni_warmstart import JointClassification, Supernet, SupernetZoo, TransferError, WarmStartDARTS, ZooError, transfer
from nni_warmstart.data import split
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import DartsSpace
from nni_warmstart.warm_start import inherit
from nni_warmstart.warm_start.settings import TransferSettings
from nni_warmstart.zoo import selection
from nni_warmstart.zoo.probe import Probe, successive_halving
from nni_warmstart.zoo.selection import SourceSelector


@pytest.fixture(scope='module')
def zoo(tmp_path_factory) -> SupernetZoo:
    """Two supernets of one dataset each, and a joint one of both."""
    folder = tmp_path_factory.mktemp('zoo')
    zoo = SupernetZoo(folder / 'zoo')
    tasks = {'blobs': make_task(), 'stripes': stripes()}
    for name, task in tasks.items():
        strategy = run(WarmStartDARTS(), folder / 'logs', epochs=4, task=task)
        zoo.add(Supernet.from_strategy(strategy, name=name, dataset=task))
    evaluator = JointClassification(tasks, make_trainer(4, folder / 'logs', progress=False), batch_size=8)
    WarmStartDARTS(save_to=zoo)(RawFormatModelSpace(small_space(5), evaluator), SequentialExecutionEngine())
    assert zoo.names() == ['blobs', 'nasbench201-1', 'stripes']
    return zoo


JOINT = 'nasbench201-1'
FUSED = f'blobs + {JOINT}'


def test_joint_takes_the_supernet_of_most_datasets(zoo, tmp_path):
    strategy = run(WarmStartDARTS(source='joint', zoo=zoo), tmp_path, epochs=1, task=make_task(seed=5))
    assert strategy.report.source == JOINT
    zoo_of_one = SupernetZoo(tmp_path / 'zoo')
    zoo_of_one.add(zoo['blobs'])
    with pytest.raises(ZooError, match=r"source 'joint': zoo .* has no supernet of several datasets that fits"):
        run(WarmStartDARTS(source='joint', zoo=zoo_of_one), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(('width', 'taken'), [(4, 'z'), (6, 'a')])
def test_joint_prefers_the_shape_of_the_target(zoo, tmp_path, width, taken):
    wider = NasBench201(stem_out_channels=6, num_modules_per_stack=1, num_labels=3)
    both = SupernetZoo(tmp_path / 'zoo')
    both.add(zoo[JOINT].renamed('z'))
    joint = JointClassification({'a': make_task(), 'b': stripes(), 'c': make_task(seed=3)}, epochs=1, batch_size=8)
    strategy = WarmStartDARTS(save_to=tmp_path / 'made')
    strategy(RawFormatModelSpace(wider, joint), SequentialExecutionEngine())
    both.add(SupernetZoo(tmp_path / 'made')['nasbench201-1'].renamed('a'))
    space = NasBench201(stem_out_channels=width, num_modules_per_stack=1, num_labels=3)
    strategy = run(WarmStartDARTS(source='joint', zoo=both), tmp_path, epochs=1, space=space, task=make_task(seed=5))
    assert strategy.report.source == taken


@pytest.mark.slow
def test_of_the_same_data_the_shape_of_the_target_goes_first(zoo, tmp_path):
    tasks = {'blobs': make_task(), 'stripes': stripes()}
    joint = JointClassification(tasks, epochs=1, batch_size=8)
    wider = NasBench201(stem_out_channels=6, num_modules_per_stack=1, num_labels=5)
    WarmStartDARTS(save_to=tmp_path / 'zoo')(RawFormatModelSpace(wider, joint), SequentialExecutionEngine())
    both = SupernetZoo(tmp_path / 'zoo')
    wide = both['nasbench201-1'].renamed('wide')
    both.remove('nasbench201-1')
    both.add(wide)
    both.add(zoo[JOINT])
    report = run(WarmStartDARTS(source='nearest', zoo=both), tmp_path, epochs=1, task=make_task(seed=5)).report
    assert [name for name, _ in report.ranking] == [JOINT]
    space = NasBench201(stem_out_channels=8, num_modules_per_stack=1, num_labels=3)
    report = run(WarmStartDARTS(source='nearest', zoo=both), tmp_path, epochs=1, space=space, task=make_task(seed=5)).report
    assert {name for name, _ in report.ranking} == {JOINT, 'wide'}


@pytest.mark.slow
@pytest.mark.parametrize('joint', [True, False])
def test_auto_tries_out_and_leaves_no_trace(zoo, tmp_path, joint):
    entries = SupernetZoo(tmp_path / 'zoo')
    for name in ('blobs', 'stripes', *([JOINT] if joint else [])):
        entries.add(zoo[name])

    def searched(source):
        torch.manual_seed(0)
        return run(WarmStartDARTS(source=source, zoo=entries), tmp_path, epochs=2, task=make_task(seed=5))

    auto = searched('auto')
    errors = dict(auto.report.ranking)
    tried = list(errors)
    assert 'blobs' in tried
    assert (JOINT in tried) == joint
    assert sum(' + ' in name for name in tried) == (0 if tried[0] == JOINT else 1)  # fused where the nearest is ahead
    assert auto.report.source == tried[0]
    assert f'the best of {len(tried)} that were tried' in auto.report.summary()
    assert auto.report.seconds['choosing'] > 0
    named = searched('fused' if ' + ' in tried[0] else tried[0])
    for name, tensor in auto.supernet.state_dict().items():
        assert torch.equal(tensor, named.supernet.state_dict()[name]), name


@pytest.mark.parametrize(
    ('errors', 'order'),
    [
        ({JOINT: 0.2, 'blobs': 0.2}, [JOINT, 'blobs']),
        ({JOINT: 0.2, 'blobs': 0.17}, [JOINT, 'blobs']),  # a standard error of 100 images is 0.0376
        ({JOINT: 0.2, 'blobs': 0.15, FUSED: 0.16}, ['blobs', FUSED, JOINT]),
        ({JOINT: 0.2, 'blobs': 0.15, FUSED: 0.12}, ['blobs', FUSED, JOINT]),
        ({JOINT: 0.2, 'blobs': 0.15, FUSED: 0.1}, [FUSED, 'blobs', JOINT]),
    ],
)
def test_auto_leaves_the_joint_source_only_where_another_errs_clearly_less(zoo, monkeypatch, errors, order):
    task = make_task(n=400, seed=5)
    batches = [(task.train_x[:100].float(), task.train_y[:100])]
    chooser = SourceSelector(zoo, mutate(small_space(), 'DARTS'), lambda part: batches, TransferSettings())

    def measured(self, sources):
        name = ' + '.join(each.name for each, _ in sources)
        return SimpleNamespace(name=name, error=errors[name], seconds=0.0, plan=None)

    monkeypatch.setattr(SourceSelector, '_probe', measured)
    choice = chooser.choose('auto')
    assert ' + '.join(each.name for each, _ in choice.sources) == order[0]
    assert [each.name for each in choice.ranking] == order


@pytest.mark.slow
@pytest.mark.parametrize('width', [4, 6, 2], ids=['same', 'wider', 'narrower'])
def test_auto_maps_its_winner_once(zoo, tmp_path, monkeypatch, width):
    """What was prepared to try the winner out is applied, and gives what the winner gives by name."""
    entries = SupernetZoo(tmp_path / 'zoo')
    entries.add(zoo['blobs'])
    entries.add(zoo['stripes'])
    task = make_task(n=96, seed=5)
    x, y = task.train_x.float() / 64 - 2, task.train_y
    data = {'train': list(zip(x[:40].split(8), y[:40].split(8), strict=True)), 'val': [(x[40:], y[40:])]}
    calls: list[str] = []

    def counted(module, name):
        function = getattr(module, name)

        def call(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for name in ('_copied', 'map_tensors', 'match_source', 'rebuilt'):
        counted(inherit, name)
    torch.manual_seed(1)
    target = mutate(NasBench201(stem_out_channels=width, num_modules_per_stack=1, num_labels=3), 'DARTS')
    same, before = copy.deepcopy(target), {name: tensor.clone() for name, tensor in target.state_dict().items()}
    choice = SourceSelector(entries, target, data.__getitem__, TransferSettings(seed=3)).choose('auto')
    assert [each.name for each in choice.ranking] == ['blobs', 'blobs + stripes']
    assert calls
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    calls.clear()
    report = choice.plan.apply(target, data['train'], data['val'])
    assert calls == []
    expected = transfer(zoo['blobs'], same, data=data['train'], val_data=data['val'], seed=3)
    assert report.origins == expected.origins
    assert report.zero_shot_accuracy == expected.zero_shot_accuracy
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name


def test_auto_with_one_candidate_neither_ranks_nor_probes(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, 'rank', None)
    one = SupernetZoo(tmp_path / 'zoo')
    one.add(zoo[JOINT])
    strategy = run(WarmStartDARTS(source='auto', zoo=one), tmp_path, epochs=1, task=make_task(seed=5))
    assert strategy.report.source == JOINT
    assert strategy.report.ranking == ()
    empty = SupernetZoo(tmp_path / 'empty')
    for message in ('empty does not exist', 'has no entry that fits'):
        with pytest.raises(ZooError, match=message):
            run(WarmStartDARTS(source='auto', zoo=empty), tmp_path)
        (tmp_path / 'empty').mkdir(exist_ok=True)


def test_auto_takes_a_joint_supernet_that_cannot_be_ranked(zoo, tmp_path):
    bare = SupernetZoo(tmp_path / 'zoo')
    bare.add(Supernet(**{**vars(zoo[JOINT]), 'sketches': {}}))
    assert run(WarmStartDARTS(source='auto', zoo=bare), tmp_path, epochs=1, task=make_task(seed=5)).report.source == JOINT


@pytest.mark.slow
def test_data_that_cannot_be_sketched_leave_the_joint_supernet_and_equal_weights(zoo, tmp_path, caplog):
    task = make_task(seed=5)
    several = replace(task, train_x=task.train_x.repeat(1, 2, 1, 1)[:, :4], test_x=task.test_x.repeat(1, 2, 1, 1)[:, :4])
    for source, name in (('auto', JOINT), (['blobs', 'stripes'], 'blobs + stripes')):
        space = create('nasbench201', {'width': 4, 'depth': 1, 'image_size': 8, 'in_channels': 4}, 3)
        strategy = run(WarmStartDARTS(source=source, zoo=zoo), tmp_path, space=space, epochs=1, task=several)
        assert strategy.report.source == name
    assert 'The sources are weighted equally: ' in caplog.text


@pytest.mark.parametrize('known', [[], [True, False]])
def test_sources_that_cannot_be_compared_have_equal_weights(tmp_path, caplog, known):
    made = Supernet.from_model(mutate(small_space(), 'DARTS'), name='made', dataset=make_task())
    sketch = made.sketches['random_conv']
    other = made.with_sketches([replace(sketch, means=sketch.means[:, :9], factors=sketch.factors[:, :9, :9])])
    sources = [made if each else other for each in known or [False, False]]
    strategy = run(WarmStartDARTS(source=sources), tmp_path, epochs=1)
    assert 'The sources are weighted equally' in caplog.text
    assert strategy.report is not None


@pytest.mark.parametrize('rule', ['nearest', 'auto'])
def test_entries_of_unknown_spaces_stop_no_rule(tmp_path, rule):
    """Of a newer version, say, with more spaces."""
    both = SupernetZoo(tmp_path / 'zoo')
    mine = run(WarmStartDARTS(), tmp_path, space=OwnSpace())
    good = Supernet.from_strategy(mine, name='good', dataset=make_task())
    both.add(good)
    unknown = mutate(NasBench201(stem_out_channels=6, num_modules_per_stack=1, num_labels=3), 'DARTS')
    foreign = Supernet.from_model(unknown, name='foreign', dataset=make_task())
    both.add(replace(foreign, space={'name': 'newspace', 'arguments': {}}))
    strategy = run(WarmStartDARTS(source=rule, zoo=both), tmp_path, epochs=1, space=OwnSpace())
    assert strategy.report.source == 'good'


@pytest.mark.slow
def test_a_wider_source_of_an_unknown_space_is_mapped_by_its_weights(tmp_path):
    wider = mutate(NasBench201(stem_out_channels=8, num_modules_per_stack=1, num_labels=3), 'DARTS')
    foreign = Supernet.from_model(wider, name='foreign', dataset=make_task())
    foreign = replace(foreign, space={'name': 'newspace', 'arguments': {}})
    strategy = run(WarmStartDARTS(source=foreign), tmp_path, epochs=1)
    assert strategy.report.share_inherited > 0.9


@pytest.mark.parametrize('rule', ['nearest', 'auto'])
def test_entries_that_cannot_be_mapped_stop_no_rule(tmp_path, rule):
    both = SupernetZoo(tmp_path / 'zoo')
    for name, width in (('same', 4), ('wider', 8)):
        model = mutate(Attention(width), 'DARTS')
        both.add(Supernet.from_model(model, name=name, dataset=make_task(seed=width - 4)))
    strategy = run(WarmStartDARTS(source=rule, zoo=both), tmp_path, epochs=1, space=Attention(8))
    assert strategy.report.source == 'wider'  # the other one has a layer that cannot be widened


def test_auto_needs_batches_of_pictures(zoo):
    target = mutate(small_space(), 'DARTS')
    batches = [(x.float(), y) for x, y in zip(make_task().train_x.split(12), make_task().train_y.split(12), strict=True)]
    loaders = {'train': batches, 'val': [{'x': x, 'y': y} for x, y in batches]}
    with pytest.raises(TransferError, match=r'batches \(inputs, classes\) of two tensors; wrap your loader'):
        SourceSelector(zoo, target, loaders.get, TransferSettings(head='random')).choose('auto')


@pytest.mark.slow
def test_entries_of_the_own_space_go_first(zoo, tmp_path):
    """A DARTS supernet of the very same images is no source for NAS-Bench-201 while there are others."""
    mixed = SupernetZoo(tmp_path / 'zoo')
    mixed.add(zoo['stripes'])
    foreign = mutate(DartsSpace(width=2, num_nodes=2, num_classes=3, image_size=8), 'DARTS')
    mixed.add(Supernet.from_model(foreign, name='foreign', dataset=make_task()))
    strategy = run(WarmStartDARTS(source='nearest', zoo=mixed), tmp_path, epochs=1, task=make_task())
    assert strategy.report.source == 'stripes'


def test_halving_trains_the_better_half_further(zoo):
    x, y = make_task(n=96).train_x.float() / 64 - 2, make_task(n=96).train_y
    halves = (x[:40], y[:40]), [(x[40:], y[40:])]
    probes = [
        Probe(name, [(zoo[name], 1.0)], mutate(small_space(), 'DARTS'), *halves, TransferSettings())
        for name in ('stripes', 'blobs', JOINT)
    ]
    tried = successive_halving(probes, steps=2)
    assert [probe.rounds for probe in tried] == [2, 2, 1]
    assert tried[0].error <= tried[1].error


def test_of_the_same_data_the_shape_of_the_target_is_nearest(tmp_path):
    zoo = SupernetZoo(tmp_path)
    for name, width in (('a-wide', 8), ('b-own-shape', 4)):
        model = mutate(NasBench201(stem_out_channels=width, num_modules_per_stack=1, num_labels=3), 'DARTS')
        zoo.add(Supernet.from_model(model, name=name, dataset=make_task()))
    target = mutate(small_space(), 'DARTS')

    def loader(part):
        return torch.utils.data.DataLoader(getattr(split(make_task()), part), 8)

    chosen = SourceSelector(zoo, target, loader, TransferSettings()).choose('nearest')
    assert [each.name for each, _ in chosen.sources] == ['b-own-shape']


@pytest.mark.parametrize('change', ['none', 'seed', 'images', 'classes', 'no sketch'])
def test_data_of_the_same_name_may_be_others(tmp_path, change):
    """Folders are named by the last part of their path, datasets by their class."""
    task = make_task()
    near, again, other = (split(each).train for each in (task, make_task(seed=1), replace(task, train_x=255 - task.train_x)))

    def made(name, width, data):
        space = NasBench201(stem_out_channels=width, num_modules_per_stack=1, num_labels=3)
        return Supernet.from_model(mutate(space, 'DARTS'), name=name, dataset=data)

    wide = made('wide', 8, {'seed': again, 'images': other}.get(change, near))
    changes = {'classes': {'class_names': ['x', 'y', 'z']}, 'no sketch': {'sketches': {}}}
    zoo = SupernetZoo(tmp_path)
    zoo.add(replace(wide, **changes.get(change, {})))
    zoo.add(made('own', 4, near))
    batches = [(near.x[:8].float(), near.y[:8])]
    selector = SourceSelector(zoo, mutate(small_space(), 'DARTS'), lambda _: batches, TransferSettings())
    assert set(selector.candidates) == ({'own'} if change in ('none', 'seed') else {'wide', 'own'})
