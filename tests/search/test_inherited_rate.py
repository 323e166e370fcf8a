"""Inherited weights of a pretrained network learn at a smaller rate, by any optimizer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nni_warmstart.search.inherited_rate import CLIP, RATE, InheritedRate


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        (torch.optim.SGD, {'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.01}),
        (torch.optim.AdamW, {'lr': 0.01, 'weight_decay': 0.1}),
    ],
)
def test_updates_are_those_of_a_group_with_a_smaller_rate(kind, settings):
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    models = []
    for is_group in (False, True):
        torch.manual_seed(1)
        model = nn.ModuleDict({'body': nn.Linear(4, 4), 'head': nn.Linear(4, 2)})
        rate = InheritedRate()
        groups = [{'params': model['body'].parameters(), 'lr': settings['lr'] * (RATE if is_group else 1)}]
        optimizer = kind([*groups, {'params': model['head'].parameters()}], **settings)
        rate.names = [] if is_group else ['body.weight', 'body.bias']
        module = SimpleNamespace(model=model, gradient_clip_val=None)
        rate.on_train_start(SimpleNamespace(optimizers=[optimizer]), module)
        assert module.gradient_clip_val == (None if is_group else CLIP)
        for _ in range(2):
            optimizer.zero_grad()
            model['head'](model['body'](x)).square().sum().backward()
            optimizer.step()
        rate.on_train_end(None, None)
        models.append(model)
        assert not optimizer._optimizer_step_pre_hooks
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
