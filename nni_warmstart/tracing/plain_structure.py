"""Validation of a structure as plain data, before anything is made of it: every type, every size, every number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .axes import IN, NEITHER, OUT

LABELS = ('pieces', 'norms', 'strands')
"""Attributes of axes that label their indices; files of earlier versions have none."""

MOST_DIMENSIONS = 8

MOST_PARTS = 100
"""Largest number of names in a path; networks are walked from module to module."""

LONGEST = 1000
"""Largest number of characters of a path, a label or a name."""

MODULES_PER_TENSOR, FEWEST = 50, 1000
"""Modules and operators that a structure may have for each of its tensors, and in any case."""

_LARGEST = 2**31


def check(plain: Any) -> None:
    """Check what a file says about a structure.

    Parameters
    ----------
    plain
        The structure as plain data, as :meth:`~nni_warmstart.tracing.structure.Structure.to_bytes` writes it.

    Raises
    ------
    ValueError
        If it has other keys, types, sizes or numbers than any network gives; the message names the first fault.
    """
    _need(isinstance(plain, dict), 'it is no object with keys')
    parts: dict[str, Callable[[Any, str], bool]] = {
        'kinds': lambda value, _: _is_text(value),
        'opaque': lambda value, _: _is_text(value, 10 * LONGEST),
        'scales': lambda value, _: _is_real(value),
        'values': lambda value, _: isinstance(value, list) and all(map(_is_text, value)),
        'sites': lambda value, _: _is_site(value),
        'ops': lambda value, _: isinstance(value, list) and all(map(_is_op, value)),
    }
    tensors = plain.get('tensors')
    _need(isinstance(tensors, dict) and all(map(_is_path, tensors)), 'tensors are no tensors by name')
    most = MODULES_PER_TENSOR * len(tensors) + FEWEST
    for key, fits in parts.items():
        value = plain.get(key)
        _need(isinstance(value, dict) and all(map(_is_path, value)), f'{key} is no object with paths for keys')
        for path, each in value.items():
            _need(fits(each, path), f'{key} of {path!r} is {_short(each)}')
        _need(sum(len(each) if isinstance(each, list) else 1 for each in value.values()) <= most, f'{key} are too many')
    total = 0
    for name, entry in tensors.items():
        total += _check_axes(name, entry)
    highest = 16 * total + 2**16  # numbers of channels are nearly without gaps
    for name, entry in tensors.items():
        for channels in entry[2]:
            _need(channels is None or _below(channels, highest), f'channels of {name!r} have too high numbers')
    for key in ('inputs', 'outputs'):
        _need(_length(plain.get(key)) is not None, f'{key} are no channels')
    _check_relations(plain.get('relations', {}), tensors, highest)


def _check_axes(name: str, entry: Any) -> int:
    """Check the axes of one tensor; return how many channels they have in all."""
    _need(isinstance(entry, list) and len(entry) == 6, f'{name!r} has no six entries')
    shape, roles, channels, bounds, dilation, groups = entry
    _need(_is_shape(shape) and len(shape) <= MOST_DIMENSIONS, f'{name!r} has shape {_short(shape)}')
    for key, value in (('roles', roles), ('channels', channels), ('bounds', bounds)):
        _need(isinstance(value, list) and len(value) == len(shape), f'{key} of {name!r} are not one for each dimension')
    _need(all(role in (OUT, IN, NEITHER) for role in roles), f'{name!r} has roles {_short(roles)}')
    _need(_is_shape(dilation) and len(dilation) <= MOST_DIMENSIONS, f'{name!r} has dilation {_short(dilation)}')
    fits = _is_whole(groups, 1) and (groups == 1 or (len(shape) > 1 and shape[0] % groups == 0))
    _need(fits, f'{name!r} has {_short(groups)} groups')
    total = 0
    for axis, size in enumerate(shape):
        role, held = roles[axis], channels[axis]
        _need((role == NEITHER) == (held is None), f'{name!r} has channels where it has no role, or the reverse')
        rows = held if isinstance(held, list) else [held]
        if isinstance(held, list):
            _need(axis == 1 and role == IN and len(held) == groups > 1, f'channels of {name!r} are not one row per group')
        if held is not None:
            _need(all(_length(row) == size for row in rows), f'channels of {name!r} are not {size}')
            total += size * len(rows)
        ends = bounds[axis]
        _need(isinstance(ends, list) and all(_is_whole(end, 1, size - 1) for end in ends), f'{name!r} has bad bounds')
        _need(all(a < b for a, b in itertools.pairwise(ends)), f'bounds of {name!r} do not increase')
    return total


def _check_relations(relations: Any, tensors: Mapping[str, Any], highest: int) -> None:
    _need(isinstance(relations, dict) and relations.keys() <= {'ties', *LABELS}, 'relations have other keys')
    owner: dict[int, int] = {}
    for kind in LABELS:
        labels = relations.get(kind, {})
        _need(isinstance(labels, dict) and labels.keys() <= tensors.keys(), f'{kind} are of other tensors')
        for name, axes in labels.items():
            channels = tensors[name][2]
            _need(isinstance(axes, list) and len(axes) == len(channels), f'{kind} of {name!r} are not one per dimension')
            for label, held in zip(axes, channels, strict=True):
                if label is None:
                    continue
                _need(_form(label) == _form(held) is not None, f'{kind} of {name!r} do not fit its channels')
                _need(_below(label, 2 * highest if kind == 'strands' else _size(held)), f'{kind} of {name!r} are too large')
                if kind == 'strands':
                    for strand, channel in zip(_numbers(label), _numbers(held), strict=True):
                        _need(owner.setdefault(strand, channel) == channel, f'strands of {name!r} are of two channels')
                else:
                    _need({*_numbers(label)} == {*range(max(_numbers(label)) + 1)}, f'{kind} of {name!r} have gaps')
    ties = relations.get('ties', [[], [], []])
    _need(isinstance(ties, list) and len(ties) == 3 and all(isinstance(each, list) for each in ties), 'ties are no triples')
    _need(len({*map(len, ties)}) == 1 and len(ties[0]) <= highest, 'ties are no triples')
    _need(all(_is_whole(each, 0, 2 * highest) for row in ties for each in row), 'ties have bad numbers')


def _need(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(fault)


def _is_text(value: Any, longest: int = LONGEST) -> bool:
    return isinstance(value, str) and len(value) <= longest


def _is_path(value: Any) -> bool:
    return _is_text(value) and value.count('.') < MOST_PARTS


def _is_whole(value: Any, low: int = 0, high: int = _LARGEST) -> bool:
    return type(value) is int and low <= value <= high


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e9 and math.isfinite(value)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_is_whole(size, 1) for size in value)


def _is_op(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and _is_text(value[0]) and all(_is_whole(n, 1) for n in value[1:])


def _is_site(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _is_text(value[0])
        and isinstance(value[1], dict)
        and all(map(_is_path, (*value[1].keys(), *value[1].values())))
    )


def _length(run: Any) -> int | None:
    """Return the length of channels in plain data: a start and a length, or all numbers; None for anything else."""
    if not isinstance(run, dict):
        return None
    if run.keys() == {'start', 'length'}:
        whole = _is_whole(run['start']) and _is_whole(run['length'], 1)
        return run['length'] if whole else None
    if run.keys() == {'channels'} and isinstance(run['channels'], list) and all(map(_is_whole, run['channels'])):
        return len(run['channels'])
    return None


def _form(held: Any) -> tuple[int | None, ...] | None:
    """Return the lengths of the rows of channels in plain data; None for anything else."""
    if held is None:
        return None
    lengths = tuple(_length(row) for row in (held if isinstance(held, list) else [held]))
    return None if None in lengths else lengths


def _size(held: Any) -> int:
    return sum(length or 0 for length in _form(held) or ())


def _below(held: Any, bound: int) -> bool:
    """Check whether all numbers of channels in plain data are below a bound."""
    rows = held if isinstance(held, list) else [held]
    tops = [run['start'] + run['length'] if 'start' in run else max(run['channels'], default=-1) + 1 for run in rows]
    return max(tops, default=0) <= bound


def _numbers(held: Any) -> Iterator[int]:
    for run in held if isinstance(held, list) else [held]:
        yield from range(run['start'], run['start'] + run['length']) if 'start' in run else run['channels']


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:60]}...'
