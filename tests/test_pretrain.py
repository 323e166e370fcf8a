"""Joint training: each dataset has its own head, its own batches, and its own share."""

from __future__ import annotations

import pytest
import torch
from conftest import make_task, small_space
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_warmstart import DataError, JointClassification, WarmStartDARTS
from nni_warmstart.evaluator import make_trainer
from nni_warmstart.pretrain import JointModule, _EveryBatch, _RandomBatches, jittered


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


def test_batches_hold_one_dataset(joint):
    for loader in (joint.datamodule.train_dataloader(), joint.datamodule.val_dataloader()):
        seen = set()
        for _, y in loader:
            heads = {int(label) < 3 for label in y}
            assert len(heads) == 1
            seen |= heads
        assert seen == {True, False}


def test_every_validation_picture_comes_once():
    batches = list(_EveryBatch([5, 9], batch_size=4))
    assert sorted(index for batch in batches for index in batch) == list(range(14))
    assert all(len({index < 5 for index in batch}) == 1 for batch in batches)


@pytest.mark.parametrize(('temperature', 'share'), [(1.0, 0.9), (2.0, 0.75), (1e9, 0.5)])
def test_temperature_flattens_the_draw(temperature, share):
    torch.manual_seed(0)
    batches = list(_RandomBatches([900, 100], 8, 4000, temperature))
    assert sum(batch[0] < 900 for batch in batches) / 4000 == pytest.approx(share, abs=0.03)


def test_classes_of_other_datasets_do_not_compete():
    module = JointModule({'a': (0, 3), 'b': (3, 5)})
    logits = torch.tensor([[0.0, 1.0, 2.0, 50.0, 60.0], [70.0, 80.0, 90.0, 2.0, 1.0]])
    y = torch.tensor([1, 3])
    loss, right = module.joint_loss(logits, y)
    own = [
        torch.nn.functional.cross_entropy(logits[:1, :3], y[:1]),
        torch.nn.functional.cross_entropy(logits[1:, 3:], y[1:] - 3),
    ]
    assert loss == pytest.approx(float(sum(own)) / 2)
    assert right.tolist() == [False, True]


def test_jitter_moves_pictures_a_little():
    x = torch.rand(6, 3, 16, 16)
    assert jittered(x, 0.0) is x
    torch.manual_seed(0)
    moved = jittered(x, 0.1)
    assert moved.shape == x.shape
    assert not torch.allclose(moved, x)
    constant = torch.full((2, 1, 8, 8), 0.7)
    assert torch.allclose(jittered(constant, 0.3), constant, atol=1e-5)  # borders are repeated, not blackened


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match='needs at least one dataset'):
        JointClassification({}, make_trainer(1, tmp_path, progress=False))
