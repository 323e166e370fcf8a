"""``nni-warmstart zoo show``: the card of an entry, or the tensors that a search would inherit from it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..utils.text import enumerated
from .common import a_path, check_file, console, loading

if TYPE_CHECKING:
    from ..supernets.supernet import Supernet

_MOST = 10  # class names that are shown
_ROWS = 40  # datasets that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--onto', type=a_path, metavar='YAML', help='say instead what the search of this file would inherit from the entry'
    )
    parser.add_argument('--json', action='store_true', help='print everything, as JSON; with --onto the whole report')
    parser.add_argument('--tensors', action='store_true', help='with --onto: one line per tensor')
    parser.add_argument(
        '--picture', type=a_path, metavar='PNG', help='with --onto: draw source cells against target cells, and the ops'
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the card of an entry, or the report of what a search would inherit from it."""
    with loading():
        from ..zoo.zoo import open_zoo

    entry = open_zoo(arguments.zoo)[arguments.name]
    if arguments.onto is not None:
        _show_onto(arguments, entry)
        return
    if arguments.picture is not None or arguments.tensors:
        raise ConfigError('--picture and --tensors need --onto search.yml: they show what its search would inherit.')
    if arguments.json:
        card = {key: value for key, value in entry.card.items() if key not in ('aliases', 'alphas', 'candidates')}
        console.print_json(data={**card, 'probabilities': _probabilities(entry)})
        return
    console.print(Text(entry.name, 'bold'))
    console.print(_facts(entry))
    if entry.datasets:
        console.print(_datasets(entry))
    if not entry.is_network:
        choices = Table('choice', 'probability by candidate', box=SIMPLE_HEAD)
        for label, probability in _probabilities(entry).items():
            choices.add_row(label, ', '.join(f'{name} {p:.2f}' for name, p in probability.items()))
        console.print(choices)
    console.print('--json prints the whole card: all class names, settings, curves, versions.')


def _facts(entry: Supernet) -> Table:
    """What the entry is, a line each."""
    space, pictures = entry.space, entry.recorded_pictures
    arguments = ', '.join(f'{key} {value}' for key, value in space.get('arguments', {}).items())
    names = f': {enumerated(entry.class_names, _MOST)}' if entry.class_names else ''
    embeddings = ('own features' if name == entry.key else name for name in entry.sketches)
    if entry.is_network:
        made = {'network': space.get('class', '?'), 'choices': 'none; a warm start maps its layers onto a space'}
    else:
        kind = f'{space.get("name") or space.get("class", "?")}{arguments and ", "}{arguments}'
        made = {'space': kind, 'strategy': entry.strategy}
    told = {key: _in_words(entry.history.get(key)) for key in ('origin', 'normalisation')}
    tried = ', and is tried by auto' if entry.is_network else ''
    facts = {
        **made,
        'parameters': f'{entry.num_parameters:,}',
        'images': 'unknown' if pictures is None else f'{pictures[1]} x {pictures[1]} pixels, {pictures[0]} channels',
        'classes': f'{entry.num_classes or "unknown"}{names}',
        'sketches': ', '.join(embeddings) or f'none; it can be named as a source{tried}, but not ranked by distance',
        'created': entry.created or 'unknown',
        **{key: text for key, text in told.items() if text},
    }
    if not entry.datasets:
        facts |= {'trained on': entry.dataset or 'unknown', 'licence': str(entry.licence or 'unknown')}
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, 'dim'), value)
    return table


def _in_words(fact: object) -> str:
    """Return a fact of the record on one line, which is '' if there is none; a file may hold anything."""
    if isinstance(fact, dict):
        return ', '.join(f'{key} {value}' for key, value in fact.items())
    return '' if fact is None else str(fact)


def _datasets(entry: Supernet) -> Table:
    """What the entry was trained on, a line each."""
    table = Table('trained on', box=SIMPLE_HEAD)
    for column in ('images', 'classes', 'accuracy'):
        table.add_column(column, justify='right')
    table.add_column('licence')
    for name, facts in list(entry.datasets.items())[:_ROWS]:
        known = facts if isinstance(facts, dict) else {}  # a file may hold anything
        table.add_row(name, *(str(known.get(key, '?')) for key in ('pictures', 'classes', 'accuracy', 'licence')))
    if len(entry.datasets) > _ROWS:
        table.add_row(f'and {len(entry.datasets) - _ROWS} more')
    return table


def _probabilities(entry: Supernet) -> dict[str, dict[str, float]]:
    """Label of a choice -> candidate -> its probability."""
    return {
        label: dict(zip(candidates, entry.alpha(label).softmax(-1).tolist(), strict=True))
        for label, candidates in entry.candidates.items()
    }


def _show_onto(arguments: argparse.Namespace, entry: Supernet) -> None:
    from ..runs.config import parse_search
    from ..runs.search import preview
    from ..runs.settings import read

    if arguments.picture is not None:
        check_file('--picture', arguments.picture, '.png')
    report = preview(parse_search(read(arguments.onto), arguments.onto.resolve().parent), entry)
    if arguments.picture is not None:
        report.plot(arguments.picture)
    if arguments.json:
        console.print_json(data=report.to_dict())
        return
    console.print(report.to_text(every_tensor=arguments.tensors), soft_wrap=True, highlight=False)
    shares = report.shares('op')
    if shares:
        console.print('by op: ' + ', '.join(f'{op} {share:.0%}' for op, share in shares.items()))
    if arguments.picture is not None:
        console.print(f'Drawn in {arguments.picture}')
