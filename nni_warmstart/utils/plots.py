"""Figures, drawn without a display."""

from __future__ import annotations

import io
import os
from typing import Any

from torch import Tensor

from .files import write_atomic


def heatmap(names: list[str], distances: Tensor, path: str | os.PathLike[str]) -> None:
    """Draw a matrix of distances with its numbers into a PNG file.

    Parameters
    ----------
    names
        Names of rows and columns.
    distances
        Distances, shape ``(n, n)``.
    path
        Path of the file, which is replaced if it exists.
    """
    from matplotlib.figure import Figure

    side = max(4.0, 0.45 * len(names) + 2)
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(distances.numpy(), cmap='viridis')
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= 20:
        dark = float(distances.max()) / 2
        for i in range(len(names)):
            for j in range(len(names)):
                value = float(distances[i, j])
                axes.text(j, i, f'{value:.2g}', ha='center', va='center', fontsize=6, color='w' if value < dark else 'k')
    figure.colorbar(image, shrink=0.7, label='distance between datasets')
    _save(figure, path)


def mapping(
    path: str | os.PathLike[str],
    shares: dict[str, dict[str, float]],
    cells: list[str],
    choices: dict[str, dict[str, str]],
    candidates: dict[str, tuple[list[str], list[str]]],
    title: str,
) -> None:
    """Draw the origins of a warm supernet into a PNG file: source cells against target cells, then the ops of choices.

    Parameters
    ----------
    path
        Path of the file, which is replaced if it exists.
    shares
        Source cell -> target cell -> share of the target cell's parameters that come from it, in [0, 1].
    cells
        All target cells, in the order of the network.
    choices
        Label of a choice -> target candidate -> source candidate.
    candidates
        Label of a choice -> candidates of the target, and of the source. Choices that agree in everything are drawn once.
    title
        Title above the figure.
    """
    from matplotlib.figure import Figure

    kinds: dict[str, list[str]] = {}
    for label, partners in choices.items():
        kinds.setdefault(repr((candidates.get(label), sorted(partners.items()))), []).append(label)
    panels = [labels for labels in kinds.values() if labels[0] in candidates]
    rows = list(shares)
    height = max(3.5, 0.3 * len(rows) + 3) + 3.2 * len(panels)
    figure = Figure(figsize=(max(6.0, 0.4 * len(cells) + 3), height), layout='constrained')
    axes = figure.subplots(1 + len(panels), 1, squeeze=False)[:, 0]
    matrix = [[shares[source].get(target, 0.0) for target in cells] for source in rows]
    _matrix(figure, axes[0], matrix or [[0.0] * len(cells)], rows or ['-'], cells, 'source cells', 'target cells', title)
    for axis, labels in zip(axes[1:], panels, strict=True):
        target_ops, source_ops = candidates[labels[0]]
        matrix = [[float(choices[labels[0]].get(target) == source) for target in target_ops] for source in source_ops]
        shown = ', '.join(labels[:4]) + (f' and {len(labels) - 4} more' if len(labels) > 4 else '')
        _matrix(figure, axis, matrix, source_ops, target_ops, 'source ops', 'target ops', shown)
    _save(figure, path)


def _matrix(
    figure: Any, axes: Any, matrix: list[list[float]], rows: list[str], columns: list[str], left: str, below: str, title: str
) -> None:
    image = axes.imshow(matrix, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set(xlabel=below, ylabel=left)
    axes.set_title(title, fontsize=8, wrap=True)
    figure.colorbar(image, ax=axes, shrink=0.7, label='share inherited')


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # names from files may hold dollar signs
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=130, metadata={'Software': 'nni-warmstart'})  # see cli.common.check_file
    write_atomic(path, buffer.getvalue())
