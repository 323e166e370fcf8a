"""Plans are applied for a while, to what they fit, and leave nothing behind."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import OwnSpace, small_space
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedLayer
from torch import nn

from nni_warmstart.fast_forward.forward import FastForward
from nni_warmstart.fast_forward.plans import plan_of
from nni_warmstart.nni_adapter.mutation import mutate


def exchanged(model: nn.Module) -> int:
    return sum('forward' in vars(module) for module in model.modules())


def test_forwards_are_exchanged_within_the_context_only():
    model = mutate(small_space(), 'DARTS')
    keys, forward = list(model.state_dict()), FastForward(model)
    with pytest.raises(ArithmeticError), forward.applied():
        assert exchanged(model) == 4  # three cells, and the model, whose images get channels last
        assert list(model.state_dict()) == keys
        with forward.applied():
            assert exchanged(model) == 4
        assert exchanged(model) == 4
        raise ArithmeticError
    assert exchanged(model) == 0


def test_hooks_in_a_cell_are_called_by_nnis_forward(caplog):
    caplog.set_level('INFO', 'nni_warmstart')
    model, seen = mutate(small_space(), 'DARTS'), []
    forward = FastForward(model)
    hook = model.cells[0].layers[0][0]['conv_3x3'].op[1].register_forward_hook(lambda *_: seen.append(1))
    for _ in range(2):
        with forward.applied():
            assert exchanged(model) == 3
            model(torch.randn(2, 3, 8, 8))
    assert seen == [1, 1]
    assert caplog.text.count("cells.0 runs by NNI's forward while Conv2d has hooks.") == 1
    hook.remove()
    with forward.applied():
        assert exchanged(model) == 4


def test_a_forward_that_somebody_exchanged_is_called():
    model = mutate(OwnSpace(), 'DARTS')
    forward, conv = FastForward(model), model.first['conv']
    conv.forward = lambda x: 0 * x
    with forward.applied(), torch.no_grad():
        x = torch.randn(1, 6, 4, 4)
        torch.testing.assert_close(model.first(x), x * model.first._arch_alpha.softmax(0)[1])


@pytest.mark.parametrize(
    'layer', [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4).eval()]
)
def test_batch_norm_of_any_mode(layer):
    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.choice = LayerChoice({'norm': layer, 'skip': nn.Identity()}, label='choice')

        def forward(self, x):
            return self.choice(x)

    model = mutate(Space(), 'DARTS')
    forward, x = FastForward(model), torch.randn(8, 4, 3, 3)
    start = {name: buffer.clone() for name, buffer in model.named_buffers()}
    results = []
    for fast in (False, True):
        model.load_state_dict(start, strict=False)
        if fast:
            with forward.applied():
                output = model(x)
        else:
            output = model(x)
        results.append((output, {name: buffer.clone() for name, buffer in model.named_buffers()}))
    torch.testing.assert_close(results[1], results[0])


def test_the_summary_has_a_line_for_each_kind():
    class Changed(DifferentiableMixedLayer):
        def forward(self, x):
            return x

    model = mutate(OwnSpace(), 'DARTS')
    model.second.__class__ = Changed
    lines = FastForward(model).summary()
    assert lines == [
        "first (DifferentiableMixedLayer): run by the plan 'choice'",
        "second (Changed): run by NNI's forward: it is not mixed as in DARTS",
    ]
    proxyless = FastForward(mutate(small_space(), 'Proxyless'))
    assert not proxyless.fits
    assert proxyless.why_not == 'cells.0: its choices are not mixed as in DARTS'
    assert plan_of(nn.Linear(2, 2)) is None
    assert FastForward(nn.Linear(2, 2)).why_not == 'Linear: it has no cells and no choices of layers'
