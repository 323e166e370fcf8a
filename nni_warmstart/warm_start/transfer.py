"""transfer: carry a supernet's weights and alphas over to a target, wholly or, where anything fails, not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..data.labelled import Data, check_range, first_batches, has_classes
from ..distance.sketch import DatasetSketch
from ..errors import TransferError, reason
from ..mapping.alignment import check_weights
from ..nni_adapter import batchnorm
from ..nni_adapter.classifier import features_of, find_head
from ..nni_adapter.oneshot import is_supernet
from ..nni_adapter.paths import best_path
from ..supernets.supernet import Supernet
from ..utils.metrics import accuracy_on
from ..utils.modules import modes_kept
from ..utils.random import quiet_randomness
from .compatibility import input_shape, name_of_head
from .fuse import inherit_fused
from .heads.base import FITTED, HEADS, LinearHead
from .heads.optimal_transport import transported
from .heads.prototype import prototype
from .heads.ridge import ridge
from .inherit import inherit
from .report import TensorOrigin, TransferReport
from .writer import Settings, head_tensors


def transfer(
    source: Supernet | Sequence[Supernet | tuple[Supernet, float]],
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
    untraceable: str = 'error',
    heads: Mapping[str, tuple[int, int]] | None = None,
) -> TransferReport:
    """Give ``target`` the weights and alphas of ``source``, in place and in one step.

    A source of the same space is copied. Any other is mapped onto the target's widths, kernels, ops and depth, by couplings
    of the channel spaces, of the candidates of each choice, and of the blocks (:mod:`nni_warmstart.mapping.mapper`).

    Parameters
    ----------
    source
        The supernet to start from; or several, to be fused, with weights that sum to one (equal ones when there are none).
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
        Data on which the accuracy before any training is measured (where the labels are classes); ``data`` when None.
    seed
        Seed of that noise.
    max_samples
        Pictures of ``data`` and of ``val_data`` used at most.
    device
        Where features are computed.
    untraceable
        Modules whose channels are not known (attention, say), where the spaces differ: 'error', or 'fresh' to leave them as
        they are and report that.
    heads
        Where the classifier serves several datasets: name -> (first row, row after the last). Classes of different datasets
        then don't compete, in the fit and in the accuracy; None for a single one.

    Returns
    -------
    TransferReport
        Every target tensor, and where it came from.

    Raises
    ------
    TransferError
        If an argument is out of its range, the two have nothing in common, or the head needs classes and there are none.
    """
    check_settings(head=head, alpha=alpha, keep=keep, noise=noise, untraceable=untraceable)
    if not isinstance(target, nn.Module):
        raise TransferError(f'target must be a mutated model space, not {type(target).__name__}.')
    if isinstance(target, ModelSpace) and not is_supernet(target):
        raise TransferError(f'{type(target).__name__} is not mutated; pass the result of strategy.mutate_model(space).')
    lazy = next((name for name, parameter in target.named_parameters() if is_lazy(parameter)), None)
    if lazy is not None:
        raise TransferError(f'{lazy} has no shape yet, being of a lazy layer: run the space on a batch first.')
    if data is None and head in FITTED:
        raise TransferError(
            f"head {head!r} is fitted on the target's training data and there are none; pass data=, or head='random'."
        )
    sources = _sources(source)
    for each, _ in sources:
        if each.diverged:
            raise TransferError(f'supernet {each.name!r} has weights that are not finite: its training diverged.')
    source = sources[0][0]
    with quiet_randomness(), ExitStack() as stack:
        clock = _Clock()
        batches = first_batches(data, max_samples)
        if head in FITTED and not has_classes(batches):
            raise TransferError(
                f'head {head!r} is fitted on classes, whole numbers from 0, one per picture, and data has labels of shape '
                f"{tuple(batches[0][1].shape)} and type {batches[0][1].dtype}; pass head='random'."
            )
        draft = stack.enter_context(_all_or_nothing(target, device))
        head_name = _head_of(draft, head, batches, device) if batches else name_of_head(draft, source)
        strength = {'transfer': 1.0, 'reset': 0.0}[alpha] if isinstance(alpha, str) else float(alpha)
        settings = Settings(head, strength, keep, noise, seed, untraceable)
        shape = input_shape(draft, batches[0][0] if batches else None, source)
        if len(sources) == 1:
            inherited = inherit(source, draft, head_name, shape, settings, _pictures(batches, device))
        else:
            inherited = inherit_fused(sources, draft, head_name, shape, settings, _pictures(batches, device))
        origins = inherited.origins
        clock.stop('mapping')
        with best_path(draft):
            before = {name: buffer.clone() for name, buffer in draft.named_buffers() if name in origins}
            batchnorm.reestimate(draft, (x.to(device) for x, _ in batches))
            origins.update(_reestimated(draft, before, origins))
            clock.stop('batch_norm')
            if head_name is not None and head in FITTED:
                _fit_head(draft, head_name, head, source, batches, device, heads)
                how = 'transported' if head == 'ot' else 'fitted'
                origins.update({n: replace(origins[n], how=how) for n in head_tensors(head_name) if n in origins})
            clock.stop('head')
            probe = first_batches(val_data, max_samples) if val_data is not None else batches
            accuracy = None
            if probe and has_classes(probe):
                if head_name is not None:
                    check_range(torch.cat([y for _, y in probe]), draft.get_submodule(head_name).out_features)
                accuracy = accuracy_on(draft, probe, device, heads)
            clock.stop('probe')
    return TransferReport(
        ' + '.join(each.name for each, _ in sources),
        tuple(origins.values()),
        head,
        accuracy,
        clock.seconds,
        blocks=inherited.correspondence.blocks,
        choices={label: pair[1] for label, pair in inherited.correspondence.choices.items()},
        candidates=inherited.candidates,
        couplings=inherited.couplings,
    )


@contextmanager
def _all_or_nothing(target: nn.Module, device: torch.device | str) -> Iterator[nn.Module]:
    """The target on ``device``, to be changed in place; if anything fails it is put back as it was."""
    home = next((p.device for p in target.parameters()), None)
    if home is None:
        raise TransferError(f'{type(target).__name__} has no parameters; there is nothing to start warm.')
    tensors = [*target.parameters(), *target.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        with modes_kept(target):
            yield target.to(device)
    except BaseException:
        with torch.no_grad():
            for tensor, value in zip([*target.parameters(), *target.buffers()], before, strict=True):
                tensor.copy_(value)
        raise
    finally:
        target.to(home)


def _sources(source: Supernet | Sequence[Supernet | tuple[Supernet, float]]) -> list[tuple[Supernet, float]]:
    if isinstance(source, Supernet):
        return [(source, 1.0)]
    wrong = TransferError('source must be a Supernet, or a list of supernets or of (supernet, weight), with at least one.')
    if not isinstance(source, list | tuple) or not source:
        raise wrong
    each = [item if isinstance(item, tuple) else (item, 1 / len(source)) for item in source]
    for item in each:
        if len(item) != 2 or not isinstance(item[0], Supernet) or not isinstance(item[1], int | float):
            raise wrong
    check_weights([weight for _, weight in each], len(each))
    return [item for item in each if item[1] > 0]


def _pictures(batches: list[Any], device: torch.device | str) -> Tensor | None:
    pictures = [x for x, _ in batches if isinstance(x, Tensor) and x.dim() == 4]
    return torch.cat(pictures).to(device) if pictures else None


def _head_of(model: nn.Module, head: str, batches: list[Any], device: torch.device | str) -> str | None:
    """Name of the classifier; None where the model has none and the head needs none."""
    with best_path(model):
        try:
            return find_head(model, batches[0][0].to(device))
        except TransferError:
            if head in FITTED:
                raise
            return None
        except (RuntimeError, TypeError, AttributeError) as error:
            raise TransferError(
                f'the first batch of data does not go into {type(model).__name__} as it is '
                f'({reason(error)}); give data= batches (inputs, classes) that the model itself takes.'
            ) from error


def check_settings(*, head: str, alpha: str | float, keep: float, noise: float, untraceable: str = 'error') -> None:
    """Refuse settings out of their range, naming the argument, its value and the range."""
    if head not in HEADS:
        raise TransferError(f'head = {head!r} is unknown; choose one of {", ".join(HEADS)}.')
    if untraceable not in ('error', 'fresh'):
        raise TransferError(f"untraceable = {untraceable!r} is unknown; choose 'error' or 'fresh'.")
    if isinstance(alpha, str) and alpha not in ('transfer', 'reset'):
        raise TransferError(f"alpha = {alpha!r} is unknown; give 'transfer', 'reset' or a number from 0 to 1.")
    for name, value, highest in (('alpha', alpha, 1.0), ('keep', keep, 1.0), ('noise', noise, float('inf'))):
        if name == 'alpha' and isinstance(value, str):
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= highest or math.isinf(value):
            wanted = 'from 0 to 1' if highest == 1 else '0 or more'
            raise TransferError(f'{name} = {value}, but it must be {wanted}.')


def _reestimated(
    model: nn.Module, before: dict[str, Tensor], origins: dict[str, TensorOrigin]
) -> Iterator[tuple[str, TensorOrigin]]:
    """Origins of the statistics that changed; a path that was not run (Proxyless) keeps its own."""
    for name, buffer in model.named_buffers():
        if name in before and not torch.equal(buffer, before[name]):
            yield name, replace(origins[name], how='re-estimated')


def _fit_head(
    model: nn.Module,
    head_name: str,
    head: str,
    source: Supernet,
    batches: list[Any],
    device: torch.device | str,
    heads: Mapping[str, tuple[int, int]] | None,
) -> None:
    module = model.get_submodule(head_name)
    assert isinstance(module, nn.Linear)
    heads = {'': (0, module.out_features)} if heads is None else heads
    if any(not 0 <= start < stop <= module.out_features for start, stop in heads.values()):
        raise TransferError(f'heads = {dict(heads)}, but the classifier has rows 0 to {module.out_features} only.')
    features, labels = features_of(model, head_name, batches, device)
    check_range(labels, module.out_features)
    if not torch.isfinite(features).all():
        raise TransferError('the features of data are not finite; look for NaN or infinite pixels in the pictures.')
    for start, stop in heads.values():
        chosen = (labels >= start) & (labels < stop)
        if not chosen.any():  # of many datasets, one that is not among the first pictures
            continue
        x, y, rows = features[chosen], labels[chosen] - start, stop - start
        if head == 'ridge':
            weight, bias = ridge(x, y, rows, bias=module.bias is not None)
        elif head == 'ot':
            weight, bias = transported(*_source_head(source, head_name, module.in_features), x, y, rows)
        else:
            weight, bias = prototype(x, y, rows)
        with torch.no_grad():
            module.weight[start:stop] = weight
            if module.bias is not None:
                module.bias[start:stop] = bias


def _source_head(source: Supernet, head_name: str, width: int) -> tuple[LinearHead, DatasetSketch]:
    """A source's classifier, and its data in its own features."""
    sketch, weight = source.sketches.get(source.key), source.state_dict().get(f'{head_name}.weight')
    if sketch is None or weight is None:
        raise TransferError(
            f"head 'ot' needs the classifier of supernet {source.name!r} and a sketch of its data in its own features, and "
            f"there is no {'sketch' if sketch is None else 'classifier'}; use head='ridge'."
        )
    if weight.shape[1] != width:
        raise TransferError(
            f"head 'ot' needs features of equal width, and {source.name!r} has {weight.shape[1]}, the target {width}; "
            "use head='ridge'."
        )
    bias = source.state_dict().get(f'{head_name}.bias')
    return LinearHead(weight, torch.zeros(len(weight)) if bias is None else bias), sketch


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now
