"""Validation of a supernet that was read from a file: every part of its card, its sketches and its structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..distance.sketch import DatasetSketch
from ..errors import SupernetFileError
from ..nni_adapter.mutation import STRATEGIES
from ..tracing.structure import Structure
from .card import check_fields, malformed_fields

OVERFLOW = 1e18
"""Bound on statistics and features: the squares of larger ones do not fit into single precision."""

_WEIGHTS = ('weight', 'bias', 'running_mean', 'running_var')  # names that torch's layers give to what is never whole numbers

_MOST_SAMPLES = 10**12  # of a class


def check_supernet_data(
    card: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    sketches: Mapping[str, DatasetSketch],
    structure: Structure | None,
    origin: str,
) -> None:
    """Raise an error for data that no supernet would have written.

    Parameters
    ----------
    card
        Fields of a :class:`~nni_warmstart.Supernet` that are plain data.
    tensors, sketches, structure
        Remaining fields.
    origin
        Name of the file in errors.

    Raises
    ------
    SupernetFileError
        If a part is malformed; the message names it.
    """
    _check_card(card, tensors, sketches, origin)
    _check_tensors(tensors, origin)
    _check_structure(tensors, structure, origin)


def _check_card(
    card: Mapping[str, Any], tensors: Mapping[str, Tensor], sketches: Mapping[str, DatasetSketch], origin: str
) -> None:
    check_fields(card, origin)
    if card['strategy'] not in STRATEGIES:
        raise SupernetFileError(f'{origin} names the strategy {card["strategy"]!r}; known are {", ".join(STRATEGIES)}.')
    wrong = malformed(card, tensors, sketches)
    if wrong:
        raise SupernetFileError(f'{origin} has a malformed card: {wrong}.')


def malformed(card: Mapping[str, Any], tensors: Mapping[str, Tensor], sketches: Mapping[str, DatasetSketch]) -> str | None:
    """Return the fault of a card whose parts are of the right kinds; None if it has none."""
    wrong = malformed_fields(card)
    if wrong:
        return wrong
    named = [*card['aliases'].values(), *card['alphas'].values()]
    if not all(isinstance(name, str) for name in named):
        return 'aliases and alphas must name tensors'
    dangling = set(named) - tensors.keys()
    if dangling:
        return f'it names tensors that are not in the file: {sorted(dangling)}'
    for label in card['alphas'].keys() | card['candidates'].keys():
        alpha, candidates = tensors.get(card['alphas'].get(label, '')), card['candidates'].get(label)
        if not (
            alpha is not None
            and alpha.is_floating_point()
            and isinstance(candidates, list)
            and all(isinstance(name, str) for name in candidates)
            and alpha.shape == (len(candidates),)
        ):
            return f'alpha and candidates of {label!r} do not fit together'
    for key, sketch in sketches.items():
        if not isinstance(key, str) or not isinstance(sketch.name, str) or not _is_sound(sketch):
            return f'the sketch in {key!r} is not of a dataset'
    return None


def _check_tensors(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise an error for weights that are whole numbers, and statistics of batch norm that no data have."""
    for name, tensor in tensors.items():
        kind = name.rpartition('.')[2]
        if kind in _WEIGHTS and not tensor.is_floating_point() and not (tensor.is_complex() and kind != 'running_var'):
            raise SupernetFileError(f'{origin} has numbers of type {tensor.dtype} in {name!r}; train the supernet again.')
        if kind == 'running_var' and bool((tensor < 0).any()):
            raise SupernetFileError(f'{origin} has variances below zero in {name!r}; train the supernet again.')


def _check_structure(tensors: Mapping[str, Tensor], structure: Structure | None, origin: str) -> None:
    if structure is None:
        return
    if not _is_plain(structure):
        raise SupernetFileError(f'{origin} has a structure that this version does not understand.')
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, axes in structure.channels.tensors.items():
        held = [None if c is None else c.shape[-1] if c.ndim == 2 else len(c) for c in axes.channels]
        fits = axes.shape == shapes.get(name) and len(held) == len(axes.shape)
        if not fits or any(n not in (None, size) for n, size in zip(held, axes.shape, strict=True)):
            raise SupernetFileError(f'{origin} has a structure that does not fit its tensors: {name!r} differs.')


def _is_sound(sketch: DatasetSketch) -> bool:
    """Check whether the numbers of a sketch have the types and the range that a dataset gives."""
    whole = (sketch.classes, sketch.counts, sketch.labels)
    others = (sketch.means, sketch.factors, sketch.remainders, sketch.samples)
    return (
        all(tensor.dtype == torch.int64 and bool((tensor >= 0).all()) for tensor in whole)
        and all(tensor.is_floating_point() and bool((tensor.abs() < OVERFLOW).all()) for tensor in others)
        and sketch.num_classes > 0
        and len(sketch.samples) > 0
        and bool(((sketch.counts > 0) & (sketch.counts < _MOST_SAMPLES)).all())
        and bool((sketch.remainders >= 0).all())
    )


def _is_plain(structure: Structure) -> bool:
    """Check whether a structure holds text and numbers where they belong; mapping shows whether they fit."""
    channels = structure.channels
    maps = ((structure.kinds, str), (structure.values, list), (channels.scales, int | float), (channels.opaque, str))
    ops = [op for ops in channels.ops.values() for op in ops]
    return (
        all(isinstance(each, dict) and all(isinstance(item, kind) for item in each.values()) for each, kind in maps)
        and all(isinstance(op.kind, str) for op in ops)
        and all(isinstance(number, int) for op in ops for number in (op.kernel, op.stride, op.dilation))
        and all(isinstance(axes.groups, int) for axes in channels.tensors.values())
    )
