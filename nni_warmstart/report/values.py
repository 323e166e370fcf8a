"""Values of results as text and tables: of much the beginning, of what is no number a dash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..utils.files import plain

_MOST_ROWS, _LONGEST_TEXT = 1000, 500
"""Rows of a table, and letters of a cell, that are shown."""


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return a table with the indices of its numeric columns; of many rows and long texts the beginning."""
    texts = [[short(str(cell)) for cell in row] for row in rows[:_MOST_ROWS]]
    numeric = [all(re.fullmatch(r'-|\d[\d,]*(\.\d+)?( %)?', text) for text in column) for column in zip(*texts, strict=True)]
    named = [{'name': name, 'numeric': flag} for name, flag in zip(columns, numeric or [False] * len(columns), strict=True)]
    if len(rows) > _MOST_ROWS:
        texts.append([f'and {len(rows) - _MOST_ROWS} more', *[''] * (len(columns) - 1)])
    return {'columns': named, 'rows': texts}


def short(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= _LONGEST_TEXT else f'{text[:_LONGEST_TEXT]}…'


def finite(value: Any) -> float | None:
    """Return a number that can be drawn, else None; a loss may be anything before it overflows."""
    return plain(float(value)) if isinstance(value, int | float) and abs(value) < 1e30 else None


def number(value: Any, form: str = '.4f') -> str:
    """Return a number as text, '-' for what is none."""
    return '-' if finite(value) is None else format(value, form)


def share(value: float) -> str:
    """Return a share as a percentage."""
    return f'{100 * value:.1f} %'


def listed(value: Any) -> str:
    """Return a value as text, items of a list after each other."""
    return ', '.join(map(str, value)) if isinstance(value, list) else str(value)
