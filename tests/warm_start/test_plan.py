"""A warm start that is prepared once and applied several times."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny import batches, target
from nni.nas.hub.pytorch import NasBench201

from nni_warmstart import TransferError, transfer
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.warm_start.plan import Plan
from nni_warmstart.warm_start.settings import TransferSettings


def of_width(width: int) -> torch.nn.Module:
    torch.manual_seed(1)
    return mutate(NasBench201(stem_out_channels=width, num_modules_per_stack=1, num_labels=4), 'DARTS')


@pytest.mark.slow
@pytest.mark.parametrize('width', [4, 6, 2], ids=['same', 'wider', 'narrower'])
@pytest.mark.parametrize('number', [1, 2], ids=['one', 'fused'])
def test_a_plan_gives_the_same_every_time_and_what_transfer_gives(source, width, number):
    weighted = [(source.renamed(f's{index}'), 1 / number) for index in range(number)]
    models = [of_width(width) for _ in range(3)]
    before = copy.deepcopy(models[0].state_dict())
    plan = Plan.prepare(weighted, models[0], TransferSettings(), batches(4)[:1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in models[0].state_dict().items())
    plan.apply(models[1], batches(4, seed=9))  # other images leave no trace in the plan
    reports = [plan.apply(models[0], batches(4)), transfer(weighted, models[2], data=batches(4))]
    assert reports[0].origins == reports[1].origins
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[2].state_dict()[name]), name


def test_a_plan_that_fails_leaves_the_target_as_it_was(source):
    model = target()
    before = copy.deepcopy(model.state_dict())
    plan = Plan.prepare([(source, 1.0)], model, TransferSettings(), batches(4)[:1])
    with pytest.raises(TransferError, match='labels from 1 to 4'):
        plan.apply(model, [(x, y + 1) for x, y in batches(4)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(TransferError, match="head 'ridge' is fitted on the target's training data and there are none"):
        plan.apply(model)


def test_a_source_of_no_weight_is_left_out(source):
    """So of two, of which one has the target's very data, that one is copied."""
    plan = Plan.prepare([(source, 1.0), (source.renamed('far'), 0.0)], target(), TransferSettings(), batches(4)[:1])
    report = plan.apply(target(), batches(4))
    assert report.source == source.name
    assert 'fused' not in {origin.how for origin in report.origins}
