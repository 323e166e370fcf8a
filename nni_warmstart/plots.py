"""Figures, drawn without a display."""

from __future__ import annotations

import io
import os

from torch import Tensor

from .storage import write_atomic


def heatmap(names: list[str], distances: Tensor, path: str | os.PathLike[str]) -> None:
    """Draw a matrix of distances with its numbers into a PNG file.

    Parameters
    ----------
    names
        Of rows and columns.
    distances
        Shape ``(n, n)``.
    path
        Replaced if it exists.
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=130)
    write_atomic(path, buffer.getvalue())
