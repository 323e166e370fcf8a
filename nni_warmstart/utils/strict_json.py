"""JSON and compressed text of unknown origin, read with bounds on memory, depth and numbers."""

from __future__ import annotations

import gc
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .limits import Budget

DEEPEST = 100
"""Largest number of lists and objects inside each other."""

_DIGITS = 300  # of a whole number: more do not fit into a float, and take long to read

_BYTES = {
    b'{:': 1000,
    b'[,': 400,
}  # four times what Python takes at most for what such a character stands for: it takes time

_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}'))


def parse(data: bytes, budget: Budget) -> Any:
    """Read JSON in UTF-8 that says one thing only, and says it with numbers that are finite.

    Parameters
    ----------
    data
        The text.
    budget
        Memory that it may take.

    Raises
    ------
    ValueError
        If it is not JSON, has a key twice in an object, NaN, infinity, a number of more than 300 digits, or too many lists
        and objects inside each other.
    WarmStartError
        If it takes more memory than ``budget`` allows.
    """
    width = 1 if data.isascii() else 4
    marks = sum(size * (len(data) - len(data.translate(None, each))) for each, size in _BYTES.items())
    budget.spend((1 + 2 * width) * len(data) + marks)
    try:
        with _no_collection():
            value = _DECODER.decode(data.decode('utf-8'))
    except RecursionError as error:
        raise ValueError(f'more than {DEEPEST} lists and objects are inside each other') from error
    if not _is_flat(data):
        _check_depth(value)
    return value


def parse_compressed(data: bytes, budget: Budget) -> Any:
    """Read JSON that ``zlib.compress`` made smaller; it is decompressed only as far as the budget allows.

    Raises
    ------
    zlib.error
        If it is damaged or truncated.
    ValueError, WarmStartError
        As :func:`parse`.
    """
    stream = zlib.decompressobj()
    text = stream.decompress(data, budget.left // 4)  # to read it takes thrice as much again
    if stream.unconsumed_tail:
        budget.spend(budget.left + 1)
    if not stream.eof:
        raise zlib.error('incomplete or truncated stream')
    return parse(text, budget)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking for cycles, of which JSON has none; in a process with torch that takes most of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _is_flat(data: bytes) -> bool:
    """Check quickly whether JSON is less deep than :data:`DEEPEST`; brackets in its text may hide that it is."""
    brackets = data.translate(None, _NO_BRACKETS)
    for _ in range(8):
        brackets = brackets.replace(b'[]', b'').replace(b'{}', b'')
    return len(brackets) < DEEPEST


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f'more than {DEEPEST} lists and objects are inside each other')
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f'a number has {len(text)} digits')
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text[:20]} is no finite number')
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError('an object has a key twice')
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_real)
