"""NewState: the tensors that a warm target will have, with the origin of each."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..nni_adapter.choices import choices, input_choices, places, width_labels
from ..nni_adapter.mutation import first_names
from ..utils.modules import write_tensor
from .report import OriginKind, TensorOrigin
from .settings import TransferSettings

_STATISTICS = ('running_mean', 'running_var')


class NewState:
    """New tensors of a target: shrunk and perturbed, with noise on repeated channels, and with their origins.

    Parameters
    ----------
    target
        Target, freshly initialised; it is not changed.
    settings
        Settings of the warm start.

    Attributes
    ----------
    tensors
        Tensors by name, shared ones once; initially those of the target.
    origins
        Origin of each tensor by its name.
    changed
        Names of the tensors that were written.
    constants
        Names of the buffers, apart from statistics of norms, whose values the source's replaced.
    """

    def __init__(self, target: nn.Module, settings: TransferSettings) -> None:
        self.settings = settings
        fresh = first_names(target)[0]
        mixed = settings.kept < 1 or 0 < settings.strength < 1  # with values that must stay fresh: a plan may be used twice
        self.tensors = {name: tensor.clone() for name, tensor in fresh.items()} if mixed else fresh
        self.parameters = {name for name, _ in target.named_parameters()}
        self.frozen = {name for name, parameter in target.named_parameters() if not parameter.requires_grad}
        self.choices = {label: list(choice.candidates) for label, choice in choices(target).items()}
        names = {id(p): name for name, p in target.named_parameters()}
        self.alpha_names = {label: names[id(choice.alpha)] for label, choice in choices(target).items()}
        alphas = {*self.alpha_names.values()}
        self.weights = tuple(name for name in self.tensors if name not in alphas)
        self.places = places(target)
        self.inputs, self.widths = input_choices(target), width_labels(target)
        self.changed: set[str] = set()
        self.constants: set[str] = set()
        self.origins: dict[str, TensorOrigin] = {}
        self._noise = torch.Generator().manual_seed(settings.seed)
        for name in self.tensors:
            self.leave(name, '')

    def copy(self) -> NewState:
        """Return an independent copy."""
        other = copy.copy(self)
        other.tensors, other.origins, other.changed = dict(self.tensors), dict(self.origins), set(self.changed)
        other.constants = set(self.constants)
        other._noise = torch.Generator()
        other._noise.set_state(self._noise.get_state())
        return other

    @property
    def inherited(self) -> dict[str, Tensor]:
        """Tensors that were written, by name."""
        return {name: tensor for name, tensor in self.tensors.items() if name in self.changed}

    def write(
        self, name: str, value: Tensor, kind: OriginKind, origin: str | None, by: str = '', *, repeated: bool = False
    ) -> None:
        """Set a weight or a buffer; weights are shrunk and perturbed, and repeated channels get noise of their own.

        Frozen weights are set as they are, since no training would make up for it.
        """
        fresh, keep = self.tensors[name], self.settings.kept
        is_weight = name in self.parameters
        if is_weight and name in self.frozen and keep:
            keep, repeated = 1.0, False
        if fresh.is_floating_point() and is_weight:
            if repeated and self.settings.noise:
                scale = self.settings.noise * value.pow(2).mean().sqrt()
                value = value + scale * torch.randn(value.shape, generator=self._noise).to(value)
            if keep < 1:
                value = keep * value.to(fresh.device) + (1 - keep) * fresh
        elif fresh.is_floating_point() and name.rpartition('.')[2] not in _STATISTICS and not _are_close(value, fresh):
            self.constants.add(name)
        self._set(name, value)
        if keep == 0 and is_weight:
            kind, origin, by = 'fresh', None, ''
        self._account(name, kind, origin, by)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is to be said about what was written, in sentences."""
        if not self.constants:
            return ()
        some = ', '.join(sorted(self.constants)[:3]) + (', ...' if len(self.constants) > 3 else '')
        return (f'Buffers of the target have the values of the source, which are others ({some}).',)

    def zero(self, name: str, origin: str, by: str) -> None:
        """Set a tensor to zero, as part of a block or kernel that starts as the identity."""
        self._set(name, torch.zeros_like(self.tensors[name]))
        self._account(name, 'identity', origin, by)

    def start(self, name: str, value: Tensor, by: str) -> None:
        """Set a tensor as it is, as part of a layer that starts without effect."""
        self._set(name, value)
        self._account(name, 'identity', None, by)

    def leave(self, name: str, why: str) -> None:
        """Record the reason why a tensor stays fresh."""
        self._account(name, 'fresh', None, why)

    def write_alpha(self, label: str, value: Tensor, kind: OriginKind, origin: str, by: str = '') -> None:
        """Set the alphas of a choice, mixed with the fresh ones by the strength of the prior."""
        name, strength = self.alpha_names[label], self.settings.strength
        alpha = self.tensors[name]
        self._set(name, value if strength == 1 else strength * value.to(alpha) + (1 - strength) * alpha)
        self._account(name, kind, origin, by)

    def _set(self, name: str, value: Tensor) -> None:
        self.tensors[name] = value.to(self.tensors[name])
        self.changed.add(name)

    def _account(self, name: str, kind: OriginKind, origin: str | None, by: str) -> None:
        size, is_parameter = self.tensors[name].numel(), name in self.parameters
        self.origins[name] = TensorOrigin(name, kind, origin, size, is_parameter, by, *self.places[name])


def _are_close(value: Tensor, other: Tensor) -> bool:
    return value.shape == other.shape and torch.allclose(value.to(other), other)


def load(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Write new tensors into a model in place; return the model."""
    own = first_names(model)[0]
    with torch.no_grad():
        for name, value in tensors.items():
            write_tensor(model, name, own[name], value)
    return model
