"""Writes inherited tensors into a draft of the target, and keeps account of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nni_adapter.choices import choices, input_choices, places, width_labels
from ..nni_adapter.mutation import first_names
from .report import TensorOrigin


@dataclass(frozen=True)
class Settings:
    """How a target inherits; the arguments of :func:`~nni_warmstart.transfer`, ``alpha`` as a strength in [0, 1]."""

    head: str = 'ridge'
    alpha: float = 1.0
    keep: float = 0.8
    noise: float = 1e-3
    seed: int = 0
    untraceable: str = 'error'


def head_tensors(head_name: str | None) -> tuple[str, ...]:
    """Names of the classifier's tensors."""
    return () if head_name is None else (f'{head_name}.weight', f'{head_name}.bias')


class Writer:
    """Writes into a draft: shrinks, perturbs, breaks symmetry, and keeps account."""

    def __init__(self, draft: nn.Module, settings: Settings, origins: dict[str, TensorOrigin]) -> None:
        self.tensors, _ = first_names(draft)
        self.parameters = {name for name, _ in draft.named_parameters()}
        self.choices = choices(draft)
        names = {id(p): name for name, p in draft.named_parameters()}
        self.alpha_names = {label: names[id(choice.alpha)] for label, choice in self.choices.items()}
        self.settings, self.origins = settings, origins
        self.places = places(draft)
        self.inputs, self.widths = input_choices(draft), width_labels(draft)
        self.noise = torch.Generator().manual_seed(settings.seed)
        for name, tensor in self.tensors.items():
            self._account(name, 'fresh', None, '', tensor)
        for name in self.alpha_names.values():
            self.tensors.pop(name)  # in the account, and written by :meth:`write_alpha`

    def write(self, name: str, value: Tensor, how: str, origin: str | None, by: str = '', *, repeated: bool = False) -> None:
        fresh = self.tensors[name]
        keep = self.settings.keep
        if fresh.is_floating_point() and name in self.parameters:
            if repeated and self.settings.noise:
                scale = self.settings.noise * value.pow(2).mean().sqrt()
                value = value + scale * torch.randn(value.shape, generator=self.noise).to(value)
            if keep < 1:
                value = keep * value.to(fresh.device) + (1 - keep) * fresh
        with torch.no_grad():
            fresh.copy_(value)
        if keep == 0 and name in self.parameters:
            how, origin, by = 'fresh', None, ''
        self._account(name, how, origin, by, fresh)

    def zero(self, name: str, origin: str, by: str) -> None:
        with torch.no_grad():
            self.tensors[name].zero_()
        self._account(name, 'identity', origin, by, self.tensors[name])

    def left(self, name: str, why: str) -> None:
        self._account(name, 'fresh', None, why, self.tensors[name])

    def write_alpha(self, label: str, value: Tensor, how: str, origin: str, by: str = '') -> None:
        alpha, strength = self.choices[label].alpha, self.settings.alpha
        with torch.no_grad():
            alpha.copy_(value.to(alpha) if strength == 1 else strength * value.to(alpha) + (1 - strength) * alpha)
        self._account(self.alpha_names[label], how, origin, by, alpha)

    def _account(self, name: str, how: str, origin: str | None, by: str, tensor: Tensor) -> None:
        self.origins[name] = TensorOrigin(name, how, origin, tensor.numel(), name in self.parameters, by, *self.places[name])
