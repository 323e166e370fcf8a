"""Curves of a report: values over epochs, each drawn by a script, or as an image where a browser runs none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..utils.text import visible
from . import figures
from .runs import Retrained, Search
from .values import finite, number, short

CURVES = {
    'default': 'validation accuracy',
    'train_loss': 'train loss',
    'alpha_entropy': 'alpha entropy',
    'skip_share': 'skip share',
}
"""Figures of an epoch that are drawn, by key, and their titles."""


def charts(searches: Sequence[Search], networks: Sequence[Retrained]) -> list[dict[str, Any]]:
    """Return the groups of charts, each with one legend: names of lines, in the order of their colours, and charts."""
    groups = [list(_of_searches(searches)), *([chart] for chart in _of_networks(networks))]
    return [{'names': [each['name'] for each in group[0]['data']['series']], 'charts': group} for group in groups if group]


def _of_searches(searches: Sequence[Search]) -> Iterator[dict[str, Any]]:
    """Yield a chart for each of :data:`CURVES` of which there are values, with a line for every search."""
    for key, label in CURVES.items():
        series = []
        for place, search in enumerate(searches, 1):
            values, start = [finite(each.get(key)) for each in search.curve], 1
            before = finite((search.result.get('warm_start') or {}).get('zero_shot_accuracy'))
            if key == 'default' and before is not None:
                values, start = [before, *values], 0
            series.append(figures.Series(f'{place}. {search.name}', values, start))
        warm = any(each.start == 0 for each in series)
        yield from _chart(series, label, 'Epoch 0: after the warm start, before any training.' if warm else '')


def _of_networks(networks: Sequence[Retrained]) -> Iterator[dict[str, Any]]:
    """Yield a chart of the accuracies of networks that were retrained, for each kind of images they were measured on."""
    for kind in dict.fromkeys(network.result['measured_on'] for network in networks):
        measured = [network for network in networks if network.result['measured_on'] == kind]
        series = [figures.Series(each.name, [finite(value) for value in each.result['curve']]) for each in measured]
        yield from _chart(series, f'{short(kind)} accuracy', 'Networks that were retrained.')


def _chart(series: list[figures.Series], label: str, caption: str) -> Iterator[dict[str, Any]]:
    """Yield the chart, unless no value is known."""
    if not any(value is not None for each in series for value in each.values):
        return
    ends = (next((value for value in reversed(each.values) if value is not None), None) for each in series)
    last = [f'{short(each.name)} {number(end)}' for each, end in zip(series, ends, strict=True)]
    yield {
        'uri': figures.curves(series, label),
        'text': f'{label} over epochs',
        'caption': caption,
        'data': {
            'label': visible(label, keep=''),
            'text': visible(f'{label} over epochs; at the end {"; ".join(last)}', keep=''),
            'series': [
                {'name': visible(short(each.name), keep=''), 'start': each.start, 'values': list(each.values)}
                for each in series
            ],
        },
    }
