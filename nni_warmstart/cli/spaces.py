"""``nni-warmstart spaces``."""

from __future__ import annotations

import argparse

from rich.table import Table

from .common import console

HELP = 'list model spaces'
DESCRIPTION = 'Names for space.name, and their arguments.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(arguments: argparse.Namespace) -> None:
    """Print names and arguments of the model spaces."""
    from ..nni_adapter.model_spaces import parameters_of, space_names

    table = Table(title='model spaces; your own: package.module:Class')
    table.add_column('name')
    table.add_column('arguments')
    for name, cls in space_names().items():
        shown = (key if p.default is p.empty else f'{key}={p.default!r}' for key, p in parameters_of(cls).items())
        table.add_row(name, ', '.join(shown))
    console.print(table)
