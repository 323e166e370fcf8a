"""Numbers of a report as CSV files, in links that hold their content."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from ..utils.text import visible
from .runs import Retrained, Search

_FORMULA = ('=', '+', '-', '@')
"""First letters by which a spreadsheet takes text for a formula, and runs it."""


def downloads(searches: Sequence[Search], networks: Sequence[Retrained], overview: dict[str, Any]) -> list[dict[str, str]]:
    """Return the files of a report: name, what is in it, and a link with its content."""
    keys = list(dict.fromkeys(key for search in searches for figures in search.curve for key in figures))
    curves = (
        (search.name, epoch, *(figures.get(key) for key in keys))
        for search in searches
        for epoch, figures in enumerate(search.curve, 1)
    )
    probabilities = (
        (search.name, label, candidate, value)
        for search in searches
        for label, choice in (search.alphas[-1] if search.alphas else {}).items()
        for candidate, value in choice.items()
    )
    rows = ((search.name, *row) for search, row in zip(searches, overview['rows'], strict=False))
    retrained = ((each.name, epoch, value) for each in networks for epoch, value in enumerate(each.result['curve'], 1))
    files = [
        ('searches.csv', 'one row per search', _file(('search', *(c['name'] for c in overview['columns'])), rows)),
        ('curves.csv', 'figures of every epoch', _file(('search', 'epoch', *keys), curves)),
        ('probabilities.csv', 'at the end', _file(('search', 'choice', 'candidate', 'probability'), probabilities)),
    ]
    if networks:
        files.append(
            ('networks.csv', 'accuracies of retrained networks', _file(('network', 'epoch', 'accuracy'), retrained))
        )
    return [{'name': name, 'what': what, 'uri': uri} for name, what, uri in files]


def _file(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([_cell(each) for each in header])
    writer.writerows([_cell(each) for each in row] for row in rows)
    return f'data:text/csv;base64,{base64.b64encode(text.getvalue().encode("utf-8", "replace")).decode()}'


def _cell(value: Any) -> Any:
    """Return a value that a spreadsheet shows and does not run: numbers as they are, empty if unknown."""
    if value in (None, '-') or isinstance(value, int | float):
        return '' if value in (None, '-') else value
    text = visible(str(value), keep='')
    return f"'{text}" if text.startswith(_FORMULA) else text
