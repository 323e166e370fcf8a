"""``nni-warmstart zoo show``: the card of an entry, or the tensors that a search would inherit from it."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table

from ..errors import ConfigError
from .common import a_path, check_file, console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--onto', type=a_path, metavar='YAML', help='say instead what the search of this file would inherit from the entry'
    )
    parser.add_argument('--tensors', action='store_true', help='with --onto: one line per tensor')
    parser.add_argument(
        '--picture', type=a_path, metavar='PNG', help='with --onto: draw source cells against target cells, and the ops'
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the card of an entry, or the report of what a search would inherit from it."""
    from ..zoo.zoo import open_zoo

    entry = open_zoo(arguments.zoo)[arguments.name]
    if arguments.onto is not None:
        _show_onto(arguments, entry)
        return
    if arguments.picture is not None or arguments.tensors:
        raise ConfigError('--picture and --tensors need --onto search.yml: they show what its search would inherit.')
    card = {key: value for key, value in entry.card.items() if key not in ('aliases', 'alphas', 'candidates')}
    console.print_json(data=card)
    table = Table(title='choices')
    table.add_column('label')
    table.add_column('probability by candidate')
    for label, candidates in entry.candidates.items():
        probability = entry.alpha(label).softmax(-1).tolist()
        table.add_row(label, ', '.join(f'{name} {p:.2f}' for name, p in zip(candidates, probability, strict=True)))
    console.print(table)


def _show_onto(arguments: argparse.Namespace, entry: Any) -> None:
    from ..runs.config import parse_search
    from ..runs.search import preview
    from ..runs.settings import read

    if arguments.picture is not None:
        check_file('--picture', arguments.picture, '.png')
    report = preview(parse_search(read(arguments.onto), arguments.onto.resolve().parent), entry)
    console.print(report.to_text(every_tensor=arguments.tensors), soft_wrap=True, highlight=False)
    shares = report.shares('op')
    if shares:
        console.print('by op: ' + ', '.join(f'{op} {share:.0%}' for op, share in shares.items()))
    if arguments.picture is not None:
        report.plot(arguments.picture)
        console.print(f'Drawn in {arguments.picture}')
