"""On a GPU as on a processor. Without one, transfers run on a pretended one; with one, `CUDA_VISIBLE_DEVICES=0 make test`
runs all tests on it."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from helpers.mapped import trained
from helpers.pretended_gpu import PretendedGPU
from helpers.tiny import make_task, run, small_space
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import NasBench201
from nni.nas.space import RawFormatModelSpace

from nni_warmstart import (
    JointClassification,
    Supernet,
    TransferReport,
    WarmStartDARTS,
    WarmStartGumbelDARTS,
    WarmStartProxyless,
    transfer,
)
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.search_spaces import DartsSpace
from nni_warmstart.warm_start.heads.ridge import blend_ridge_head

DATA = (torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def gpu(device: str) -> AbstractContextManager[Any]:
    """What a device needs: a GPU is pretended where there is none."""
    return PretendedGPU() if device == 'cuda' and not torch.cuda.is_available() else nullcontext()


def started(sources: list[Supernet], device: str, **settings) -> tuple[dict[str, torch.Tensor], TransferReport]:
    """Tensors of a target of width 6 that was started on a device, and the report."""
    torch.manual_seed(0)
    target = trained(NasBench201(6, 1, 3), 1)
    with gpu(device):
        report = transfer(sources, target, device=device, noise=0, **settings)
        assert {tensor.device.type for tensor in target.state_dict().values()} == {'cpu'}
    return target.state_dict(), report


@pytest.mark.slow
@pytest.mark.parametrize(
    ('widths', 'head'), [((6,), 'ot'), ((4,), 'prototype'), ((8,), 'ridge'), ((12,), 'random'), ((6, 8), 'ridge')]
)
def test_a_transfer_is_that_on_a_processor(monkeypatch, widths, head):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    sources = [Supernet.from_model(trained(NasBench201(w, 1, 3), w), name=f'w{w}', dataset=make_task()) for w in widths]
    settings = {'head': head, 'data': None if head == 'random' else DATA}
    (here, mine), (there, theirs) = (started(sources, device, **settings) for device in ('cpu', 'cuda'))
    for name, tensor in here.items():
        assert torch.allclose(tensor.double(), there[name].double(), atol=2e-3, rtol=2e-3), name
    assert [origin.how for origin in mine.origins] == [origin.how for origin in theirs.origins]
    if head != 'random':
        assert mine.zero_shot_accuracy == pytest.approx(theirs.zero_shot_accuracy, abs=0.05)


def test_a_classifier_is_refitted_on_the_device():
    model, batches = trained(NasBench201(6, 1, 3), 1), [(DATA[0][:16], DATA[1][:16]), (DATA[0][16:], DATA[1][16:])]
    weights = []
    for device in ('cpu', 'cuda'):
        fitted = copy.deepcopy(model).eval()
        with gpu(device):
            blend_ridge_head(fitted.to(device), ((x.to(device), y) for x, y in batches), device, 0.5)
            weights.append(fitted.to('cpu').classifier.weight.detach())
    assert torch.allclose(*weights, atol=1e-4)
    assert not torch.equal(weights[0], model.classifier.weight)


def test_two_devices_do_not_meet():
    """What stands in for a GPU above does object."""
    with PretendedGPU():
        layer, x = torch.nn.Linear(3, 2).to('cuda'), torch.randn(4, 3)
        assert layer(x.to('cuda')).device.type == 'cuda'
        with pytest.raises(RuntimeError, match='same device'):
            layer(x)
        with pytest.raises(TypeError, match='numpy'):
            layer.weight.detach().numpy()
        assert layer.weight.detach().cpu().numpy().shape == (2, 3)


@needs_gpu
@pytest.mark.parametrize('strategy', [WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless])
def test_a_search_from_a_searched_supernet(tmp_path, strategy):
    zoo = tmp_path / 'zoo'
    first = run(strategy(save_to=zoo), tmp_path, epochs=3)
    assert first.oneshot_module.final['test_accuracy'] > 0
    second = run(strategy(source='auto', zoo=zoo), tmp_path, epochs=2)
    assert second.report.share_inherited > 0.9
    assert all(tensor.device.type == 'cpu' for tensor in second.supernet.state_dict().values())


@needs_gpu
def test_a_search_in_the_darts_space_from_several_sources(tmp_path):
    sources = []
    for seed, width in enumerate((4, 8)):
        space = DartsSpace(width=width, num_cells=3, num_classes=3, image_size=8, num_nodes=2)
        done = run(WarmStartDARTS(), tmp_path, space=space, task=make_task(seed=seed), epochs=1)
        sources.append(Supernet.from_strategy(done, name=f'w{width}', dataset=make_task(seed=seed)))
    space = DartsSpace(width=6, num_cells=4, num_classes=3, image_size=8, num_nodes=2)
    done = run(WarmStartDARTS(source=sources, stop_on_eigenvalue=True), tmp_path, space=space, epochs=2)
    assert done.report.source == 'w4 + w8'
    assert all(abs(figures['alpha_eigenvalue']) > 0 for figures in done.curve)


@needs_gpu
def test_joint_pretraining_and_a_start_from_it(tmp_path):
    tasks = {'a': make_task(classes=3), 'b': make_task(n=64, classes=2, seed=1)}
    trainer = make_trainer(2, tmp_path, progress=False)
    joint = JointClassification(tasks, trainer, batch_size=8, steps_per_epoch=4, jitter=0.1)
    strategy = WarmStartDARTS()
    strategy(RawFormatModelSpace(small_space(joint.num_classes), joint), SequentialExecutionEngine())
    source = Supernet.from_strategy(strategy, name='joint')
    assert run(WarmStartDARTS(source=source), tmp_path, epochs=1).report.zero_shot_accuracy is not None
