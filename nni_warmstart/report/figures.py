"""Figures of a report as data URIs of SVG: in an ``<img>`` a browser runs no script in them and fetches nothing."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

_STYLE: Any = {
    'text.parse_math': False,  # names from files may hold dollar signs
    'svg.fonttype': 'none',  # text in the reader's own fonts: any script, small files
    'svg.hashsalt': 'nni-warmstart',  # the same figure gives the same bytes
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
}

_PARAMETER_FREE = ('skip', 'pool', 'identity', 'none')

_RADIUS = 0.25
"""Radius of a node, in inches."""


@dataclass(frozen=True)
class Series:
    """Line of a figure: values of a search by epoch.

    Attributes
    ----------
    name
        Name in the legend.
    values
        Value of each epoch; None if unknown.
    start
        Epoch of the first value; 0 is before any training.
    """

    name: str
    values: Sequence[float | None]
    start: int = 1


@dataclass(frozen=True)
class Edge:
    """Op in a cell, from one node to a later one."""

    source: int
    target: int
    op: str


@rc_context(_STYLE)
def curves(series: Sequence[Series], label: str) -> str:
    """Draw lines over epochs.

    Parameters
    ----------
    series
        Lines, in the order of their colours, which is the same in every figure.
    label
        Name of the quantity.
    """
    figure = Figure(figsize=(5.6, 3.2), layout='constrained')
    axes = figure.subplots()
    colours = colormaps['tab10' if len(series) <= 10 else 'turbo']
    handles = []
    for index, each in enumerate(series):
        epochs = range(each.start, each.start + len(each.values))
        values = [math.nan if value is None else value for value in each.values]
        colour = colours(index if len(series) <= 10 else index / (len(series) - 1))
        handles += axes.plot(epochs, values, color=colour, marker='.' if len(values) <= 30 else '', linewidth=1.4)
    axes.set(xlabel='epoch', ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis='y', useOffset=False)
    axes.grid(alpha=0.25)
    if len(series) > 1:
        columns = 1 if len(series) <= 3 else 2 if len(series) <= 12 else 4
        names = [_shown(each.name, 72 // columns) for each in series]
        if columns == 1:
            axes.legend(handles, names, fontsize=7, frameon=False)
        else:
            figure.set_figheight(3.2 + 0.16 * math.ceil(len(series) / columns))
            figure.legend(handles, names, ncols=columns, fontsize=7, frameon=False, loc='outside lower center')
    return _uri(figure)


@rc_context(_STYLE)
def bars(values: Sequence[tuple[str, float | None]], label: str, chosen: str) -> str:
    """Draw horizontal bars with their values, the first on top.

    Parameters
    ----------
    values
        Names and values; None if unknown.
    label
        Name of the quantity.
    chosen
        Name of the bar to highlight; several names are joined by ``' + '``.
    """
    names, lengths = [name for name, _ in values], [math.nan if value is None else value for _, value in values]
    figure = Figure(figsize=(6.5, 0.9 + 0.27 * len(values)), layout='constrained')
    axes = figure.subplots()
    taken = {chosen} if chosen in names else set(chosen.split(' + '))
    drawn = axes.barh(range(len(values)), lengths, color=['#1f5fa8' if n in taken else '#b9c7d8' for n in names], height=0.7)
    axes.bar_label(drawn, [f'{value:.4g}' for value in lengths], padding=3, fontsize=7)
    axes.set_yticks(range(len(values)), [_shown(name, 60) for name in names], fontsize=8)
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    axes.invert_yaxis()
    return _uri(figure)


@rc_context(_STYLE)
def heat_maps(
    epochs: Sequence[Mapping[str, Mapping[str, float | None]]], labels: Sequence[str], scale: tuple[float, float]
) -> str:
    """Draw a panel per choice: its candidates against the epochs, and at the right the last probabilities.

    Parameters
    ----------
    epochs
        Label of a choice -> candidate -> probability in [0, 1], one mapping per epoch; empty if unknown.
    labels
        Labels of the choices, in the order of the panels. If all have the same candidates, a row names them once.
    scale
        Probabilities of the darkest and of the lightest colour.
    """
    candidates = {label: list(dict.fromkeys(name for each in epochs for name in each.get(label, {}))) for label in labels}
    names = max((len(_shown(name, 20)) for each in candidates.values() for name in each), default=0)
    alike = len({tuple(each) for each in candidates.values()}) == 1
    width, left, gap = 11.0, 0.15 + 0.066 * names, 0.5
    columns = min(4 if alike else 3, len(labels))
    margins = left + gap * columns if alike else (left + gap) * columns
    panel = min((width - margins) / columns, 4.0)
    rows = [labels[start : start + columns] for start in range(0, len(labels), columns)]
    heights = [max(max(len(candidates[label]) for label in row), 1) * 0.17 for row in rows]
    height = sum(heights) + 0.55 * len(rows)
    figure = Figure(figsize=(margins + columns * panel, height))
    top = height
    for row, tall in zip(rows, heights, strict=True):
        for column, label in enumerate(row):
            x = left + column * (panel + gap + (0 if alike else left))
            own = 0.17 * max(len(candidates[label]), 1)
            place = (x / figure.get_figwidth(), (top - 0.25 - own) / height, panel / figure.get_figwidth(), own / height)
            _panel(figure.add_axes(place), epochs, label, candidates[label], scale, named=not alike or column == 0)
        top -= tall + 0.55
    return _uri(figure)


def _panel(
    axes: Any, epochs: Sequence[Any], label: str, candidates: list[str], scale: tuple[float, float], *, named: bool
) -> None:
    values = [[each.get(label, {}).get(name) for each in epochs] for name in candidates]
    matrix = [[math.nan if value is None else value for value in row] for row in values]
    extent = (0.5, len(epochs) + 0.5, len(candidates) - 0.5, -0.5)
    low, high = scale
    axes.imshow(matrix, cmap='viridis', vmin=low, vmax=high, aspect='auto', interpolation='nearest', extent=extent)
    axes.set_yticks(range(len(candidates)), [_shown(name, 20) for name in candidates] if named else [], fontsize=7)
    axes.set_xticks([1, len(epochs)] if len(epochs) > 1 else [1])
    axes.tick_params(length=0, labelsize=7, pad=2, labelleft=named)
    axes.set_title(_shown(label, 36), fontsize=8, pad=3)
    beside = axes.get_yaxis_transform()  # across in shares of the panel, down in candidates
    last = [row[-1] for row in matrix]
    best = max((value for value in last if value == value), default=math.nan)
    for place, value in enumerate(last):
        if value == value:
            weight = 'bold' if value == best else 'normal'
            axes.text(1.03, place, f'{value:.2f}', fontsize=6.5, weight=weight, va='center', transform=beside)


@rc_context(_STYLE)
def cell(edges: Sequence[Edge], nodes: Mapping[int, str]) -> str:
    """Draw the ops of a cell as arcs over a row of nodes; operations without parameters are grey, ``none`` is dotted.

    Arcs that would meet have different heights, so that no two names overlap.

    Parameters
    ----------
    edges
        Ops from a node to a later one.
    nodes
        Names of the nodes by number.
    """
    place = {node: 1.75 * index for index, node in enumerate(sorted(nodes))}
    straight, above, below = _tracks(edges, sorted(nodes))
    up, down = (_height(max((level for _, level in side), default=0)) + 0.2 for side in (above, below))
    figure = Figure(figsize=(1.75 * len(nodes), up + down))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.875, 1.75 * len(nodes) - 0.875), ylim=(-down, up))
    axes.axis('off')
    for node, x in place.items():
        axes.add_patch(Circle((x, 0), _RADIUS, facecolor='#e8eef6', edgecolor='#1f5fa8', zorder=3))
        axes.text(x, 0, _shown(nodes[node], 7), ha='center', va='center', fontsize=8, zorder=4)
    for edge in straight:
        start, end = place[edge.source] + _RADIUS, place[edge.target] - _RADIUS
        _arrow(axes, [(start, 0), (end, 0)], edge, (start + end) / 2, 0)
    for side, sign in ((above, 1), (below, -1)):
        ports = _ports(side)
        for edge, level in side:
            start, end = place[edge.source] + ports[edge, 'out'], place[edge.target] + ports[edge, 'in']
            foot = [math.sqrt(_RADIUS**2 - ports[edge, port] ** 2) * sign for port in ('out', 'in')]
            y = _height(level) * sign
            # the name stands between two nodes, where no other arc goes down
            between = [(left + right) / 2 for left, right in pairwise(place.values()) if start < right and left < end]
            middle = min(between, key=lambda x, start=start, end=end: abs(x - (start + end) / 2))
            _arrow(axes, [(start, foot[0]), (start, y), (end, y), (end, foot[1])], edge, middle, y)
    return _uri(figure)


def _height(level: int) -> float:
    """Return the height of an arc, in inches; 0 is the height of the nodes."""
    return 0.26 + 0.36 * level


def _tracks(edges: Sequence[Edge], nodes: list[int]) -> tuple[list[Edge], list[tuple[Edge, int]], list[tuple[Edge, int]]]:
    """Return the straight edges between neighbours, and the others above and below with the height (1, 2, ...) of each."""
    order = {node: index for index, node in enumerate(nodes)}
    straight: dict[tuple[int, int], Edge] = {}
    arcs = []
    for edge in dict.fromkeys(edges):
        ends = order[edge.source], order[edge.target]
        if ends[1] - ends[0] == 1 and ends not in straight:
            straight[ends] = edge
        else:
            arcs.append(edge)
    sides: tuple[list[tuple[Edge, int]], list[tuple[Edge, int]]] = ([], [])
    taken: tuple[dict[int, list[Edge]], dict[int, list[Edge]]] = (defaultdict(list), defaultdict(list))
    for edge in sorted(arcs, key=lambda e: (order[e.target] - order[e.source], order[e.source])):
        levels = []
        for side in taken:
            free = 1
            while any(edge.source < other.target and other.source < edge.target for other in side[free]):
                free += 1
            levels.append(free)
        side = levels.index(min(levels))
        taken[side][levels[side]].append(edge)
        sides[side].append((edge, levels[side]))
    return list(straight.values()), *sides


def _ports(side: list[tuple[Edge, int]]) -> dict[tuple[Edge, str], float]:
    """Return the offsets at which arcs leave and reach their nodes: nested, so that arcs of one node don't cross."""
    ports: dict[tuple[Edge, str], float] = {}
    for port, sign in (('out', 1), ('in', -1)):
        by_node: dict[int, list[tuple[int, Edge]]] = defaultdict(list)
        for edge, level in side:
            by_node[edge.source if port == 'out' else edge.target].append((-level, edge))
        for found in by_node.values():
            found.sort(key=lambda item: item[0])
            for index, (_, edge) in enumerate(found):
                ports[edge, port] = sign * 0.2 * (index + 1) / (len(found) + 1)
    return ports


def _arrow(axes: Any, points: list[tuple[float, float]], edge: Edge, x: float, y: float) -> None:
    """Draw a line with its op's name at ``(x, y)``: straight through two points, or with round corners through four."""
    free = any(word in edge.op.lower() for word in _PARAMETER_FREE)
    colour = '#8a8f98' if free else '#1f5fa8'
    line: Any = {'edgecolor': colour, 'linestyle': ':' if edge.op == 'none' else '-', 'linewidth': 1.3, 'zorder': 1}
    if len(points) == 4:
        first, left, right, last = points
        bend, down = 0.18, math.copysign(0.18, y)
        vertices = [first, (left[0], y - down), left, (left[0] + bend, y), (right[0] - bend, y), right, (right[0], y - down)]
        codes = [Path.MOVETO, Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO, Path.CURVE3, Path.CURVE3]
        axes.add_patch(PathPatch(Path(vertices, codes), facecolor='none', **line))
        points, line['linestyle'] = [vertices[-1], last], '-'
    arrow = {'arrowstyle': '-|>', 'mutation_scale': 9, 'shrinkA': 0, 'shrinkB': 0, 'facecolor': colour}
    axes.add_patch(FancyArrowPatch(points[0], points[1], **arrow, **line))
    box = {'facecolor': 'white', 'edgecolor': 'none', 'pad': 1.2}
    axes.text(x, y, _shown(edge.op, 18), ha='center', va='center', fontsize=7.5, color=colour, bbox=box, zorder=2)


def _shown(text: str, length: int) -> str:
    """Return text that is printable and no longer than ``length``."""
    text = ''.join(letter if letter.isprintable() else ' ' for letter in str(text))
    return text if len(text) <= length else f'{text[: length - 1]}…'


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing')  # text is only measured here
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    return f'data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}'
