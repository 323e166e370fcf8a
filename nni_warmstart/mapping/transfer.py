"""transfer: carry a supernet's weights and alphas over to a target, computed first and applied once."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from .. import introspect
from ..data import quiet_randomness
from ..distance.sketch import DatasetSketch
from ..errors import TransferError
from ..supernet import Supernet
from . import batchnorm
from .head import FITTED, HEADS, LinearHead, features_of, find_head, prototype, ridge, transported
from .report import TensorOrigin, TransferReport

_logger = logging.getLogger(__name__)

Data = Iterable[Any] | Dataset | tuple[Tensor, Tensor]
"""Labelled data: a loader (or list) of batches ``(inputs, classes)``, a torch dataset, or the two tensors."""


def transfer(
    source: Supernet,
    target: nn.Module,
    *,
    head: str = 'ridge',
    alpha: str | float = 'transfer',
    keep: float = 0.8,
    noise: float = 1e-3,
    data: Data | None = None,
    val_data: Data | None = None,
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
        Initial classifier: 'ridge' (closed form on the warm features of ``data``), 'ot' (averages of the source's class
        weights along the coupling of the classes), 'prototype' (class means), 'random' (the target's own), 'copy' (equal
        classes only).
    alpha
        'transfer', 'reset', or the strength of the inherited prior in [0, 1]: logits are
        ``alpha * inherited + (1 - alpha) * fresh``.
    keep
        Shrink and perturb: ``weight = keep * inherited + (1 - keep) * fresh``, in [0, 1] (Ash & Adams, *On Warm-Starting
        Neural Network Training*, NeurIPS 2020).
    noise
        Scale, relative to each tensor's, of the noise on replicated channels; equal spaces replicate none.
    data
        Training data of the target, for batch-norm statistics and the head: a loader of batches ``(inputs, classes)``, a
        torch dataset, or two tensors.
    val_data
        Data on which the accuracy before any training is measured; ``data`` when None.
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
    if data is None and head in FITTED:
        raise TransferError(
            f"head {head!r} is fitted on the target's training data and there are none; pass data=, or head='random'."
        )
    with quiet_randomness():
        clock = _Clock()
        batches = _take(data, max_samples)
        draft = copy.deepcopy(target).to(device)  # the whole new state first: the target is not touched before the end
        head_name = _head_of(draft, head, batches, device)
        origins = _inherit(source, draft, head_name, head, alpha, keep)
        clock.stop('mapping')
        with introspect.best_path(draft):
            before = {name: buffer.clone() for name, buffer in draft.named_buffers() if name in origins}
            batchnorm.reestimate(draft, (x.to(device) for x, _ in batches))
            origins.update(_reestimated(draft, before, origins))
            clock.stop('batch_norm')
            if head_name is not None and head in FITTED:
                _fit_head(draft, head_name, head, source, batches, device)
            clock.stop('head')
            probe = _take(val_data, max_samples) if val_data is not None else batches
            accuracy = accuracy_on(draft, probe, device) if probe else None
            clock.stop('probe')
        target.load_state_dict(draft.state_dict())
    return TransferReport(source.name, tuple(origins.values()), head, accuracy, clock.seconds)


def _head_of(model: nn.Module, head: str, batches: list[Any], device: torch.device | str) -> str | None:
    """Name of the classifier; None where the model has none and the head needs none."""
    with introspect.best_path(model):
        try:
            return find_head(model, batches[0][0].to(device) if batches else None)
        except TransferError:
            if head in FITTED:
                raise
            return None
        except (RuntimeError, TypeError, AttributeError) as error:
            raise TransferError(
                f'the first batch of data does not go into {type(model).__name__} as it is '
                f'({" ".join(str(error).split())}); give data= batches (inputs, classes) that the model itself takes.'
            ) from error


def check_settings(*, head: str, alpha: str | float, keep: float, noise: float) -> None:
    """Refuse settings out of their range, naming the argument, its value and the range."""
    if head not in HEADS:
        raise TransferError(f'head = {head!r} is unknown; choose one of {", ".join(HEADS)}.')
    if isinstance(alpha, str) and alpha not in ('transfer', 'reset'):
        raise TransferError(f"alpha = {alpha!r} is unknown; give 'transfer', 'reset' or a number from 0 to 1.")
    for name, value, highest in (('alpha', alpha, 1.0), ('keep', keep, 1.0), ('noise', noise, float('inf'))):
        if name == 'alpha' and isinstance(value, str):
            continue
        if not isinstance(value, int | float) or not 0 <= value <= highest:
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
    source: Supernet, draft: nn.Module, head_name: str | None, head: str, alpha: str | float, keep: float
) -> dict[str, TensorOrigin]:
    """Fill ``draft`` with inherited tensors; returns the origin of each."""
    tensors, _ = introspect.first_names(draft)
    parameters = dict(draft.named_parameters())
    choice_of = {id(choice.alpha): choice for choice in introspect.choices(draft).values()}
    state = source.state_dict()
    head_tensors = set() if head_name is None else {f'{head_name}.weight', f'{head_name}.bias'}
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
            how = {'ridge': 'fitted', 'prototype': 'fitted', 'ot': 'transported'}.get(head, 'fresh')
        elif found is not None and found.shape == fresh.shape:
            new[name], how = _blend(found, fresh, keep if name in parameters else 1.0), 'copied'
        elif name in head_tensors:
            raise TransferError(
                f"head 'copy' needs equal classifiers: {name} has shape {None if found is None else tuple(found.shape)} in "
                f"{source.name!r} and {tuple(fresh.shape)} in the target; use head='ridge'."
            )
        origins[name] = TensorOrigin(name, how, origin if how == 'copied' else None, fresh.numel(), name in parameters)
    body, missing = _in_common(source, draft, head_name)
    if 2 * len(missing) >= len(body):
        raise TransferError(
            f'supernet {source.name!r} (space {source.space.get("name") or source.space.get("class")}) and the target have '
            f'{len(body) - len(missing)} of {len(body)} weights in common ({missing[0]} is missing); choose a source of '
            'the same space, width and depth.'
        )
    if missing:
        _logger.warning('%d of %d weights are not in %r and stay fresh: %s', len(missing), len(body), source.name, missing)
    with torch.no_grad():
        for name, value in new.items():
            tensors[name].copy_(value)
    return origins


def _blend(inherited: Tensor, fresh: Tensor, keep: float) -> Tensor:
    if keep == 1 or not fresh.is_floating_point():
        return inherited
    return keep * inherited.to(fresh.device) + (1 - keep) * fresh


def _reestimated(
    model: nn.Module, before: dict[str, Tensor], origins: dict[str, TensorOrigin]
) -> Iterator[tuple[str, TensorOrigin]]:
    """Origins of the statistics that changed; a path that was not run (Proxyless) keeps its own."""
    for name, buffer in model.named_buffers():
        if name in before and not torch.equal(buffer, before[name]):
            yield name, TensorOrigin(name, 're-estimated', origins[name].source, buffer.numel(), parameter=False)


def _fit_head(
    model: nn.Module, head_name: str, head: str, source: Supernet, batches: list[Any], device: torch.device | str
) -> None:
    module = model.get_submodule(head_name)
    assert isinstance(module, nn.Linear)
    features, labels = features_of(model, head_name, batches, device)
    if int(labels.min()) < 0 or int(labels.max()) >= module.out_features:
        raise TransferError(
            f'data has labels from {int(labels.min())} to {int(labels.max())}, and the classifier {head_name!r} has '
            f'{module.out_features} classes; number them from 0.'
        )
    if head == 'ridge':
        weight, bias = ridge(features, labels, module.out_features, bias=module.bias is not None)
    elif head == 'ot':
        weight, bias = transported(*_source_head(source, head_name), features, labels, module.out_features)
    else:
        weight, bias = prototype(features, labels, module.out_features)
    with torch.no_grad():
        module.weight.copy_(weight)
        if module.bias is not None:
            module.bias.copy_(bias)


def _source_head(source: Supernet, head_name: str) -> tuple[LinearHead, DatasetSketch]:
    """A source's classifier, and its data in its own features."""
    sketch, weight = source.sketches.get(source.key), source.state_dict().get(f'{head_name}.weight')
    if sketch is None or weight is None:
        raise TransferError(
            f"head 'ot' needs the classifier of supernet {source.name!r} and a sketch of its data in its own features, and "
            f"there is no {'sketch' if sketch is None else 'classifier'}; use head='ridge'."
        )
    bias = source.state_dict().get(f'{head_name}.bias')
    return LinearHead(weight, torch.zeros(len(weight)) if bias is None else bias), sketch


def fits(source: Supernet, target: nn.Module, head: str = 'random') -> bool:
    """Whether :func:`transfer` can carry ``source`` over to ``target`` with this head."""
    try:
        head_name = find_head(target)
    except TransferError:
        head_name = None
    body, missing = _in_common(source, target, head_name)
    if 2 * len(missing) >= len(body):
        return False
    if head == 'copy':
        state, mine = target.state_dict(), source.state_dict()
        return all(name in mine and mine[name].shape == state[name].shape for name in state if _of_head(name, head_name))
    return head != 'ot' or source.key in source.sketches


def _in_common(source: Supernet, target: nn.Module, head_name: str | None) -> tuple[list[str], list[str]]:
    """Names of the target's weights (no alphas, no classifier), and of those without a partner in the source."""
    alphas = {id(choice.alpha) for choice in introspect.choices(target).values()}
    body = {name: p for name, p in target.named_parameters() if id(p) not in alphas and not _of_head(name, head_name)}
    state = source.state_dict()
    return list(body), [name for name, p in body.items() if name not in state or state[name].shape != p.shape]


def _of_head(name: str, head_name: str | None) -> bool:
    return head_name is not None and name.rpartition('.')[0] == head_name


def _take(data: Any, max_samples: int) -> list[tuple[Any, Tensor]]:
    """The first batches of ``data``, of ``max_samples`` pictures at most."""
    if data is None:
        return []
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        data = TensorDataset(*data)
    if isinstance(data, Dataset):
        large = isinstance(data, Sized) and len(data) > max_samples  # a part of it must not be its first classes
        data = DataLoader(data, batch_size=256, shuffle=large, generator=torch.Generator().manual_seed(0))
    taken: list[tuple[Any, Tensor]] = []
    size = 0
    for batch in data:
        if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
            raise TransferError('data must give batches (inputs, classes) of two tensors; wrap your loader so that it does.')
        taken.append((batch[0], batch[1].cpu().long()))
        size += len(batch[1])
        if size >= max_samples:
            break
    if not taken:
        raise TransferError('data is empty: it gave no batch of (inputs, classes).')
    return taken


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now
