"""Without a source the strategies are NNI's, to the bit, although they validate as well."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.tiny import OwnSpace, run, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning import LightningDataModule
from torch.utils.data import TensorDataset

from nni_warmstart import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.data import Task, split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.architectures import skip_share
from nni_warmstart.nni_adapter.choices import alpha_entropy, arch_parameters, choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import NasBench201Space

PAIRS = [(DARTS, WarmStartDARTS), (GumbelDARTS, WarmStartGumbelDARTS), (Proxyless, WarmStartProxyless)]


@pytest.mark.slow
@pytest.mark.parametrize(('upstream', 'ours'), PAIRS, ids=lambda cls: cls.__name__)
def test_same_weights_alphas_and_architecture(upstream, ours, tmp_path):
    runs, exported = [], []
    for cls in (upstream, ours):
        torch.manual_seed(3)
        runs.append(run(cls(arc_learning_rate=0.01), tmp_path, epochs=3))
        exported.append(runs[-1].oneshot_module.export())  # Proxyless draws it at random
    theirs, mine = (strategy.supernet.state_dict() for strategy in runs)
    assert theirs.keys() == mine.keys()
    different = [name for name in theirs if not torch.equal(theirs[name], mine[name])]
    assert different == []
    assert exported[0] == exported[1]
    assert runs[1].report is None


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['64-true', 'bf16-true'])
def test_other_precisions(precision, tmp_path, task):
    trainer = Trainer(max_epochs=2, precision=precision, default_root_dir=tmp_path, logger=False, enable_checkpointing=False)
    module = ClassificationModule(num_classes=task.num_classes)
    data = ByStage(replace(task, train_x=task.train_x.float() / 255))
    evaluator = Lightning(module, trainer, datamodule=data)
    strategy = WarmStartDARTS(stop_on_eigenvalue=precision == '64-true', average=1.0)
    strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    assert len(strategy.curve) == 2
    assert 0 <= strategy.oneshot_module.final['test_accuracy'] <= 1


def test_reports_every_epoch(tmp_path):
    torch.manual_seed(0)
    strategy = run(WarmStartDARTS(), tmp_path, epochs=3)
    assert len(strategy.curve) == 3
    for figures in strategy.curve:
        keys = {'default', 'val_loss', 'train_loss', 'alpha_entropy', 'skip_share', 'epoch_seconds'}
        assert keys == figures.keys()
        assert 0 <= figures['default'] <= 1
        assert 0 <= figures['alpha_entropy'] <= 1
        assert 0 <= figures['skip_share'] <= 1
        assert figures['epoch_seconds'] > 0
    final = strategy.oneshot_module.final
    assert final['default'] == strategy.curve[-1]['default']
    assert 0 <= final['test_accuracy'] <= 1


def test_figures_reach_lightnings_logger(tmp_path):
    run(WarmStartDARTS(), tmp_path, epochs=1)
    header = (tmp_path / 'logs' / 'metrics.csv').read_text().splitlines()[0]
    for name in ('default', 'val_loss', 'train_loss', 'alpha_entropy', 'skip_share', 'epoch_seconds'):
        assert f'search/{name}' in header


class Plain(OwnSpace):
    """Without batch norm, so that validation can be recomputed from the weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem[1] = self.norm = torch.nn.Identity()


def test_validation_accuracy_is_that_of_the_validation_pictures(tmp_path, task):
    """The reported figures, recomputed by hand from the trained supernet."""
    torch.manual_seed(0)
    strategy = run(WarmStartDARTS(), tmp_path, epochs=2, space=Plain(), task=task)
    val = split(task).val
    x, y = (torch.stack(part) for part in zip(*(val[i] for i in range(len(val))), strict=True))
    with torch.no_grad():
        logits = strategy.supernet.eval()(x)
    assert strategy.curve[-1]['default'] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert strategy.curve[-1]['val_loss'] == pytest.approx(torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-5)


class Users(ClassificationModule):
    """An evaluator's module as users write it: it prepares its batches, and has hooks of its own."""

    def __init__(self) -> None:
        super().__init__(num_classes=3, learning_rate=0.01)
        self.calls: list[str] = []

    def training_step(self, batch, batch_idx):
        return super().training_step((batch[0].float() / 255, batch[1]), batch_idx)

    def validation_step(self, batch, batch_idx):
        assert self.calls[-1] == 'start'
        return super().validation_step((batch[0].float() / 255, batch[1]), batch_idx)

    def on_validation_epoch_start(self):
        self.calls.append('start')

    def on_validation_epoch_end(self):
        self.calls.append('end')

    def on_fit_end(self):
        self.calls.append('fit end')


class ByStage(LightningDataModule):
    """A data module that makes its test set only when it is set up for testing."""

    def __init__(self, task: Task, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.data, self.generator = TensorDataset(task.train_x, task.train_y), generator

    def setup(self, stage):
        if stage == 'test':
            self.test = self.data

    def train_dataloader(self):
        return DataLoader(self.data, 8, shuffle=True, generator=self.generator)

    def val_dataloader(self):
        return DataLoader(self.data, 8)

    def test_dataloader(self):
        return DataLoader(self.test, 8)


def users_search(strategy, tmp_path, data) -> Users:
    module = Users()
    evaluator = Lightning(module, make_trainer(2, tmp_path, progress=False), datamodule=data)
    strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    return module


def test_users_own_evaluators_are_left_to_feed_the_model(tmp_path, task):
    strategy = WarmStartDARTS()
    module = users_search(strategy, tmp_path, ByStage(task))
    assert module.calls == ['start', 'end', 'start', 'end', 'fit end']
    assert len(strategy.curve) == 2
    assert 'default' in strategy.curve[-1]


@pytest.mark.slow
def test_no_averages_without_batch_norm_statistics_for_them(tmp_path, task):
    states = []
    for average in (0.0, 1.0):
        torch.manual_seed(0)
        strategy = WarmStartDARTS(average=average)
        users_search(strategy, tmp_path, ByStage(task))
        states.append(strategy.supernet.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_nnis_evaluator_with_a_data_module_by_stage(tmp_path, task):
    floats = replace(task, train_x=task.train_x.float() / 255)
    module = ClassificationModule(num_classes=3)
    evaluator = Lightning(module, make_trainer(1, tmp_path, progress=False), datamodule=ByStage(floats))
    strategy = WarmStartDARTS()
    strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    assert 'test_accuracy' in strategy.oneshot_module.final


def test_a_last_picture_alone_teaches_no_alphas(tmp_path, task):
    splits = split(task)
    assert len(splits.val) == 18
    trainer = make_trainer(1, tmp_path, progress=False)
    evaluator = classification(splits, 3, trainer, batch_size=17, learning_rate=0.05, weight_decay=3e-4)
    space = NasBench201Space(width=4, image_size=8, stem_stride=2, num_classes=3)  # its last features are of one pixel
    strategy = WarmStartDARTS()
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    assert len(strategy.curve) == 1
    assert [len(y) for _, y in evaluator.datamodule.arc_dataloader()] == [17]
    assert [len(y) for _, y in evaluator.datamodule.val_dataloader()] == [17, 1]


def test_without_validation_nni_reports_as_before(tmp_path, task):
    """No validation, no figures of ours: the final result is NNI's, the training accuracy."""
    floats = replace(task, train_x=task.train_x.float() / 255)
    trainer = Trainer(max_epochs=1, limit_val_batches=0, logger=False, enable_progress_bar=False, enable_checkpointing=False)
    strategy = WarmStartDARTS()
    evaluator = Lightning(ClassificationModule(num_classes=3), trainer, datamodule=ByStage(floats))
    engine = SequentialExecutionEngine()
    strategy(RawFormatModelSpace(small_space(), evaluator), engine)
    assert strategy.curve == []
    (model,) = engine.list_models()
    assert 0 <= model.metrics.final <= 1


@pytest.mark.slow
def test_loaders_with_their_own_generator_give_nnis_bits(tmp_path, task):
    states = []
    for cls in (DARTS, WarmStartDARTS):
        torch.manual_seed(0)
        strategy = cls()
        users_search(strategy, tmp_path, ByStage(task, torch.Generator().manual_seed(7)))
        states.append(strategy.supernet.state_dict())
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


def test_alphas_enter_the_optimizer_by_label(tmp_path):
    strategy = run(WarmStartDARTS(), tmp_path, epochs=1, space=OwnSpace())
    optimizer = strategy.oneshot_module.configure_architecture_optimizers()
    expected = [choice.alpha for _, choice in sorted(choices(strategy.supernet).items())]
    assert len(expected) == 2
    assert all(left is right for left, right in zip(optimizer.param_groups[0]['params'], expected, strict=True))


def test_entropy_and_skip_share_of_known_alphas(tmp_path):
    model = mutate(OwnSpace(), 'DARTS')
    first, second = arch_parameters(model)
    with torch.no_grad():
        first.copy_(torch.tensor([0.0, 0.0]))
        second.copy_(torch.tensor([50.0, 0.0]))
    assert alpha_entropy(model) == pytest.approx(0.5)  # one undecided, one decided
    assert skip_share(model, {'first': 'skip', 'second': 'conv'}) == 0.5
    assert skip_share(model, {'first': 'skip', 'second': 'skip'}) == 1.0
