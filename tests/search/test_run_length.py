"""How long a search lasts is asked of its trainer: epochs, steps or time."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from helpers.tiny import make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback

from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.search.alpha_rate import LARGEST, TRAVEL
from nni_warmstart.search.run_length import planned_batches, progress


class Look(Callback):
    """Notes what is known of the length, and the rate of the alphas, after every epoch."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        rate = pl_module.architecture_optimizers().param_groups[0]['lr']
        self.seen.append((progress(trainer, trainer.current_epoch + 1), planned_batches(trainer, 0), rate))


def search(tmp_path, source, **limits):
    torch.manual_seed(0)
    task, look = make_task(n=64), Look()
    trainer = Trainer(
        default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[look], **limits,
    )  # fmt: skip
    splits = split(task)
    loaders = DataLoader(splits.train, 8, shuffle=True), DataLoader(splits.val, 8)
    evaluator = Lightning(ClassificationModule(num_classes=task.num_classes), trainer, *loaders)
    strategy = WarmStartDARTS(source=source)
    strategy(RawFormatModelSpace(small_space(task.num_classes), evaluator), SequentialExecutionEngine())
    return look.seen, strategy


def test_epochs_and_steps_mean_the_same(tmp_path, source):
    by_epochs, first = search(tmp_path, source, max_epochs=2)
    batches = first.oneshot_module.trainer.num_training_batches
    assert [each[:2] for each in by_epochs] == [(0.5, 2 * batches), (1.0, 2 * batches)]
    by_steps, second = search(tmp_path, source, max_epochs=-1, max_steps=4 * batches)  # of weights and of alphas
    assert by_steps == by_epochs
    assert by_epochs[0][2] == LARGEST
    state = second.supernet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.supernet.state_dict().items())


@pytest.mark.slow
def test_what_ends_first_counts(tmp_path, source):
    seen, strategy = search(tmp_path, source, max_epochs=100, max_steps=20)
    assert seen[-1][0] == 1.0
    assert seen[-1][1] == 10
    seen, strategy = search(tmp_path, source, max_epochs=1000, max_steps=-1, max_time=timedelta(seconds=2))
    shares, lengths = [each[0] for each in seen], [each[1] for each in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=0.2)
    done = len(seen) * strategy.oneshot_module.trainer.num_training_batches
    assert lengths[-1] == pytest.approx(done, rel=0.3)
    assert seen[-1][2] == pytest.approx(min(TRAVEL / done, LARGEST), rel=0.5)
