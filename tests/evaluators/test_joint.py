"""Joint training: each dataset has its own head, its own batches, and its own share."""

from __future__ import annotations

import copy

import nni
import numpy as np
import pytest
import torch
from helpers.tiny import make_task, run, small_space
from nni.nas.evaluator.pytorch import Trainer as NniTrainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import DARTS as HubDarts
from nni.nas.hub.pytorch import MobileNetV3Space, NasBench201, ProxylessNAS
from nni.nas.nn.pytorch import ModelSpace, MutableBatchNorm2d, MutableConv2d
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import RandomOneShot
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import TensorDataset

from nni_warmstart import DataError, JointClassification, Supernet, SupernetZoo, TransferError, WarmStartDARTS, transfer
from nni_warmstart.data import split
from nni_warmstart.evaluators.checkpoints import every_epoch
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.classifier import resize_head
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.runs.folder import RunFolder
from nni_warmstart.search_spaces import DartsSpace


@pytest.fixture
def joint(tmp_path) -> JointClassification:
    tasks = {'a': make_task(classes=3), 'b': make_task(n=64, classes=2, seed=1)}
    return JointClassification(tasks, make_trainer(2, tmp_path, progress=False), batch_size=8, steps_per_epoch=4, jitter=0.1)


def test_one_search_on_two_datasets(joint):
    torch.manual_seed(0)
    strategy = WarmStartDARTS()
    strategy(RawFormatModelSpace(small_space(joint.num_classes), joint), SequentialExecutionEngine())
    assert strategy.supernet.classifier.out_features == 5
    metrics = joint.trainer.callback_metrics
    assert {'val_acc/a', 'val_acc/b'} <= metrics.keys()
    mean = (metrics['val_acc/a'] + metrics['val_acc/b']) / 2
    assert strategy.curve[-1]['default'] == pytest.approx(float(mean))
    assert strategy.curve[-1]['val_acc/a'] == metrics['val_acc/a']  # what NNI gets, a curve on its page for each


def test_batches_hold_one_dataset(joint):
    for loader in (joint.datamodule.train_dataloader(), joint.datamodule.val_dataloader()):
        seen = set()
        for _, y in loader:
            heads = {int(label) < 3 for label in y}
            assert len(heads) == 1
            seen |= heads
        assert seen == {True, False}


def test_alphas_learn_from_smaller_batches_of_the_validation_halves(tmp_path):
    tasks = {'a': make_task(classes=3), 'b': make_task(n=64, classes=2, seed=1)}
    joint = JointClassification(
        tasks, make_trainer(1, tmp_path, progress=False), batch_size=8, arc_batch_size=4, steps_per_epoch=30
    )
    strategy = WarmStartDARTS()
    strategy.mutate_evaluator(joint)
    loaders = joint.datamodule.train_dataloader()
    assert {name: len(loader) for name, loader in loaders.items()} == {'train': 30, 'val': 30}
    assert {name: {len(y) for _, y in loader} for name, loader in loaders.items()} == {'train': {8}, 'val': {4}}
    held = sum(len(split.val) for split in joint.datamodule.splits.values())
    assert sum(len(y) for _, y in joint.datamodule.val_dataloader()) == held


def test_only_named_datasets_are_mirrored(tmp_path, monkeypatch):
    seen = set()
    monkeypatch.setattr('nni_warmstart.data.augmentation.flipped', lambda x: seen.add(len(x)) or x)
    tasks = {'a': make_task(n=40, classes=2), 'b': make_task(n=64, classes=2, seed=1)}
    evaluator = JointClassification(
        tasks, make_trainer(1, tmp_path, progress=False), batch_size=64, flip=['b'], steps_per_epoch=8
    )
    WarmStartDARTS()(RawFormatModelSpace(small_space(4), evaluator), SequentialExecutionEngine())
    assert seen == {36, 12}  # both halves of b; those of a have 22 and 8


class Wide(ModelSpace):
    """Searches a width, and has a linear layer that is made after its classifier."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice('width', [4, 8])
        self.stem = MutableConv2d(3, width, 1)
        self.norm = MutableBatchNorm2d(width)
        self.body = MutableConv2d(width, 6, 1)
        self.head = nn.Linear(6, 3)
        self.gate = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.norm(self.stem(x)).relu()).mean((2, 3))
        return self.head(x * self.gate(x).sigmoid())


def test_searched_widths_stay_with_their_optimizer(tmp_path):
    """Alphas of a mixed batch norm belong to the search; the classifier is found by its output."""
    alphas = []
    for batch_norm in ('shared', 'per_dataset'):
        torch.manual_seed(0)
        tasks = {'a': make_task(classes=3), 'b': make_task(n=64, classes=2, seed=1)}
        evaluator = JointClassification(
            tasks, make_trainer(2, tmp_path, progress=False), batch_size=8, batch_norm=batch_norm
        )
        strategy = WarmStartDARTS(arc_learning_rate=0.1)
        strategy(RawFormatModelSpace(Wide(), evaluator), SequentialExecutionEngine())
        assert strategy.supernet.head.out_features == 5
        assert strategy.supernet.gate.out_features == 6
        alphas.append(choices(strategy.supernet)['width'].alpha.abs().max().item())
    assert min(alphas) > 0.002  # from less than 0.001; a mean of copies in the bank hardly moves


def test_a_warm_start_reaches_every_head_and_every_batch_norm(tmp_path):
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path, epochs=3), name='source')
    tasks = {f'{k}': make_task(n=48, classes=3, seed=k) for k in range(6)}
    evaluator = JointClassification(
        tasks, make_trainer(1, tmp_path, progress=False), batch_size=8, steps_per_epoch=1, batch_norm='per_dataset'
    )
    strategy = WarmStartDARTS(source=source, keep=1.0)
    strategy.initialize(RawFormatModelSpace(small_space(3), evaluator), SequentialExecutionEngine())
    assert (strategy.supernet.classifier.weight.abs().sum(1) > 0).all()
    assert strategy.report.zero_shot_accuracy > 0.7  # one in eighteen if all classes competed
    module = strategy.oneshot_module.training_module
    module.setup('fit')
    state = strategy.supernet.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in module.bank.tensors('4').items())
    assert torch.equal(state['stem.1.weight'], source.tensors['stem.1.weight'])


@pytest.mark.slow
def test_averages_after_a_warm_start_are_of_the_banks_batch_norms_too(tmp_path):
    source = Supernet.from_strategy(run(WarmStartDARTS(), tmp_path), name='source')
    tasks = {'a': make_task(classes=3), 'b': make_task(n=64, classes=2, seed=1)}
    evaluator = JointClassification(
        tasks, make_trainer(2, tmp_path, progress=False), batch_size=8, batch_norm='per_dataset', learning_rate=0.2
    )
    strategy = WarmStartDARTS(source=source)
    strategy(RawFormatModelSpace(small_space(3), evaluator), SequentialExecutionEngine())
    module, state = strategy.oneshot_module, strategy.supernet.state_dict()
    bank = module.training_module.bank
    averaged = {id(weight) for weight in module.evaluation.averaged.weights}
    assert averaged >= {id(weight) for weight in bank.parameters()}
    trained = 0
    for place in bank.places:
        mean = torch.stack([bank.tensors(name)[place].detach().double() for name in tasks]).mean(0)
        assert torch.equal(state[place], mean.to(state[place]))
        trained += not torch.equal(state[place], source.state_dict()[place])
    assert trained > len(bank.places) / 2


def test_one_dataset_of_other_classes_than_the_space_was_made_for(tmp_path):
    evaluator = JointClassification({'a': make_task(classes=3)}, make_trainer(1, tmp_path, progress=False), batch_size=8)
    zoo = SupernetZoo(tmp_path / 'zoo')
    WarmStartDARTS(save_to=zoo)(RawFormatModelSpace(small_space(10), evaluator), SequentialExecutionEngine())
    (entry,) = zoo.entries()
    assert entry.build().classifier.out_features == 3
    narrow = mutate(NasBench201(stem_out_channels=2, num_modules_per_stack=1, num_labels=3), 'DARTS')
    data = split(make_task(classes=3)).train
    assert transfer(entry, narrow, data=data).share_inherited == 1.0


def test_strategies_that_run_one_path_at_a_time(joint):
    """NNI's RandomOneShot has no path before its first step; it does not tell an evaluator when a validation ends."""
    strategy = RandomOneShot()
    strategy(RawFormatModelSpace(small_space(2), joint), SequentialExecutionEngine())
    assert strategy.supernet.classifier.out_features == 5
    assert joint.trainer.callback_metrics.keys() >= {'train_acc', 'val_loss'}


@pytest.mark.slow
@pytest.mark.parametrize('settings', [{'batch_norm': 'per_dataset'}, {'label_smoothing': 0.1, 'drop_path': 0.3}])
def test_a_remembered_joint_supernet_is_rebuilt(tmp_path, settings):
    """The space was made for three classes; the evaluator gives it five."""
    tasks = [make_task(classes=3, name='a'), make_task(n=64, classes=2, seed=1, name='b')]
    evaluator = JointClassification(tasks, make_trainer(2, tmp_path, progress=False), batch_size=8, **settings)
    strategy = WarmStartDARTS(save_to=tmp_path / 'zoo')
    strategy(RawFormatModelSpace(small_space(3), evaluator), SequentialExecutionEngine())
    (path,) = (tmp_path / 'zoo').glob('*.safetensors')
    supernet = Supernet.load(path)
    assert supernet.build().classifier.out_features == 5
    assert supernet.space['arguments']['num_labels'] == 5
    assert {name: facts['classes'] for name, facts in supernet.history['datasets'].items()} == {'a': 3, 'b': 2}
    assert supernet.class_names == ['a/class0', 'a/class1', 'a/class2', 'b/class0', 'b/class1']
    assert len(supernet.sketches['random_conv'].classes) == 5
    assert not any('bank' in name for name in supernet.tensors)


def test_datasets_of_any_form_size_and_colour(tmp_path):
    grey = torch.randint(0, 255, (40, 12, 12), dtype=torch.uint8)
    datasets = {
        'task': make_task(),
        'arrays': (grey.numpy(), np.arange(40) % 2),
        'torch': TensorDataset(torch.rand(40, 3, 10, 10), torch.arange(40) % 4),
    }
    evaluator = JointClassification(datasets, make_trainer(1, tmp_path, progress=False), batch_size=8)
    assert evaluator.num_classes == 9
    assert {tuple(task.train_x.shape[1:]) for task in evaluator.datamodule.tasks.values()} == {(3, 12, 12)}
    assert torch.equal(evaluator.datamodule.tasks['arrays'].train_x[:, 0], grey)
    WarmStartDARTS()(RawFormatModelSpace(small_space(2), evaluator), SequentialExecutionEngine())
    assert evaluator.trainer.callback_metrics.keys() >= {'val_acc/task', 'val_acc/arrays', 'val_acc/torch'}


class Killed(Exception):
    pass


class StopAfter(Callback):
    """As if killed in the middle of an epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.current_epoch == self.epochs:
            raise Killed


@pytest.mark.slow
def test_a_killed_joint_training_goes_on_to_the_same_result(tmp_path):
    tasks = {'a': make_task(classes=3), 'b': make_task(n=64, classes=2, seed=1)}

    def train(folder, stop_after=None, resume=False):
        torch.manual_seed(0)
        checkpoint = RunFolder(folder).checkpoint
        callbacks = [every_epoch(checkpoint), *([StopAfter(stop_after)] if stop_after else [])]
        evaluator = JointClassification(
            copy.deepcopy(tasks),
            make_trainer(4, folder, progress=False, callbacks=callbacks),
            batch_size=8,
            batch_norm='per_dataset',
            drop_path=0.2,
            cutout=0.25,
        )
        strategy = WarmStartDARTS()
        if resume:
            strategy.resume_from(checkpoint)
        strategy.initialize(RawFormatModelSpace(small_space(3), evaluator), SequentialExecutionEngine())
        strategy.run()
        return strategy

    whole = train(tmp_path / 'whole')
    with pytest.raises(Killed):
        train(tmp_path / 'cut', stop_after=2)
    resumed = train(tmp_path / 'cut', resume=True)
    for (name, a), b in zip(whole.supernet.state_dict().items(), resumed.supernet.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [row['default'] for row in whole.curve] == [row['default'] for row in resumed.curve]
    finished = train(tmp_path / 'whole', resume=True)  # killed after its last epoch
    for (name, a), b in zip(whole.supernet.state_dict().items(), finished.supernet.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert finished.oneshot_module.final['default'] == whole.oneshot_module.final['default']


def test_a_checkpoint_with_heads_of_other_datasets_is_refused(tmp_path):
    checkpoint = RunFolder(tmp_path).checkpoint

    def initialised(names, resume=False):
        trainer = make_trainer(2, tmp_path, progress=False, callbacks=[every_epoch(checkpoint)])
        tasks = {name: make_task(classes=2, seed=k) for k, name in enumerate(names)}
        strategy = WarmStartDARTS()
        if resume:
            strategy.resume_from(checkpoint)
        space = RawFormatModelSpace(small_space(4), JointClassification(tasks, trainer, batch_size=8))
        strategy.initialize(space, SequentialExecutionEngine())
        return strategy

    initialised(['a', 'b']).run()
    other = initialised(['a', 'c'], resume=True)
    with pytest.raises(DataError, match=r'has heads for a \(2 classes\), b .* and this run for a \(2 classes\), c'):
        other.run()


@pytest.mark.slow
def test_a_classifier_is_found_or_told():
    for space in (DartsSpace(width=2), ProxylessNAS(num_labels=10)):
        supernet = mutate(space, 'DARTS')
        resize_head(supernet, 20)
        assert supernet.classifier.out_features == 20
        assert 20 in supernet.trace_kwargs.values()
        with pytest.raises(TransferError, match=r"'stem' is no linear layer of .*; it has .*classifier"):
            resize_head(supernet, 20, 'stem')
    with pytest.raises(TransferError, match='is part of the search and has 10 rows; make the space with 5 classes'):
        resize_head(mutate(MobileNetV3Space(num_labels=10), 'DARTS'), 5)


def test_spaces_that_do_not_fit_are_named(tmp_path):
    def start(space, **settings):
        evaluator = JointClassification({'a': make_task()}, make_trainer(1, tmp_path, progress=False), **settings)
        WarmStartDARTS()(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())

    with pytest.raises(TransferError, match=r'images of shape \(1, 8, 8\) do not go through NasBench201'):
        start(small_space(), channels=1)
    with pytest.raises(TransferError, match=r'do not go through Wide .* or classifier='):
        start(Wide(), classifier='gate')


@pytest.mark.slow
def test_a_hub_space_of_fixed_classes_is_rebuilt(tmp_path):
    space = HubDarts(width=2, num_cells=3, dataset='cifar')
    evaluator = JointClassification(
        {'a': make_task(side=16)}, make_trainer(1, tmp_path, progress=False), batch_size=8, steps_per_epoch=1
    )
    evaluator.module.heads = {'a': (0, 2), 'b': (2, 3)}
    strategy = WarmStartDARTS()
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    facts = {'datasets': {'a': {}, 'b': {}}}
    assert Supernet.from_strategy(strategy, name='joint', history=facts).build().classifier.out_features == 3


@pytest.mark.parametrize(
    ('datasets', 'settings', 'message'),
    [
        ({}, {}, 'needs at least one dataset'),
        ([make_task(), make_task()], {}, "'blobs' is there twice"),
        ({'none': (np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, int))}, {}, 'none is empty'),
        ({'one': (np.zeros((9, 8, 8, 3), np.uint8), np.zeros(9, int))}, {}, 'one has one class'),
        ({'few': make_task(n=8, classes=6)}, {}, 'few: class .* is missing from the validation split'),
        ({'gap': (np.zeros((9, 8, 8, 3), np.uint8), np.arange(9) % 2 * 2)}, {}, 'gap: class 1 is missing'),
        ({'text': ['a', 'b']}, {}, 'text is a list; give a Task'),
        ({1: make_task()}, {}, 'dataset 1 has a name of type int; give text'),
        ({'flat': (np.zeros((9, 8)), np.arange(9) % 2)}, {}, 'flat: images have shape'),
        (None, {}, 'datasets is a NoneType'),
        (make_task(), {}, 'datasets is a Task'),
        ({'ragged': ([[1], [2, 3]], [0, 1])}, {}, 'ragged gives no pairs'),
        ({'words': (np.array([['a']]), np.array([0]))}, {}, 'words gives no pairs'),
        ({'halves': (np.zeros((9, 8, 8, 3), np.uint8), np.arange(9) / 2)}, {}, 'halves: labels have .* whole numbers'),
        ({'a': make_task()}, {'flip': ['b']}, "flip names 'b'; it must be a list of some of the datasets a"),
        ({'a': make_task()}, {'flip': 'a'}, "flip names 'a'; it must be a list"),
        ({'a': make_task()}, {'weights': {'b': 2}}, "weights names 'b'; the datasets are a"),
        ({'a': make_task()}, {'weights': {'a': 0}}, r"weights\['a'\] = 0, but it must be from 0.01 to 100"),
        ({'a': make_task()}, {'temperature': 0.0}, 'temperature = 0.0'),
        ({'a': make_task()}, {'temperature': '2'}, "temperature = '2'"),
        ({'a': make_task()}, {'batch_size': 1}, 'batch_size = 1, but it must be 2 or more'),
        ({'a': make_task()}, {'steps_per_epoch': 0}, 'steps_per_epoch = 0'),
        ({'a': make_task()}, {'steps_per_epoch': 2.5}, 'steps_per_epoch = 2.5, but it must be a whole number, 1 or more'),
        ({'a': make_task()}, {'crop': 3.0}, 'crop = 3.0, but it must be from 0 to 0.5'),
        ({'a': make_task()}, {'jitter': float('nan')}, 'jitter = nan'),
        ({'a': make_task()}, {'image_size': -8}, 'image_size = -8'),
        ({'a': make_task()}, {'batch_norm': 'own'}, "batch_norm = 'own' is unknown"),
        ({'a': make_task()}, {'drop_path': 1.0}, 'drop_path = 1.0'),
        ({'a': make_task()}, {'label_smoothing': -0.1}, 'label_smoothing = -0.1'),
    ],
)
def test_bad_input(tmp_path, datasets, settings, message):
    with pytest.raises(DataError, match=message):
        JointClassification(datasets, make_trainer(1, tmp_path, progress=False), **settings)


def test_a_trainer_without_epochs_is_refused():
    """The learning rate falls over the epochs."""
    with pytest.raises(DataError, match='the trainer has no max_epochs'):
        JointClassification({'a': make_task()}, NniTrainer(max_steps=9, logger=False))
