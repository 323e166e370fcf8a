"""Classes of a copied classifier: matched by name, wherever the names are."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import OwnSpace, make_task, run, small_space
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.hub.pytorch import NasBench201
from pytorch_lightning import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from nni_warmstart import Supernet, SupernetZoo, TransferError, WarmStartDARTS, transfer
from nni_warmstart.data import Task, split
from nni_warmstart.data.class_names import class_names
from nni_warmstart.evaluators.joint_supernet import joint_supernet
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.runs.retrain import make_network
from nni_warmstart.supernets.network import inherited
from nni_warmstart.warm_start.classes import classifier_rows, match_classes

NAMES = ['a', 'b', 'c']  # of the classes of the source


def named_data(task: Task, names: list[str], labels: dict[str, int]) -> TensorDataset:
    """Images of a task under other labels, as the network reads them, in a dataset with ``classes``."""
    train = split(task).train
    number = torch.tensor([labels[name] for name in NAMES])
    data = TensorDataset((task.train_x.float() - train.mean) / train.std, number[task.train_y])
    data.classes = names
    return data


@pytest.mark.parametrize('order', list(itertools.permutations(NAMES))[1:], ids=''.join)
def test_the_same_classes_in_another_order(source, order):
    data = named_data(make_task(seed=5), list(order), {name: order.index(name) for name in NAMES})
    for space in (small_space(), NasBench201(stem_out_channels=6, num_modules_per_stack=1, num_labels=3)):
        report = transfer(source, mutate(space, 'DARTS'), head='copy', keep=1.0, noise=0, data=data)
        assert report.zero_shot_accuracy >= 0.9
        assert report.classes == 'by name' and '(classes by name)' in report.summary()
    own = source.tensors['classifier.weight']
    model = mutate(small_space(), 'DARTS')
    transfer(source, model, head='copy', keep=1.0, class_names=order)
    assert torch.equal(model.classifier.weight, own[[NAMES.index(name) for name in order]])


def test_some_classes_in_common(source, caplog):
    """The row of the new class is fitted on the scale of the copied ones."""
    data = named_data(make_task(seed=5), ['c', 'new', 'a'], {'a': 2, 'b': 1, 'c': 0})
    model = mutate(small_space(), 'DARTS')
    with caplog.at_level(logging.WARNING):
        report = transfer(source, model, head='copy', keep=1.0, data=data)
    assert report.zero_shot_accuracy >= 0.9
    assert torch.equal(model.classifier.weight[[0, 2]], source.tensors['classifier.weight'][[2, 0]])
    assert report.classes == "by name, 2 of 3; 'three' has no new: fitted"
    assert "by name, 2 of 3; 'three' has no new" in caplog.text
    head = next(origin for origin in report.origins if origin.target == 'classifier.weight')
    assert head.how == 'copied' and head.by == report.classes
    fresh = mutate(small_space(), 'DARTS')
    row = fresh.classifier.weight[1].clone()
    report = transfer(source, fresh, head='copy', class_names=['c', 'new', 'a'])
    assert report.classes.endswith('has no new: fresh')
    assert torch.equal(fresh.classifier.weight[1], row)


@pytest.mark.parametrize('width', [2, 4, 6], ids=['narrower', 'equal', 'wider'])
@pytest.mark.parametrize('names', [['c', 'a'], ['c', 'd', 'b', 'a']], ids=['fewer', 'more'])
def test_another_number_of_classes(source, width, names):
    space = NasBench201(stem_out_channels=width, num_modules_per_stack=1, num_labels=len(names))
    task = make_task(n=96, seed=5)
    labels = {name: names.index(name) if name in names else -1 for name in NAMES}
    x, y = named_data(task, names, labels).tensors
    data = TensorDataset(x[y >= 0], y[y >= 0])
    data.classes = names
    report = transfer(source, mutate(space, 'DARTS'), head='copy', data=data)
    assert report.zero_shot_accuracy >= 0.8
    assert report.classes.startswith('by name')


def test_fused_sources_keep_the_classes_that_all_of_them_have(source):
    other = transfer_free_copy(source, ['b', 'c', 'x'])
    data = named_data(make_task(seed=5), ['c', 'a', 'b'], {'a': 1, 'b': 2, 'c': 0})
    report = transfer([source, other], mutate(small_space(), 'DARTS'), head='copy', data=data)
    assert 'fitted' in report.classes and report.zero_shot_accuracy >= 0.8


def transfer_free_copy(source: Supernet, names: list[str]) -> Supernet:
    """The same supernet with its classifier's rows for other classes."""
    rows = torch.tensor([NAMES.index(name) if name in NAMES else 0 for name in names])
    head = {name: source.tensors[name][rows] for name in ('classifier.weight', 'classifier.bias')}
    return replace(source, name='other', tensors={**source.tensors, **head}, class_names=names)


def test_sources_without_a_common_class_have_all_rows_fitted(source):
    one, other = transfer_free_copy(source, ['a', 'x', 'y']), transfer_free_copy(source, ['b', 'z', 'c'])
    data = named_data(make_task(seed=5), NAMES, {name: NAMES.index(name) for name in NAMES})
    model = mutate(small_space(), 'DARTS')
    report = transfer([one, other], model, head='copy', data=data)
    assert model.classifier.bias.isfinite().all()
    assert report.zero_shot_accuracy >= 0.8


@pytest.mark.parametrize('copies', [6, 90])
def test_a_new_class_is_on_the_scale_of_the_copied_ones_however_rare_they_are(source, copies):
    task = make_task(n=160, seed=5)
    kept = [index for index in range(len(task.train_y)) if task.train_y[index] == 2 or index < copies]
    part = replace(task, train_x=task.train_x[kept], train_y=task.train_y[kept])
    data = named_data(part, ['a', 'b', 'new'], {'a': 0, 'b': 1, 'c': 2})
    model = mutate(small_space(), 'DARTS')
    transfer(source, model, head='copy', keep=1.0, data=data)
    own = source.tensors['classifier.weight'].norm(dim=1).max()
    assert model.classifier.weight[2].norm() < 5 * own


def test_without_names_classes_are_copied_by_number_with_a_warning(source, caplog):
    with caplog.at_level(logging.WARNING):
        report = transfer(source, mutate(small_space(), 'DARTS'), head='copy')
    assert report.classes == "by number, since the names of the target's classes are not known"
    assert 'by number' in caplog.text
    with pytest.raises(
        TransferError, match="head 'copy' needs classes of the same names: 'three' has a, b, c, and the targ"
    ):
        transfer(source, mutate(small_space(), 'DARTS'), head='copy', class_names=['u', 'v', 'w'])
    with pytest.raises(TransferError, match='it must be a list of text, one for each class'):
        transfer(source, mutate(small_space(), 'DARTS'), head='copy', class_names='abc')
    assert transfer(source, mutate(small_space(), 'DARTS'), class_names=['u'], head='random').classes == ''


@pytest.mark.parametrize(
    ('own', 'names', 'rows'),
    [
        (['0', '1', '2'], ['2', '0', '1'], (2, 0, 1)),  # digits, in another order
        (['2', '0', '1'], ['0', '1', '2'], (1, 2, 0)),
        (['0', '1', '2', '3'], ['3', '1'], (3, 1)),
        (['0', '1', '2'], ['x', 'y', 'z'], None),  # numbers that stand for no name
        (['x', 'y', 'z'], ['0', '1', '2'], None),
        (['a', 'a', 'b'], ['b', 'a', 'a'], None),
        (['a', 'b', 'c'], ['b', 'a'], None),  # of three classes
        ([], ['b', 'a', 'c'], None),
    ],
)
def test_names_and_numbers(source, own, names, rows):
    found = match_classes(replace(source, class_names=own), len(own) or 3, names, 3 if rows is None else len(rows))
    assert found.by_name == (rows is not None)
    assert found.rows == (rows or (0, 1, 2))


@settings(deadline=None, max_examples=50)
@given(st.permutations('abcdef'), st.lists(st.sampled_from('abcdefgh'), min_size=1, max_size=8, unique=True))
def test_every_class_takes_the_row_of_its_name(own, names):
    card = SimpleNamespace(name='s', class_names=list(own), datasets={})
    if not set(own) & set(names):
        return
    rows = match_classes(card, len(own), names, len(names)).rows
    assert [None if row is None else own[row] for row in rows] == [name if name in own else None for name in names]


def test_a_joint_source(task):
    """A target of one dataset takes the classes of the dataset with most names in common; one of several takes each."""
    tasks = {'x': replace(task, class_names=('a', 'b', 'd')), 'x/y': replace(task, class_names=('c', 'b', 'a'))}
    model = mutate(small_space(6), 'DARTS')
    supernet = joint_supernet(model, tasks, name='joint', image_shape=(3, 8), accuracy={})
    assert match_classes(supernet, 6, ['b', 'c', 'a'], 3).rows == (4, 3, 5)
    assert match_classes(supernet, 6, ['x/y/b', 'x/d', 'z/b'], 3).rows == (4, 2, None)
    target = mutate(small_space(3), 'DARTS')
    report = transfer(supernet, target, head='copy', keep=1.0, class_names=['b', 'c', 'a'])
    assert report.classes == 'by name'
    assert torch.equal(target.classifier.weight, model.classifier.weight[[4, 3, 5]])


def test_names_wherever_data_keep_them():
    data, other = (TensorDataset(torch.zeros(4, 2), torch.zeros(4)) for _ in range(2))
    assert class_names(data) == []
    data.classes, other.classes = ('u', 'v'), ['v', 'u']
    module = LightningDataModule()
    module.class_names = ['p', 'q']
    for holder in (data, Subset(data, [0]), DataLoader(Subset(data, [0, 1])), ConcatDataset([data, data])):
        assert class_names(holder) == ['u', 'v']
    assert class_names(module) == ['p', 'q']
    assert class_names(ConcatDataset([data, other])) == []
    assert class_names(SimpleNamespace(class_to_idx={'dog': 1, 'cat': 0})) == ['cat', 'dog']
    assert class_names(SimpleNamespace(class_to_idx={'dog': 1, 'cat': 3})) == []
    assert class_names(SimpleNamespace(classes=3)) == []
    data.target_transform = lambda label: 1 - label
    assert class_names(data) == ['v', 'u']
    data.target_transform = lambda label: 0
    assert class_names(data) == []


def test_searches_copy_by_name(source, tmp_path):
    """The names are the data's, or given; a rule chooses sources that have some of the classes."""
    task = make_task(seed=5)
    number = torch.tensor([1, 2, 0])
    task = replace(task, train_y=number[task.train_y], class_names=('c', 'a', 'b'))
    zoo = SupernetZoo(tmp_path / 'zoo')
    zoo.add(source)
    for strategy in (
        WarmStartDARTS(source=source, head='copy', keep=1.0),
        WarmStartDARTS(source='nearest', zoo=zoo, head='copy', keep=1.0),
    ):
        run(strategy, tmp_path, epochs=1, task=task)
        assert strategy.report.classes == 'by name'
        assert strategy.report.zero_shot_accuracy >= 0.9
    unnamed = replace(task, class_names=('0', '1', '2'))
    strategy = WarmStartDARTS(source='nearest', zoo=zoo, head='copy', class_names=['c', 'a', 'b'], save_to=tmp_path / 'new')
    run(strategy, tmp_path, epochs=1, task=unnamed)
    assert strategy.report.classes == 'by name'
    assert [entry.class_names for entry in SupernetZoo(tmp_path / 'new').entries()] == [['c', 'a', 'b']]


def test_an_inherited_network_has_the_classes_of_its_data(source, caplog):
    theirs = inherited(source)
    architecture = {label: source.candidates[label][int(source.alpha(label).argmax())] for label in source.candidates}
    network = make_network(small_space(3), architecture, source, ('b', 'c', 'a'))
    assert torch.equal(network.classifier.weight, theirs.classifier.weight[[1, 2, 0]])
    assert not caplog.records
    space = small_space(4)
    row = space.classifier.weight[2].clone()
    network = make_network(space, architecture, source, ('b', 'c', 'new', 'a'))
    assert torch.equal(network.classifier.weight[[3, 0, 1]], theirs.classifier.weight)
    assert torch.equal(network.classifier.weight[2], row)
    assert "by name, 3 of 4; 'three' has no new" in caplog.text
    with pytest.raises(TransferError, match='--weights inherited needs classes of the same names'):
        make_network(small_space(3), architecture, source, ('u', 'v', 'w'))


def test_the_classifier_of_a_source_is_what_makes_its_outputs():
    source = Supernet.from_model(mutate(OwnSpace(), 'DARTS'), name='own')
    assert classifier_rows(source, ()) == {'head.weight': 3, 'head.bias': 3}
    assert classifier_rows(replace(source, structure=None), ('head.weight', 'fc.weight')) == {'head.weight': 3}
