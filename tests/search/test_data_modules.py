"""A data module of the user is set up once, by the trainer; what is measured reads the images of its split."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from helpers.tiny import make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning import LightningDataModule
from torch.utils.data import Subset, TensorDataset, random_split

from nni_warmstart import Supernet, SupernetZoo, WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.utils.random import random_state
from nni_warmstart.warm_start import plan, transfer

N = 90

PERMUTATIONS = {
    'numpy': lambda data: np.random.permutation(N).tolist(),  # noqa: NPY002 - as users do
    'torch': lambda data: torch.randperm(N).tolist(),
    'python': lambda data: random.sample(range(N), N),
    'own generator': lambda data: data.generator.permutation(N).tolist(),
    'no seed': lambda data: np.random.default_rng().permutation(N).tolist(),
}


def images():
    """Images that hold their number in the first pixel."""
    task = make_task(n=120)
    x = task.train_x.float() / 255
    x[:, 0, 0, 0] = torch.arange(N) / N
    return x, task.train_y


def numbers(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * N).round().int().tolist()


class Splitting(LightningDataModule):
    """Splits its images whenever it is set up; ``by_stage`` makes the test images in ``setup('test')`` only."""

    def __init__(self, permutation: str, by_stage: bool = False) -> None:
        super().__init__()
        self.permutation, self.by_stage, self.calls = PERMUTATIONS[permutation], by_stage, []
        self.generator, self.all = np.random.default_rng(4), TensorDataset(*images())

    def prepare_data(self):
        self.calls.append('prepare')
        random.random(), np.random.rand()  # noqa: NPY002

    def setup(self, stage):
        self.calls.append(getattr(stage, 'value', stage))
        order = self.permutation(self)
        if not self.by_stage or stage == 'fit':
            self.halves = order[:40], order[40:70]
        if not self.by_stage or stage == 'test':
            self.rest = order[70:]

    def train_dataloader(self):
        self.calls.append('train')
        return DataLoader(Subset(self.all, self.halves[0]), 10, shuffle=True)

    def val_dataloader(self):
        self.calls.append('val')
        return DataLoader(Subset(self.all, self.halves[1]), 10)

    def test_dataloader(self):
        return DataLoader(Subset(self.all, self.rest), 10)


class Module(ClassificationModule):
    """Notes the images that it sees, in training and otherwise."""

    def __init__(self):
        super().__init__(num_classes=3)
        self.seen: dict[str, list[int]] = {'train': [], 'other': []}

    def training_step(self, batch, batch_idx):
        self.seen['train'] += numbers(batch[0])
        return super().training_step(batch, batch_idx)

    def forward(self, x):
        self.seen['other'] += numbers(x)
        return self.model(x)


def search(tmp_path, strategy, data, seed=0, **settings):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    module = Module()
    trainer = Trainer(
        max_epochs=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip
    strategy(RawFormatModelSpace(small_space(), Lightning(module, trainer, datamodule=data)), SequentialExecutionEngine())
    state = random_state([])
    return module, state['torch'].tolist(), state['numpy'][2], state['python'][1]


@pytest.fixture
def fitted(monkeypatch):
    """Numbers of the images that a warm start reads, in its order."""
    read: list[list[int]] = []

    def first_batches(data, at_most):
        batches = original(data, at_most)
        read.append(sorted(number for x, _ in batches for number in numbers(x)))
        return batches

    original = plan.first_batches
    for module in (plan, transfer):
        monkeypatch.setattr(module, 'first_batches', first_batches)
    return read


PAIRS = {
    'DARTS': (DARTS, WarmStartDARTS),
    'Gumbel': (GumbelDARTS, WarmStartGumbelDARTS),
    'Proxyless': (Proxyless, WarmStartProxyless),
}

CASES = [
    ('DARTS', 'numpy', False), ('DARTS', 'numpy', True), ('DARTS', 'torch', True), ('DARTS', 'own generator', True),
    ('Gumbel', 'python', True), ('Proxyless', 'numpy', False),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'permutation', 'by_stage'), CASES)
def test_the_split_and_the_random_numbers_are_those_of_nni(tmp_path, source, fitted, kind, permutation, by_stage):
    nnis, ours = PAIRS[kind]
    theirs = Splitting(permutation, by_stage)
    module, *states = search(tmp_path, nnis(), theirs)
    for strategy in (ours(), ours(source=source, refit_head=False)):
        fitted.clear()
        data = Splitting(permutation, by_stage)
        own, *found = search(tmp_path, strategy, data)
        assert data.halves == theirs.halves
        assert data.calls == theirs.calls == ['prepare', 'fit', 'train', 'val']
        assert own.seen['train'] == module.seen['train']
        assert found == states  # of torch, numpy and Python
        assert 'test_accuracy' in strategy.oneshot_module.final
        if strategy.source is not None:
            assert (fitted[0], fitted[-1]) == (sorted(data.halves[0]), sorted(data.halves[1]))
            assert strategy.report.zero_shot_accuracy is not None


@pytest.mark.parametrize('by_stage', [False, True])
@pytest.mark.parametrize('permutation', ['numpy', 'own generator', 'no seed'])
def test_no_test_image_was_trained_on(tmp_path, caplog, permutation, by_stage):
    data, strategy = Splitting(permutation, by_stage), WarmStartDARTS()
    module, *_ = search(tmp_path, strategy, data)
    assert ('test_accuracy' in strategy.oneshot_module.final) == (not (by_stage and permutation == 'no seed'))
    assert ("Splitting.setup('test') makes other test images each time" in caplog.text) == (
        by_stage and permutation == 'no seed'
    )
    tested = {*module.seen['other'][-20:]}  # the 20 images of the test come last
    if 'test_accuracy' in strategy.oneshot_module.final:
        assert len(tested) == 20
        assert not tested & {*data.halves[0], *data.halves[1]}


class InLoaders(LightningDataModule):
    """Splits its images where it makes the loaders, in the order in which NNI asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.all = TensorDataset(*images())

    def train_dataloader(self):
        train, self.val = random_split(self.all, [60, 30])
        return DataLoader(train, 10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 10, shuffle=True)


@pytest.mark.slow
@pytest.mark.parametrize('settings', [{}, {'num_sanity_val_steps': 0}, {'reload_dataloaders_every_n_epochs': 1}])
def test_a_split_in_the_loaders_is_that_of_nni(tmp_path, source, fitted, settings):
    module, *states = search(tmp_path, DARTS(), InLoaders(), **settings)
    for strategy in (WarmStartDARTS(), WarmStartDARTS(source=source, refit_head=False)):
        own, *found = search(tmp_path, strategy, InLoaders(), **settings)
        assert own.seen['train'] == module.seen['train']
        assert found == states
        assert strategy.curve
    assert (len({*fitted[0]}), len({*fitted[0], *fitted[-1]})) == (60, N)


def test_a_forward_that_setup_prepares_is_used_by_the_warm_start(tmp_path, source):
    class Prepared(Module):
        def setup(self, stage):
            self.scale = 2.0

        def forward(self, x):
            return super().forward(x / self.scale)

    torch.manual_seed(0)
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    loaders = [DataLoader(TensorDataset(*images()), 10) for _ in range(2)]
    strategy = WarmStartDARTS(source=source)
    strategy(RawFormatModelSpace(small_space(), Lightning(Prepared(), trainer, *loaders)), SequentialExecutionEngine())
    assert strategy.report.zero_shot_accuracy > 0.5


class NormalisedOnTheDevice(LightningDataModule):
    """Normalises images in the dataset or in a hook, which Lightning calls for all batches of a training."""

    def __init__(self, in_hook: bool) -> None:
        super().__init__()
        x, y = images()
        self.in_hook, self.all = in_hook, TensorDataset(x if in_hook else self.normalised(x), y)

    @staticmethod
    def normalised(x):
        return (x - 0.2) / 0.05

    def train_dataloader(self):
        return DataLoader(Subset(self.all, range(40)), 10, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Subset(self.all, range(40, 90)), 10)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if not self.in_hook:
            return batch
        if isinstance(batch, dict):
            return {key: self.on_after_batch_transfer(part, dataloader_idx) for key, part in batch.items()}
        return self.normalised(batch[0]), batch[1]


def test_images_that_a_hook_normalises_are_normalised_everywhere(tmp_path, source):
    found = []
    for in_hook in (False, True):
        strategy = WarmStartDARTS(source=source, save_to=tmp_path / f'zoo{in_hook}')
        search(tmp_path, strategy, NormalisedOnTheDevice(in_hook))
        (entry,) = SupernetZoo(tmp_path / f'zoo{in_hook}').entries()
        sketches = [sketch.means for sketch in entry.sketches.values()]
        found.append((strategy.report.zero_shot_accuracy, strategy.supernet.state_dict(), sketches))
    (one, tensors, sketches), (other, others, other_sketches) = found
    assert one == other
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    assert all(map(torch.equal, sketches, other_sketches))


def test_numbers_that_are_drawn_between_initialisation_and_run_are_not_drawn_again(tmp_path, source):
    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        strategy = WarmStartDARTS(source=source)
        task, trainer = make_task(), make_trainer(1, tmp_path, progress=False)
        evaluator = classification(split(task), 3, trainer, batch_size=8, learning_rate=0.05, weight_decay=3e-4)
        strategy.initialize(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
        assert strategy.report is not None  # our own data modules need no trainer
        torch.manual_seed(seed)
        strategy.run()
        seen.append(strategy.supernet.state_dict()['classifier.weight'])
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


class AskingTrainer(LightningDataModule):
    """Has no setup, and asks the trainer where it makes the loaders."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(*images()), 10 * self.trainer.world_size, shuffle=True)

    val_dataloader = train_dataloader


def test_a_warm_start_waits_until_the_data_module_has_its_trainer(tmp_path, source):
    strategy = WarmStartDARTS(source=source)
    search(tmp_path, strategy, AskingTrainer())
    assert strategy.report.zero_shot_accuracy > 0.5


@pytest.mark.slow
def test_one_data_module_that_splits_serves_two_searches(tmp_path):
    data, seen = Splitting('numpy', by_stage=True), []
    for _ in range(2):
        strategy = WarmStartDARTS()
        module, *_ = search(tmp_path, strategy, data)
        seen.append(module.seen['train'])
        assert 'test_accuracy' in strategy.oneshot_module.final
    assert seen[0] == seen[1]
    assert [call for call in data.calls if call not in ('prepare', 'train', 'val')] == ['fit', 'fit']


def test_a_supernet_is_remembered_without_a_draw(tmp_path):
    data, strategy = Splitting('numpy'), WarmStartDARTS()
    search(tmp_path, strategy, data)
    before = random_state([])
    Supernet.from_strategy(strategy, name='any', dataset=DataLoader(data.all, 8, shuffle=True))
    after = random_state([])
    assert torch.equal(before['torch'], after['torch'])
    assert before['numpy'][2] == after['numpy'][2]
    assert before['python'] == after['python']
