"""transfer: carry a supernet's weights and alphas over to a target, computed first and applied once."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import introspect
from ..data import quiet_randomness
from ..errors import TransferError
from ..supernet import Supernet
from . import batchnorm
from .head import HEADS, find_head, prototype, ridge
from .report import TensorOrigin, TransferReport

Batches = Iterable[Any]
"""Batches ``(inputs, classes)``: a loader, or a list."""


def transfer(
    source: Supernet,
    target: nn.Module,
    *,
    head: str = 'ridge',
    alpha: str | float = 'transfer',
    keep: float = 0.8,
    noise: float = 1e-3,
    data: Batches | None = None,
    val_data: Batches | None = None,
    seed: int = 0,
    max_samples: int = 4096,
    device: torch.device | str = 'cpu',
) -> TransferReport:
    """Give ``target`` the weights and alphas of ``source``, in place and in one step.

    Parameters
    ----------
    source
        The supernet to start from.
    target
        A mutated model space, freshly initialised; its own weights are the perturbation of ``keep``.
    head
        Initial classifier: 'ridge' (closed form on the warm features of ``data``), 'prototype' (class means), 'random'
        (the target's own), 'copy' (equal classes only).
    alpha
        'transfer', 'reset', or the strength of the inherited prior in [0, 1]: logits are
        ``alpha * inherited + (1 - alpha) * fresh``.
    keep
        Shrink and perturb: ``weight = keep * inherited + (1 - keep) * fresh``, in [0, 1] (Ash & Adams, *On Warm-Starting
        Neural Network Training*, NeurIPS 2020).
    noise
        Scale, relative to each tensor's, of the noise on replicated channels; equal spaces replicate none.
    data
        Training batches of the target, for batch-norm statistics and the head.
    val_data
        Batches on which the accuracy before any training is measured; ``data`` when None.
    seed
        Seed of that noise.
    max_samples
        Pictures of ``data`` and of ``val_data`` used at most.
    device
        Where features are computed.

    Returns
    -------
    TransferReport
        Every target tensor, and where it came from.

    Raises
    ------
    TransferError
        If an argument is out of its range, the two have nothing in common, or the head needs data and there are none.
    """
    check_settings(head=head, alpha=alpha, keep=keep, noise=noise)
    if data is None and head in ('ridge', 'prototype'):
        raise TransferError(
            f"head {head!r} is fitted on the target's training data and there are none; pass data=, or head='random'."
        )
    with quiet_randomness():
        clock = _Clock()
        batches = _take(data, max_samples)
        draft = copy.deepcopy(target).to(device)  # the whole new state first: the target is not touched before the end
        with introspect.best_path(draft):
            head_name = find_head(draft, batches[0][0].to(device) if batches else None)
        origins = _inherit(source, draft, head_name, head, alpha, keep)
        clock.stop('mapping')
        with introspect.best_path(draft):
            if batchnorm.reestimate(draft, (x.to(device) for x, _ in batches)):
                origins.update(_reestimated(draft, origins))
            clock.stop('batch_norm')
            if head in ('ridge', 'prototype'):
                _fit_head(draft, head_name, head, batches, device)
            clock.stop('head')
            probe = _take(val_data, max_samples) if val_data is not None else batches
            accuracy = accuracy_on(draft, probe, device) if probe else None
            clock.stop('probe')
        target.load_state_dict(draft.state_dict())
    return TransferReport(source.name, tuple(origins.values()), head, accuracy, clock.seconds)


def check_settings(*, head: str, alpha: str | float, keep: float, noise: float) -> None:
    """Refuse settings out of their range, naming the argument, its value and the range."""
    if head not in HEADS:
        raise TransferError(f'head = {head!r} is unknown; choose one of {", ".join(HEADS)}.')
    if isinstance(alpha, str) and alpha not in ('transfer', 'reset'):
        raise TransferError(f"alpha = {alpha!r} is unknown; give 'transfer', 'reset' or a number from 0 to 1.")
    for name, value, highest in (('alpha', alpha, 1.0), ('keep', keep, 1.0), ('noise', noise, float('inf'))):
        if not isinstance(value, str) and not 0 <= value <= highest:
            wanted = 'from 0 to 1' if highest == 1 else '0 or more'
            raise TransferError(f'{name} = {value}, but it must be {wanted}.')


def accuracy_on(model: nn.Module, batches: Iterable[Any], device: torch.device | str) -> float:
    """Share of ``batches`` that ``model`` classifies correctly, in evaluation mode."""
    was_training = model.training
    model.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in batches:
            right += int((model(x.to(device)).argmax(1).cpu() == y).sum())
            total += len(y)
    model.train(was_training)
    return right / max(total, 1)


def _inherit(
    source: Supernet, draft: nn.Module, head_name: str, head: str, alpha: str | float, keep: float
) -> dict[str, TensorOrigin]:
    """Fill ``draft`` with inherited tensors; returns the origin of each."""
    tensors, _ = introspect.first_names(draft)
    parameters = dict(draft.named_parameters())
    choice_of = {id(choice.alpha): choice for choice in introspect.choices(draft).values()}
    state = source.state_dict()
    head_tensors = {f'{head_name}.weight', f'{head_name}.bias'}
    strength = {'transfer': 1.0, 'reset': 0.0}[alpha] if isinstance(alpha, str) else float(alpha)
    origins: dict[str, TensorOrigin] = {}
    new: dict[str, Tensor] = {}
    for name, fresh in tensors.items():
        choice = choice_of.get(id(parameters.get(name)))
        origin = name if choice is None else source.alphas.get(choice.label, '')
        found = state.get(origin)
        how = 'fresh'
        if choice is not None:
            if found is not None and strength and list(choice.candidates) == source.candidates[choice.label]:
                new[name], how = _blend(found, fresh, strength), 'copied'
        elif name in head_tensors and head != 'copy':
            how = 'fitted' if head in ('ridge', 'prototype') else 'fresh'
        elif found is not None and found.shape == fresh.shape:
            new[name], how = _blend(found, fresh, keep if name in parameters else 1.0), 'copied'
        elif name in head_tensors:
            raise TransferError(
                f"head 'copy' needs equal classifiers: {name} has shape {None if found is None else tuple(found.shape)} in "
                f"{source.name!r} and {tuple(fresh.shape)} in the target; use head='ridge'."
            )
        origins[name] = TensorOrigin(name, how, origin if how == 'copied' else None, fresh.numel(), name in parameters)
    if not any(origins[name].how == 'copied' and id(p) not in choice_of for name, p in parameters.items()):
        raise TransferError(
            f'supernet {source.name!r} (space {source.space.get("name") or source.space.get("class")}) and the target '
            'have no weight in common; choose a source of the same space.'
        )
    with torch.no_grad():
        for name, value in new.items():
            tensors[name].copy_(value)
    return origins


def _blend(inherited: Tensor, fresh: Tensor, keep: float) -> Tensor:
    if keep == 1 or not fresh.is_floating_point():
        return inherited
    return keep * inherited.to(fresh.device) + (1 - keep) * fresh


def _reestimated(model: nn.Module, origins: dict[str, TensorOrigin]) -> Iterator[tuple[str, TensorOrigin]]:
    statistics = {id(buffer) for norm in batchnorm.batch_norms(model) for buffer in (norm.running_mean, norm.running_var)}
    for name, buffer in model.named_buffers():
        if id(buffer) in statistics and name in origins:
            yield name, TensorOrigin(name, 're-estimated', origins[name].source, buffer.numel(), parameter=False)


def _fit_head(model: nn.Module, head_name: str, head: str, batches: list[Any], device: torch.device | str) -> None:
    module = model.get_submodule(head_name)
    assert isinstance(module, nn.Linear)
    features, labels = features_of(model, head_name, batches, device)
    if head == 'ridge':
        weight, bias = ridge(features, labels, module.out_features, bias=module.bias is not None)
    else:
        weight, bias = prototype(features, labels, module.out_features)
    with torch.no_grad():
        module.weight.copy_(weight)
        if module.bias is not None:
            module.bias.copy_(bias)


def features_of(
    model: nn.Module, head_name: str, batches: Iterable[Any], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Inputs of the classifier and the classes, shapes ``(n, d)`` and ``(n,)``, in evaluation mode."""
    collected: list[Tensor] = []
    hook = model.get_submodule(head_name).register_forward_pre_hook(lambda _m, inputs: collected.append(inputs[0].detach()))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            labels = [y for x, y in batches if model(x.to(device)) is not None]
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(collected), torch.cat(labels).to(device)


def _take(data: Batches | None, max_samples: int) -> list[Any]:
    """The first batches of ``data``, of ``max_samples`` pictures at most."""
    taken, size = [], 0
    for batch in data or ():
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
            raise TransferError(
                'data must give batches (inputs, classes) of two tensors; write a loader that does, or use head=random.'
            )
        taken.append(batch)
        size += len(batch[1])
        if size >= max_samples:
            break
    return taken


class _Clock:
    """Seconds by step."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._now, self._last = now, now()

    def stop(self, step: str) -> None:
        now = self._now()
        self.seconds[step] = now - self._last
        self._last = now
