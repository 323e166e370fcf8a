"""Data that cannot be read twice, or that never end: a search reads copies, or says in one line that it does without."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import IterableDataset, TensorDataset

from nni_warmstart import SupernetZoo, TransferError, WarmStartDARTS
from nni_warmstart.search import evaluation, loaders


class Stream(IterableDataset):
    """Never ends, and goes on where it stopped."""

    def __init__(self) -> None:
        task = make_task()
        self.x, self.y, self.position = task.train_x.float() / 255, task.train_y, 0

    def __iter__(self):
        while True:
            self.position += 1
            yield self.x[self.position % len(self.x)], self.y[self.position % len(self.y)]


class Pipe(Stream):
    """Holds a Python generator, which has no copy."""

    def __init__(self) -> None:
        super().__init__()
        self.pipe = super().__iter__()

    def __iter__(self):
        return self.pipe


class Module(ClassificationModule):
    def __init__(self) -> None:
        super().__init__(num_classes=3, learning_rate=0.01)
        self.seen: list[float] = []

    def training_step(self, batch, batch_idx):
        self.seen += [float(image.double().sum()) for image in batch[0]]
        return super().training_step(batch, batch_idx)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(evaluation, 'MOST_SAMPLES', 64)
    monkeypatch.setattr(loaders, 'MOST_OF_A_STREAM', 64)


def search(tmp_path, strategy, stream, **settings):
    torch.manual_seed(0)
    module = Module()
    trainer = Trainer(
        max_epochs=2, limit_train_batches=4, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    evaluator = Lightning(module, trainer, DataLoader(stream(), 8), DataLoader(stream(), 8))
    strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    return module.seen


def test_an_endless_stream_is_started_from_averaged_and_remembered(tmp_path, source):
    strategy = WarmStartDARTS(source=source, save_to=tmp_path / 'zoo')
    seen = search(tmp_path, strategy, Stream)
    assert seen == search(tmp_path, DARTS(), Stream)
    assert strategy.report.zero_shot_accuracy is not None
    assert strategy.oneshot_module.evaluation.averaged is not None
    assert all('default' in epoch for epoch in strategy.curve)
    (entry,) = SupernetZoo(tmp_path / 'zoo').entries()
    assert 'pixels' in entry.sketches
    assert entry.dataset == 'Stream'


def test_as_much_is_validated_as_the_user_says(tmp_path, monkeypatch):
    counts = []
    for limit in (1.0, 3):
        validated: list[int] = []

        def step(self, batch, batch_idx, validated=validated):
            validated.append(batch_idx)

        monkeypatch.setattr(Module, 'validation_step', step, raising=False)
        search(tmp_path, WarmStartDARTS(), Stream, limit_val_batches=limit, num_sanity_val_steps=0)
        counts.append(len(validated))
    assert counts == [8, 6]  # in two epochs: as many as are trained on, and three


@pytest.mark.slow
def test_a_stream_without_a_copy_is_left_to_the_training(tmp_path, source, caplog):
    expected = search(tmp_path, DARTS(), Pipe)
    for strategy in (WarmStartDARTS(save_to=tmp_path / 'zoo', average=1.0), WarmStartDARTS(source=source, head='random')):
        caplog.clear()
        assert search(tmp_path, strategy, Pipe) == expected
        lines = [
            record.message for record in caplog.records if 'cannot be read without changing the training' in record.message
        ]
        assert any('without validation: the val data' in line for line in lines)
        assert any('The weights are not averaged: ' in line for line in lines)
        assert all('generator' in line for line in lines)
    assert strategy.report.share_inherited > 0.9


def test_a_head_that_is_fitted_refuses_it_in_one_line(tmp_path, source):
    with pytest.raises(
        TransferError, match=r"generator.*, and head 'ridge' is fitted on them; pass head='random'"
    ) as caught:
        search(tmp_path, WarmStartDARTS(source=source), Pipe)
    assert '\n' not in str(caught.value)


class First(Module):
    """Is trained on the first of several batches, in whatever they come."""

    def training_step(self, batch, batch_idx):
        while not isinstance(batch[0] if isinstance(batch, list | tuple) else None, torch.Tensor):
            batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
        return super().training_step(batch, batch_idx)


SEVERAL = {
    'list': lambda make: [make(), make()],
    'dict': lambda make: {'a': make(), 'b': make()},
    'nested': lambda make: {'a': [make()], 'b': make()},
    'combined': lambda make: CombinedLoader([make(), make()], 'min_size'),
}


@pytest.mark.slow
@pytest.mark.parametrize('half', ['train', 'val'])
@pytest.mark.parametrize('several', SEVERAL)
def test_several_loaders_in_place_of_one(tmp_path, several, half):
    task, found = make_task(), []
    data = TensorDataset(task.train_x.float() / 255, task.train_y)
    for strategy in (DARTS(), WarmStartDARTS(average=1.0)):
        torch.manual_seed(0)
        module = First()
        trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, logger=False, enable_progress_bar=False)
        loaders = {part: DataLoader(data, 8, shuffle=True) for part in ('train', 'val')}
        loaders[half] = SEVERAL[several](lambda: DataLoader(data, 8, shuffle=True))
        evaluator = Lightning(module, trainer, *loaders.values())
        strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
        found.append((module.seen, torch.get_rng_state().tolist()))
    assert found[0] == found[1]
