"""``nni-warmstart pretrain``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.table import Table

from ..utils import distributed
from .common import a_path, add_resume, add_seed, add_set, console, document, loading

HELP = 'train a source supernet'
DESCRIPTION = 'Train one supernet jointly on the datasets of a YAML file.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--config', required=True, type=a_path, help='pretrain.yml: a list data:, space, evaluator, strategy'
    )
    parser.add_argument('--name', required=True, help='name of the entry')
    parser.add_argument('--zoo', required=True, help='folder or URL in which the supernet is kept')
    parser.add_argument('--out', type=a_path, help='folder for log and checkpoints (default: pretrain-NAME)')
    add_resume(parser, 'start anew where --out holds an earlier run, or the zoo an entry of this name')
    add_seed(parser)
    add_set(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train a joint supernet, add it to a zoo, and print its accuracies as a table."""
    with loading():
        from ..runs.config import parse_pretrain
        from ..runs.pretrain import mark, may_replace, pretrain
        from ..zoo.zoo import SupernetZoo

    config = parse_pretrain(document(arguments), arguments.config.resolve().parent)
    zoo, out = SupernetZoo(arguments.zoo), arguments.out or Path(f'pretrain-{arguments.name}')
    zoo.check_can_add(arguments.name)
    replaces = arguments.overwrite or (arguments.resume and may_replace(zoo, arguments.name, out))
    if not replaces:
        zoo.check_free(arguments.name)
    command = ['nni-warmstart', 'pretrain', '--config', arguments.config.name, '--name', arguments.name]
    command += [word for item in arguments.set for word in ('--set', item)] + ['--seed', str(config.seed)]
    supernet = pretrain(
        config, name=arguments.name, seed=config.seed, out=out, command=shlex.join(command), resume=arguments.resume,
        overwrite=arguments.overwrite, replaces=mark(zoo, arguments.name) if arguments.overwrite else None,
    )  # fmt: skip
    if not distributed.is_first():
        return
    if not replaces and arguments.name in zoo:  # taken meanwhile
        path = zoo.path(zoo.add_numbered(supernet, arguments.name))
    else:
        path = zoo.add(supernet, overwrite=replaces)
    table = Table(title=f'{supernet.name}: accuracy on held-out images')
    table.add_column('dataset')
    table.add_column('accuracy', justify='right')
    for name, facts in supernet.datasets.items():
        table.add_row(name, f'{facts["accuracy"]:.4f}')
    console.print(table)
    console.print(f'Kept as {path} ({len(supernet.to_bytes()) / 1e6:.2f} MB)')
