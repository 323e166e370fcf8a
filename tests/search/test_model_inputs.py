"""What is measured goes through the evaluator: its forward pass may normalise, and its metric says what accuracy is."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import OwnSpace, make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, SupervisedLearningModule, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import LightningDataModule
from torch.utils.data import TensorDataset
from torchmetrics.classification import BinaryAccuracy, MultilabelAccuracy

from nni_warmstart import ConfigError, Supernet, SupernetZoo, TransferError, WarmStartDARTS
from nni_warmstart.search.model_inputs import reader_of


class Normalising(ClassificationModule):
    """Takes pixels from 0 to 255."""

    def forward(self, x):
        return self.model(x / 127.5 - 1)


class Parts(LightningDataModule):
    """Training, validation and test images."""

    def __init__(self, x, y) -> None:
        super().__init__()
        self.parts = TensorDataset(x[:32], y[:32]), TensorDataset(x[32:48], y[32:48]), TensorDataset(x[48:], y[48:])

    def train_dataloader(self):
        return DataLoader(self.parts[0], 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.parts[1], 8)

    def test_dataloader(self):
        return DataLoader(self.parts[2], 8)


def search(tmp_path, strategy, space, module, data):
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=2, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    strategy(RawFormatModelSpace(space, Lightning(module, trainer, datamodule=data)), SequentialExecutionEngine())
    return strategy


def images():
    task = make_task(n=84)
    return torch.cat([task.train_x, task.test_x]).float(), torch.cat([task.train_y, task.test_y])


@pytest.mark.slow
@pytest.mark.parametrize('warm', [False, True], ids=['cold', 'warm'])
def test_an_evaluator_that_normalises_is_that_on_normalised_images(tmp_path, source, warm):
    x, y = images()
    found = []
    for index, (module, data) in enumerate(((Normalising, x), (ClassificationModule, x / 127.5 - 1))):
        torch.manual_seed(0)
        zoo = tmp_path / f'zoo{index}'
        strategy = WarmStartDARTS(source=source if warm else None, average=1.0, save_to=zoo)
        search(tmp_path, strategy, small_space(), module(num_classes=3), Parts(data, y))
        figures = [[epoch['default'], epoch['val_loss']] for epoch in strategy.curve]
        before = strategy.report and strategy.report.zero_shot_accuracy
        (entry,) = SupernetZoo(zoo).entries()
        found.append(
            (figures, before, strategy.oneshot_module.final['test_accuracy'], entry.sketches['pixels'].means.tolist())
        )
    assert found[0] == found[1]


class ByName(ClassificationModule):
    def forward(self, x):
        return self.model(x=x / 127.5 - 1, scale=torch.tensor(2.0))


class InParts(ClassificationModule):
    def forward(self, x):
        return self.model.head(self.model.stem(x / 127.5 - 1).mean((2, 3)))


class OnTwo(ClassificationModule):
    def forward(self, x):
        return self.model(x / 127.5 - 1, mask=x > 0)


def evaluator(kind):
    module = kind(num_classes=3)
    module.set_model(OwnSpace())
    return module


def test_an_evaluator_may_name_the_input_of_its_model():
    x, _ = images()
    assert torch.equal(reader_of(evaluator(ByName))(x), x / 127.5 - 1)


@pytest.mark.parametrize(
    ('kind', 'does'), [(InParts, 'does not call the model as a whole'), (OnTwo, 'calls .* on 2 inputs')]
)
def test_it_is_said_where_the_input_of_a_model_is_not_known(kind, does):
    with pytest.raises(TransferError, match=f'{kind.__name__}.forward {does}.*have it call self.model on one tensor'):
        reader_of(evaluator(kind))(images()[0])


@pytest.mark.parametrize('warm', [False, True], ids=['cold', 'warm'])
def test_nothing_is_estimated_on_images_that_the_model_would_not_read(tmp_path, caplog, warm):
    x, y = images()
    if warm:
        source = Supernet.from_model(WarmStartDARTS().mutate_model(OwnSpace()), name='source')
        with pytest.raises(TransferError, match='does not call the model as a whole'):
            search(tmp_path, WarmStartDARTS(source=source), OwnSpace(), InParts(num_classes=3), Parts(x, y))
        return
    strategy = search(tmp_path, WarmStartDARTS(average=1.0), OwnSpace(), InParts(num_classes=3), Parts(x, y))
    assert strategy.oneshot_module.evaluation.averaged is None
    assert caplog.text.count('not averaged: InParts.forward does not call the model as a whole') == 1


class Binary(SupervisedLearningModule):
    """One logit for two classes."""

    def __init__(self) -> None:
        metrics = {'acc': BinaryAccuracy()}
        super().__init__(torch.nn.BCEWithLogitsLoss, metrics, learning_rate=0.01, export_onnx=False)

    def forward(self, x):
        return self.model(x).squeeze(1)


class Labels(SupervisedLearningModule):
    """Three labels that an image may have or not."""

    def __init__(self) -> None:
        metrics = {'acc': MultilabelAccuracy(num_labels=3)}
        super().__init__(torch.nn.BCEWithLogitsLoss, metrics, learning_rate=0.01)  # whose default writes ONNX


@pytest.mark.parametrize('kind', [Binary, Labels])
def test_the_accuracy_is_that_of_the_evaluators_metric(tmp_path, kind):
    x, y = images()
    y = (y == 0).float() if kind is Binary else torch.nn.functional.one_hot(y, 3).float()
    data = Parts(x / 127.5 - 1, y)
    data.parts = (data.parts[0], data.parts[1], data.parts[1])  # tested on what validates
    module = kind()
    strategy = search(tmp_path, WarmStartDARTS(), OwnSpace(1 if kind is Binary else 3), module, data)
    final = strategy.oneshot_module.final
    assert final['test_accuracy'] == pytest.approx(final['default'])
    assert final['test_accuracy'] > 0.5


def test_one_data_module_serves_two_searches(tmp_path):
    x, y = images()
    data, curves = Parts(x / 127.5 - 1, y), []
    for _ in range(2):
        torch.manual_seed(0)
        strategy = search(tmp_path, WarmStartDARTS(), small_space(), ClassificationModule(num_classes=3), data)
        curves.append([epoch['val_loss'] for epoch in strategy.curve])
    assert curves[0] == curves[1]


class Odd(OwnSpace):
    """Fails while it is mutated."""

    def extra_oneshot_hooks(self, strategy):
        raise KeyError('odd')


def test_a_space_that_cannot_be_mutated_raises_what_nni_raises():
    for wrong, kind in ((torch.nn.Linear(1, 1), AttributeError), (Odd(), KeyError)):
        with pytest.raises(ConfigError, match='NNI cannot make a supernet of') as caught:
            WarmStartDARTS().mutate_model(wrong)
        assert isinstance(caught.value, kind)
        assert str(caught.value).startswith('NNI')
