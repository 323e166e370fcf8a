"""Each phase of a step computes its own gradients only, and nothing else of a search changes by a bit."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import OwnSpace, make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_warmstart import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.data import split
from nni_warmstart.nni_adapter.choices import arch_parameters
from nni_warmstart.search.oneshot_module import DartsSearchModule
from nni_warmstart.search.phases import frozen

PAIRS = {
    'DARTS': (DARTS, WarmStartDARTS),
    'Gumbel': (GumbelDARTS, WarmStartGumbelDARTS),
    'Proxyless': (Proxyless, WarmStartProxyless),
}


class Module(ClassificationModule):
    def __init__(self, **settings) -> None:
        super().__init__(num_classes=3, learning_rate=0.05, optimizer=torch.optim.SGD, **settings)
        self.seen: list[tuple[bool, bool]] = []

    def look(self) -> None:
        """Note which gradients there are: of alphas, of weights."""
        alphas = {id(alpha) for alpha in arch_parameters(self.model)}
        with_gradient = [id(p) in alphas for p in self.parameters() if p.grad is not None]
        self.seen.append((any(with_gradient), not all(with_gradient)))


class Accumulating(Module):
    def optimizer_zero_grad(self, epoch, batch_idx, optimizer) -> None:
        if batch_idx % 2 == 0:
            optimizer.zero_grad()


class AcrossEpochs(Module):
    """Takes a step after every second batch, of whatever epoch."""

    batches = 0

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer) -> None:
        if self.batches % 2 == 0:
            optimizer.zero_grad()
        self.batches += 1

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        if self.batches % 2 == 0:
            optimizer.step()


class AfterBackward(Module):
    def on_after_backward(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), 0.5)


class BeforeStep(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        nn.utils.clip_grad_norm_(pl_module.parameters(), 0.5)


class Clipping(Module):
    def configure_gradient_clipping(self, optimizer, *settings) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), 0.5)


class Decaying(Module):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 0.01 * sum(p.square().sum() for p in self.parameters())


class Penalising(Module):
    """Punishes large gradients of weights, as far as they can be computed."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        weights = [weight for weight in self.model.classifier.parameters() if weight.requires_grad]
        found = torch.autograd.grad(loss, weights, create_graph=True)
        return loss + 0.1 * sum(gradient.square().sum() for gradient in found)


class Partial(Module):
    """Trains the classifier only."""

    def configure_optimizers(self):
        return torch.optim.SGD(list(self.parameters())[-2:], 0.1, momentum=0.9)


class Frozen(Module):
    """Some weights and one of the alphas do not learn."""

    def on_fit_start(self) -> None:
        for parameter in (*list(self.model.parameters())[:2], arch_parameters(self.model)[-1]):
            parameter.requires_grad_(False)


class NoAlphas(Module):
    def on_fit_start(self) -> None:
        for alpha in arch_parameters(self.model):
            alpha.requires_grad_(False)


class NoWeights(Module):
    def on_fit_start(self) -> None:
        alphas = {id(alpha) for alpha in arch_parameters(self.model)}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in alphas)


class Checkpointed(OwnSpace):
    reentrant = False

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for layer in (self.first, self.second):
            x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.head(torch.relu(self.norm(x)).mean((2, 3)))


class Reentrant(Checkpointed):
    reentrant = True


def search(strategy, tmp_path, module=Module, space=small_space, callbacks=(), **settings):
    torch.manual_seed(3)
    splits, module = split(make_task(n=32)), module()
    trainer = Trainer(
        max_epochs=2, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[each() for each in callbacks], **settings,
    )  # fmt: skip
    loaders = DataLoader(splits.train, 4, shuffle=True), DataLoader(splits.val, 4)
    strategy(RawFormatModelSpace(space(), Lightning(module, trainer, *loaders)), SequentialExecutionEngine())
    return strategy, module


def final(strategy) -> list:
    """All numbers that a search leaves: weights, statistics, alphas, states of both optimizers by parameter."""
    model, names = strategy.supernet, {}
    for name, parameter in model.named_parameters():
        names[id(parameter)] = name
    found = list(model.state_dict().items())
    for optimizer in strategy.oneshot_module.trainer.optimizers:
        for parameter, state in optimizer.state.items():
            found += [
                (f'{names[id(parameter)]} {key}', torch.as_tensor(value))
                for key, value in state.items()
                if value is not None
            ]
    return sorted(found, key=lambda item: item[0])


CASES = {
    'plain': {},
    'clipped': {'gradient_clip_val': 0.5},
    'warm-up': {'warmup_epochs': 1},
    'accumulating': {'module': Accumulating},
    'accumulating across epochs': {'module': AcrossEpochs},
    'own clipping': {'module': Clipping},
    'after backward': {'module': AfterBackward},
    'before the step': {'callbacks': [BeforeStep]},
    'decaying': {'module': Decaying},
    'penalising': {'module': Penalising},
    'partial': {'module': Partial},
    'frozen': {'module': Frozen},
    'no alphas': {'module': NoAlphas},
    'no weights': {'module': NoWeights},
    'checkpoints': {'space': Checkpointed},
    'reentrant checkpoints': {'space': Reentrant},
}


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('pair', PAIRS)
def test_a_search_is_that_of_nni_to_the_bit(tmp_path, pair, case):
    settings = dict(CASES[case])
    parts = {key: settings.pop(key) for key in ('module', 'space', 'callbacks') if key in settings}
    expected, found = (final(search(cls(arc_learning_rate=0.01, **settings), tmp_path, **parts)[0]) for cls in PAIRS[pair])
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [name for (name, a), (_, b) in zip(expected, found, strict=True) if not torch.equal(a, b)] == []


@pytest.mark.parametrize(
    ('module', 'phases'),
    [
        (Module, [(True, False), (False, True)]),
        (Accumulating, [(True, True), (False, True)]),
        (Clipping, [(True, False), (True, True)]),
        (Penalising, [(True, True), (True, True)]),
    ],
)
def test_each_phase_computes_its_own_gradients(tmp_path, monkeypatch, module, phases):
    backward = DartsSearchModule.manual_backward

    def noted(self, loss, *arguments, **others):
        backward(self, loss, *arguments, **others)
        self.training_module.look()

    monkeypatch.setattr(DartsSearchModule, 'manual_backward', noted)
    _, module = search(WarmStartDARTS(), tmp_path, module)
    assert module.seen[2:] == phases * (len(module.seen) // 2 - 1)  # the first step looks at all


class Moved(Callback):
    """Notes how far the weights move in the first batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 0:
            self.before = pl_module.model.classifier.weight.detach().clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx == 0:
            self.distance = float((pl_module.model.classifier.weight.detach() - self.before).norm())


def test_gradients_of_mixed_precision_are_clipped_at_their_true_size(tmp_path):
    """With ``16-mixed`` they are multiplied by a scale until the step."""
    found = []
    for scaled in (False, True):
        scaler = torch.amp.GradScaler('cpu', init_scale=65536.0, enabled=scaled)
        moved = Moved()
        plugins = [MixedPrecision('16-mixed', 'cpu', scaler=scaler)]
        search(WarmStartDARTS(gradient_clip_val=0.5), tmp_path, callbacks=[lambda moved=moved: moved], plugins=plugins)
        found.append(moved.distance)
    assert found[0] > 1e-4
    assert found[1] == pytest.approx(found[0], rel=0.1)  # in half precision


@pytest.mark.parametrize(
    ('module', 'why'),
    [
        (Clipping, 'Clipping.configure_gradient_clipping may read them'),
        (Penalising, 'Penalising.training_step computes gradients itself'),
    ],
)
def test_the_log_names_what_needs_all_gradients(tmp_path, caplog, module, why):
    caplog.set_level('INFO', 'nni_warmstart')
    search(WarmStartDARTS(), tmp_path, module)
    assert f'weights computes all gradients, as in NNI: {why}' in caplog.text


def test_an_exception_puts_everything_back():
    learns, fixed = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    learns.grad = gradient = torch.ones(1)
    with pytest.raises(ArithmeticError), frozen([learns, fixed]) as count:
        assert (count, learns.requires_grad, learns.grad) == (1, False, None)
        raise ArithmeticError
    assert learns.requires_grad
    assert learns.grad is gradient
    assert not fixed.requires_grad
