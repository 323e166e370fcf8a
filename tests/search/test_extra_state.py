"""Modules with ``get_extra_state``, in the space and in the evaluator: searched, averaged, kept, resumed."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import OwnSpace, make_task
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from torch import nn

from nni_warmstart import Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.evaluators.checkpoints import every_epoch


class Counting(nn.Module):
    """Counts its runs, whatever its mode; the count and a buffer that is made anew change what it gives."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.runs = kind, 0
        self.register_buffer('mean', torch.zeros(()))

    def forward(self, x):
        self.runs += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x * (1 + 0.01 * self.runs) - self.mean

    def get_extra_state(self):
        return {'tensor': torch.tensor(self.runs), 'dict': {'runs': self.runs}, 'number': self.runs}[self.kind]

    def set_extra_state(self, state):
        self.runs = int(state['runs'] if isinstance(state, dict) else state)


class Space(OwnSpace):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.counting = Counting(kind)
        self.third = LayerChoice({'count': Counting(kind), 'skip': nn.Identity()}, label='third')

    def forward(self, x):
        x = torch.relu(self.norm(self.second(self.first(torch.relu(self.stem(x))))))
        return self.head(self.third(self.counting(x)).mean((2, 3)))

    @property
    def runs(self) -> int:
        return self.counting.runs


class Module(ClassificationModule):
    """Has extra state itself."""

    steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)

    def get_extra_state(self):
        return {'steps': self.steps}

    def set_extra_state(self, state):
        self.steps = state['steps']


def search(out, strategy, kind, epochs=2, seed=0):
    torch.manual_seed(seed)
    trainer = Trainer(
        max_epochs=epochs, default_root_dir=out, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[every_epoch(out / 'last.ckpt')],
    )  # fmt: skip
    splits, module = split(make_task(n=64)), Module(num_classes=3)
    evaluator = Lightning(module, trainer, DataLoader(splits.train, 8, shuffle=True), DataLoader(splits.val, 8))
    strategy(RawFormatModelSpace(Space(kind), evaluator), SequentialExecutionEngine())
    return strategy, module


def different(one, other) -> list[str]:
    expected, found = one.supernet.state_dict(), other.supernet.state_dict()
    assert expected.keys() == found.keys()

    def same(x, y) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y

    return [name for name, value in expected.items() if not same(value, found[name])]


@pytest.mark.parametrize('kind', ['tensor', 'dict', 'number'])
def test_a_cold_search_is_that_of_nni(tmp_path, kind, caplog):
    nnis, module = search(tmp_path / 'a', DARTS(), kind)
    strategy, own = search(tmp_path / 'b', WarmStartDARTS(save_to=tmp_path / 'zoo', stop_on_eigenvalue=True), kind)
    assert different(nnis, strategy) == []
    assert own.steps == module.steps
    (entry,) = SupernetZoo(tmp_path / 'zoo').entries()
    built = entry.build(Space(kind))
    if kind == 'tensor':
        assert built.runs == strategy.supernet.runs
    else:
        assert 'is kept without counting._extra_state, third.count._extra_state, which is no tensor' in caplog.text
    state = strategy.supernet.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in entry.tensors.items())


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['tensor', 'dict', 'number'])
def test_it_is_resumed_averaged_and_started_from(tmp_path, kind):
    whole, module = search(tmp_path / 'whole', WarmStartDARTS(average=1.0), kind, epochs=3)
    search(tmp_path / 'part', WarmStartDARTS(average=1.0), kind, epochs=1)
    again = WarmStartDARTS(average=1.0)
    again.resume_from(tmp_path / 'part' / 'last.ckpt')
    _, own = search(tmp_path / 'part', again, kind, epochs=3, seed=5)
    assert different(whole, again) == []
    assert own.steps == module.steps
    source = Supernet.from_strategy(whole, name='source')
    warm, _ = search(tmp_path / 'warm', WarmStartDARTS(source=source), kind, epochs=1)
    assert warm.report.share_inherited == 1.0
