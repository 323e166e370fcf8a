"""Settings of a warm start, and the heads that they name."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

from nni_warmstart import TransferError, transfer
from nni_warmstart.warm_start.heads.registry import HEADS
from nni_warmstart.warm_start.settings import TransferSettings


def test_settings_are_the_arguments_of_transfer():
    arguments = {name: p.default for name, p in inspect.signature(transfer).parameters.items()}
    assert {field.name: field.default for field in fields(TransferSettings)} == {
        name: default for name, default in arguments.items() if name not in ('source', 'target', 'data', 'val_data')
    }


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        TransferSettings().keep = 0.5


@pytest.mark.parametrize(('alpha', 'strength'), [('transfer', 1.0), ('reset', 0.0), (0.25, 0.25), (1, 1.0)])
def test_strength_of_the_alphas(alpha, strength):
    assert TransferSettings(alpha=alpha).strength == strength


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'head': 'linear'}, "head = 'linear' is unknown; choose one of ridge, ot, prototype, random, copy."),
        ({'untraceable': 'skip'}, "untraceable = 'skip' is unknown; choose 'error' or 'fresh'."),
        ({'alpha': 'best'}, "alpha = 'best' is unknown; give 'transfer', 'reset' or a number from 0 to 1."),
        ({'alpha': -1}, 'alpha = -1, but it must be from 0 to 1.'),
        ({'keep': True}, 'keep = True, but it must be from 0 to 1.'),
        ({'noise': float('inf')}, 'noise = inf, but it must be 0 or more.'),
        ({'seed': -1}, 'seed = -1, but it must be 0 or more.'),
        ({'max_samples': 0}, 'max_samples = 0, but it must be 1 or more.'),
        ({'device': 'nope'}, "device = 'nope' is unknown; give 'cpu', 'cuda', 'cuda:1' ..."),
    ],
)
def test_settings_check_themselves(settings, message):
    with pytest.raises(TransferError) as caught:
        TransferSettings(**settings)
    assert str(caught.value) == message


def test_heads_say_what_they_need():
    assert [name for name, head in HEADS.items() if head.is_fitted] == ['ridge', 'ot', 'prototype']
    assert [name for name, head in HEADS.items() if head.is_inherited] == ['copy']
    assert HEADS['ot'].origin == 'transported'
