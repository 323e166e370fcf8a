"""``nni-warmstart zoo``: long actions have a file each, short ones are in this one."""

from __future__ import annotations

import argparse

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import ZooError
from . import zoo_import, zoo_rank, zoo_show
from .common import a_path, console, loading

HELP = 'look at remembered supernets'
DESCRIPTION = 'List, show, rank, add, import and remove the supernets of a zoo.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    for name, run, text in (
        ('list', list_entries, 'one line per entry'),
        ('show', zoo_show.run, 'card of one entry'),
        ('rank', zoo_rank.run, 'order the entries by their promise for a new dataset'),
        ('add', add, 'copy a supernet file into the zoo'),
        ('import', zoo_import.run, 'add a pretrained network'),
        ('remove', remove, 'delete an entry'),
    ):
        action = actions.add_parser(name, help=text, description=text)
        changes = name in ('add', 'import', 'remove')  # so that nobody changes the shipped zoo by mistake
        default = '' if changes else ' (default: the one shipped with the package)'
        action.add_argument('--zoo', required=changes, help=f'folder or URL of the zoo{default}')
        if name in ('show', 'remove'):
            action.add_argument('name', help='entry')
        if name == 'show':
            zoo_show.add_arguments(action)
        if name == 'rank':
            zoo_rank.add_arguments(action)
        if name == 'import':
            zoo_import.add_arguments(action)
        if name == 'add':
            action.add_argument('file', type=a_path, help='supernet.safetensors')
            action.add_argument('--name', help='name of the entry (default: the one in the file)')
            action.add_argument('--overwrite', action='store_true', help='replace an entry of this name')
        action.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int | None:
    """Run the action."""
    return arguments.run(arguments)


def list_entries(arguments: argparse.Namespace) -> None:
    """Print a line per entry."""
    from ..zoo.listing import summaries
    from ..zoo.store import Store, shipped

    store = Store(shipped() if arguments.zoo is None else arguments.zoo)
    store.check_exists()
    table = Table(title=store.root, box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ('name', 'space', 'trained on', 'classes', 'numbers', 'created'):
        justify = 'right' if column in ('classes', 'numbers') else 'left'
        table.add_column(column, justify=justify, overflow='fold', no_wrap=column == 'name')
    for entry in summaries(store):
        space = entry.space.get('name') or entry.space.get('class', '?')
        datasets = list(entry.datasets) or [entry.dataset or '?']
        seen = datasets[0] if len(datasets) == 1 else f'{len(datasets)} datasets'
        table.add_row(entry.name, space, seen, str(entry.num_classes or '?'), f'{entry.num_parameters:,}',
                      (entry.created or '?')[:10])  # fmt: skip
    console.print(table)


def add(arguments: argparse.Namespace) -> None:
    """Copy a file into the zoo."""
    with loading():
        from ..supernets.supernet import Supernet
        from ..zoo.zoo import open_zoo

    supernet = Supernet.load(arguments.file)
    if supernet.diverged:
        raise ZooError(f'{arguments.file} has {supernet.divergence}: its training diverged; nothing can start from it.')
    if arguments.name is not None:
        supernet = supernet.renamed(arguments.name)
    console.print(f'Added {open_zoo(arguments.zoo).add(supernet, overwrite=arguments.overwrite)}')


def remove(arguments: argparse.Namespace) -> None:
    """Delete an entry."""
    from ..zoo.zoo import open_zoo

    open_zoo(arguments.zoo).remove(arguments.name)
    console.print(f'Removed {arguments.name}')
