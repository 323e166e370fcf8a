"""Whether a supernet that was read from a file makes sense: every part of its card, its sketches and its structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import introspect, spaces, storage
from .distance.sketch import DatasetSketch
from .errors import SupernetFileError
from .mapping.structure import Structure

if TYPE_CHECKING:
    from .supernet import Supernet


def check(supernet: Supernet, origin: str) -> None:
    """Refuse what no supernet would have written; ``origin`` is named in errors.

    Raises
    ------
    SupernetFileError
        Naming the part.
    """
    _check_card(supernet, origin)
    _check_structure(supernet, origin)


def _check_card(supernet: Supernet, origin: str) -> None:
    kinds: dict[str, type] = {
        'name': str, 'space': dict, 'strategy': str, 'class_names': list,
        'aliases': dict, 'alphas': dict, 'candidates': dict, 'history': dict,
    }  # fmt: skip
    storage.check_kinds({key: getattr(supernet, key) for key in kinds}, kinds, origin)
    if not spaces.is_description(supernet.space):
        raise SupernetFileError(f'{origin} has a malformed card: space names neither a class nor a name with arguments.')
    if supernet.strategy not in introspect.STRATEGIES:
        raise SupernetFileError(
            f'{origin} names the strategy {supernet.strategy!r}; known are {", ".join(introspect.STRATEGIES)}.'
        )
    wrong = malformed(supernet)
    if wrong:
        raise SupernetFileError(f'{origin} has a malformed card: {wrong}.')


def malformed(supernet: Supernet) -> str | None:
    """What is wrong with a card whose parts are of the right kinds."""
    if not all(isinstance(name, str) for name in supernet.class_names):
        return 'class_names must be text'
    pictures = supernet.history.get('pictures', [0, 0])
    if not (isinstance(pictures, list) and [type(number) for number in pictures] == [int, int] and min(pictures) >= 0):
        return f'history.pictures = {pictures!r}, which is not [channels, side]'
    if not isinstance(supernet.history.get('datasets', {}), dict):
        return 'history.datasets is not a dict'
    named = [*supernet.aliases.values(), *supernet.alphas.values()]
    if not all(isinstance(name, str) for name in named):
        return 'aliases and alphas must name tensors'
    dangling = set(named) - supernet.tensors.keys()
    if dangling:
        return f'it names tensors that are not in the file: {sorted(dangling)}'
    for label in supernet.alphas.keys() | supernet.candidates.keys():
        alpha, candidates = supernet.tensors.get(supernet.alphas.get(label, '')), supernet.candidates.get(label)
        if not (
            alpha is not None
            and alpha.is_floating_point()
            and isinstance(candidates, list)
            and all(isinstance(name, str) for name in candidates)
            and alpha.shape == (len(candidates),)
        ):
            return f'alpha and candidates of {label!r} do not fit together'
    for key, sketch in supernet.sketches.items():
        if not isinstance(key, str) or not isinstance(sketch.name, str) or not _is_sound(sketch):
            return f'the sketch in {key!r} is not of a dataset'
    return None


def _check_structure(supernet: Supernet, origin: str) -> None:
    if supernet.structure is None:
        return
    if not _is_plain(supernet.structure):
        raise SupernetFileError(f'{origin} has a structure that this version does not understand.')
    shapes = {name: tuple(tensor.shape) for name, tensor in supernet.tensors.items()}
    for name, axes in supernet.structure.channels.tensors.items():
        held = [None if c is None else c.shape[-1] if c.ndim == 2 else len(c) for c in axes.channels]
        fits = axes.shape == shapes.get(name) and len(held) == len(axes.shape)
        if not fits or any(n not in (None, size) for n, size in zip(held, axes.shape, strict=True)):
            raise SupernetFileError(f'{origin} has a structure that does not fit its tensors: {name!r} differs.')


def _is_sound(sketch: DatasetSketch) -> bool:
    """Whether its numbers are of the kinds, and in the range, that a dataset gives."""
    whole = (sketch.classes, sketch.counts, sketch.labels)
    others = (sketch.means, sketch.factors, sketch.remainders, sketch.samples)
    return (
        all(tensor.dtype == torch.int64 and bool((tensor >= 0).all()) for tensor in whole)
        and all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in others)
        and sketch.num_classes > 0
    )


def _is_plain(structure: Structure) -> bool:
    """Whether it holds text and numbers where they belong; their sense shows when it is mapped."""
    channels = structure.channels
    maps = ((structure.kinds, str), (structure.values, list), (channels.scales, int | float), (channels.opaque, str))
    ops = [op for ops in channels.ops.values() for op in ops]
    return (
        all(isinstance(each, dict) and all(isinstance(item, kind) for item in each.values()) for each, kind in maps)
        and all(isinstance(op.kind, str) for op in ops)
        and all(isinstance(number, int) for op in ops for number in (op.kernel, op.stride, op.dilation))
        and all(isinstance(axes.groups, int) for axes in channels.tensors.values())
    )
