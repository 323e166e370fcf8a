"""``nni-warmstart report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import a_path, check_file, console, loading

HELP = 'write one HTML page about searches'
DESCRIPTION = (
    'Write one self-contained HTML page about one or several searches, side by side: curves, what was '
    'inherited, distances of the sources, probabilities over epochs, found cells, settings, versions.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'where', nargs='+', metavar='WHERE',
        help='--out of a search (finished or not) or of run, a folder above several, or the id of an nnictl experiment',
    )  # fmt: skip
    parser.add_argument('--out', type=a_path, default=Path('report.html'), help='the page (default: report.html)')


def run(arguments: argparse.Namespace) -> None:
    """Write the page."""
    with loading():
        from ..report.page import write_report

    check_file('--out', arguments.out, '.html')
    with console.status('Drawing ...'):
        number = write_report(arguments.where, arguments.out)
    console.print(
        f'{"One search" if number == 1 else f"{number} searches"} reported in {arguments.out}',
        highlight=False, soft_wrap=True,
    )  # fmt: skip
