"""transfer: carry a supernet's weights and alphas over to a target, wholly or, where anything fails, not at all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..data.labelled import Data, first_batches, name_and_classes
from ..errors import TransferError
from ..supernets.supernet import Supernet
from ..utils.random import quiet_randomness
from .plan import Plan, check_target
from .report import TransferReport
from .settings import TransferSettings


def transfer(
    source: Supernet | Sequence[Supernet | tuple[Supernet, float]],
    target: nn.Module,
    *,
    head: str = 'ridge',
    alpha: str | float = 'transfer',
    keep: float | None = None,
    noise: float = 1e-3,
    data: Data | None = None,
    val_data: Data | None = None,
    seed: int = 0,
    max_samples: int = 4096,
    device: torch.device | str = 'cpu',
    untraceable: str = 'error',
    heads: Mapping[str, tuple[int, int]] | None = None,
    class_names: Sequence[str] | None = None,
    fast: bool = False,
) -> TransferReport:
    """Transfer the weights and alphas of ``source`` to ``target``, in place; if anything fails, ``target`` is unchanged.

    A source of the same space is copied. Any other is mapped to the target's widths, kernels, ops and depth, by couplings of
    the channel spaces, of the candidates of each choice, and of the blocks (:mod:`nni_warmstart.mapping.mapper`).

    Parameters
    ----------
    source
        Supernet to start from; or several to fuse, with weights that sum to one (without weights, all weigh the same).
    target
        Mutated model space, freshly initialised; its own weights are the perturbation of ``keep``.
    head
        Method to initialise the classifier: 'ridge' (closed form on the warm features of ``data``), 'ot' (averages of the
        source's class weights along the coupling of the classes), 'prototype' (class means), 'random' (the target's own
        classifier), 'copy' (the source's classifier, class by class of the same name; classes that the source does not have
        are fitted like 'ridge', on the scale of the others, or stay as initialised without ``data``; where names are not
        known, classes are copied by number and must be as many).
    alpha
        'transfer', 'reset', or the strength of the inherited prior in [0, 1]: logits are
        ``alpha * inherited + (1 - alpha) * fresh``.
    keep
        Factor of shrink and perturb in [0, 1]: ``weight = keep * inherited + (1 - keep) * fresh`` (Ash & Adams, *On
        Warm-Starting Neural Network Training*, NeurIPS 2020). None for 0.8, and for 1 if the source is a network.
    noise
        Scale of the noise on replicated channels, relative to the scale of each tensor; equal spaces replicate none.
    data
        Training data of the target, for batch-norm statistics and the head: a loader of batches ``(inputs, classes)``, a
        torch dataset, or two tensors.
    val_data
        Data on which the accuracy before any training is measured (if the labels are classes); None for ``data``.
    seed
        Seed of the noise.
    max_samples
        Largest number of images to use of ``data`` and of ``val_data``.
    device
        Device on which features are computed.
    untraceable
        Treatment of modules whose channels are not known (attention, say) if the spaces differ: 'error' raises an error,
        'fresh' leaves them as initialised and reports them.
    heads
        Rows of each dataset in a classifier for several: name -> (first row, row after the last). Classes of different
        datasets then don't compete, in the fit and in the accuracy. None for a single dataset.
    class_names
        Names of the target's classes in the order of the classifier's rows, for head 'copy'; None for those that ``data``
        has, if any.
    fast
        Whether the network runs by plans where it looks at ``data``; see :mod:`nni_warmstart.fast_forward`.

    Returns
    -------
    TransferReport
        Origin of every target tensor, accuracy and timings.

    Raises
    ------
    TransferError
        If an argument is out of its range, the two have nothing in common, or the head needs classes and there are none.
    """
    settings = TransferSettings(
        head=head, alpha=alpha, keep=keep, noise=noise, untraceable=untraceable,
        seed=seed, max_samples=max_samples, device=device, heads=heads, fast=fast,
        class_names=name_and_classes(data)[1] or None if class_names is None else class_names,
    )  # fmt: skip
    check_target(target)
    sources = _weighted(source)
    with quiet_randomness():
        start = time.perf_counter()
        batches = first_batches(data, max_samples)
        plan = Plan.prepare(sources, target, settings, batches)
        prepared = time.perf_counter() - start
        report = plan.apply(target, batches or None, val_data)
    return replace(report, seconds={**report.seconds, 'mapping': prepared + report.seconds['mapping']})


def _weighted(source: Supernet | Sequence[Supernet | tuple[Supernet, float]]) -> list[tuple[Supernet, float]]:
    if isinstance(source, Supernet):
        return [(source, 1.0)]
    wrong = TransferError('source must be a Supernet, or a list of supernets or of (supernet, weight), with at least one.')
    if not isinstance(source, list | tuple) or not source:
        raise wrong
    each = [item if isinstance(item, tuple) else (item, 1 / len(source)) for item in source]
    for item in each:
        if len(item) != 2 or not isinstance(item[0], Supernet) or not isinstance(item[1], int | float):
            raise wrong
    return each
