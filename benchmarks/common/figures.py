"""Figures without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt


def save(figure: Any, path: Path, dpi: int = 120) -> None:
    """Write a figure and close it."""
    figure.tight_layout()
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
