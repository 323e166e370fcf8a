"""Gradients after a warm start are clipped so that no step moves the weights far."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import run
from pytorch_lightning import LightningModule
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR

from nni_warmstart import WarmStartDARTS
from nni_warmstart.evaluators.classification import CosineClassification
from nni_warmstart.search.step_length import LONGEST, largest_gradient


@pytest.mark.parametrize(('momentum', 'nesterov'), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_moves_weights_in_the_end_by_the_length_of_a_step(momentum, nesterov):
    weight = torch.zeros(3)
    optimizer = SGD([weight], lr=0.3, momentum=momentum, nesterov=nesterov)
    largest = largest_gradient(optimizer, 8)
    for step in range(500):
        weight.grad = torch.tensor([0.6, 0.0, -0.8]) * largest * (step == 0)
        optimizer.step()
    assert float(weight.norm()) == pytest.approx(8 * LONGEST, rel=1e-4)


def test_the_fastest_group_counts():
    groups = [{'params': [torch.zeros(1)], 'lr': 0.01, 'momentum': 0.99}, {'params': [torch.zeros(1)], 'lr': 0.5}]
    assert largest_gradient(SGD(groups, lr=0.1), 16) == pytest.approx(LONGEST * 16 / 1.0)


@pytest.mark.parametrize(
    'schedule',
    [
        lambda optimizer: CosineAnnealingLR(optimizer, 10),
        lambda optimizer: LambdaLR(optimizer, lambda step: min((step + 1) / 5, 1.0)),
        lambda optimizer: OneCycleLR(optimizer, max_lr=0.4, total_steps=10, cycle_momentum=False),
    ],
    ids=['cosine', 'warm-up', 'one cycle'],
)
def test_the_limit_is_that_of_the_largest_rate_of_a_schedule(schedule):
    optimizer = SGD([torch.zeros(1)], lr=0.4)
    scheduler = schedule(optimizer)
    found = set()
    for _ in range(8):
        optimizer.step()
        found.add(largest_gradient(optimizer, 8))
        scheduler.step()
    assert found == {LONGEST * 8 / 0.4}


@pytest.mark.parametrize(
    ('kind', 'settings'), [(AdamW, {'lr': 0.1}), (SGD, {'lr': 0.0}), (SGD, {'lr': 0.1, 'momentum': 1.0})]
)
def test_other_optimizers_and_no_rate_have_no_limit(kind, settings):
    assert largest_gradient(kind([torch.zeros(1)], **settings), 8) is None


@pytest.fixture
def clipped(monkeypatch):
    """Largest gradient of every step of the weights."""
    found: list[float | None] = []
    lightnings = LightningModule.configure_gradient_clipping

    def configure(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        found.append(gradient_clip_val)
        lightnings(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    monkeypatch.setattr(LightningModule, 'configure_gradient_clipping', configure)
    return found


def test_a_warm_search_clips_by_the_first_rate_and_the_images_of_a_batch(source, tmp_path, clipped):
    run(WarmStartDARTS(source=source), tmp_path)
    assert len(clipped) == 2 * 3  # epochs, batches of eight images
    assert clipped == [pytest.approx(LONGEST * 8 * 0.1 / 0.05)] * 6


def test_a_limit_of_the_user_counts_and_a_cold_search_has_none(source, tmp_path, clipped):
    run(WarmStartDARTS(), tmp_path, epochs=1)
    run(WarmStartDARTS(source=source, gradient_clip_val=0), tmp_path, epochs=1)
    run(WarmStartDARTS(source=source, gradient_clip_val=7.0), tmp_path, epochs=1)
    assert clipped == [None] * 3 + [0] * 3 + [7.0] * 3


def test_an_evaluator_that_accumulates_gradients_is_left_alone(source, tmp_path, clipped, monkeypatch):
    monkeypatch.setattr(CosineClassification, 'optimizer_zero_grad', lambda *_: None, raising=False)
    run(WarmStartDARTS(source=source), tmp_path, epochs=1)
    assert clipped == [None] * 3


def test_a_search_that_began_without_a_limit_goes_on_without(source, tmp_path, clipped):
    """Its checkpoint has no such state."""
    run(WarmStartDARTS(source=source), tmp_path, epochs=1)
    path = next(tmp_path.rglob('*.ckpt'))
    for limited in (True, False):
        checkpoint = torch.load(path, weights_only=True)
        if not limited:
            del checkpoint['callbacks']['nni_warmstart.step_length']
        torch.save(checkpoint, tmp_path / 'earlier.ckpt')
        resumed = WarmStartDARTS(source=source)
        resumed.resume_from(tmp_path / 'earlier.ckpt')
        clipped.clear()
        run(resumed, tmp_path / f'{limited}', epochs=2)
        assert [largest is not None for largest in clipped] == [limited] * 3
