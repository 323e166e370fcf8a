"""The command line ``nni-warmstart``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

from . import commands
from .errors import WarmStartError, reason

_NOISE = (
    'does not have many workers',
    'pkg_resources',
    'Checkpoint directory',
    'Experiment logs directory',
    'LeafSpec',
    'smaller than the logging interval',
    'sync_dist=True',
    'find_unused_parameters=True was specified',
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; wrong input gives one line on stderr and status 2."""
    arguments = _parser().parse_args(argv)
    quiet()
    try:
        return arguments.run(arguments) or 0
    except WarmStartError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except OSError as error:  # of a disk that is full, a folder that was taken away
        print(f'error: {reason(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


def _path(text: str) -> Path:
    """A path, its home folder put in where the shell did not, as in ``--out=~/run``."""
    return Path(os.path.expanduser(text))


def quiet() -> None:
    """Keep what libraries say about themselves out of the way of what users came for."""
    logging.getLogger('pytorch_lightning').setLevel(logging.WARNING)
    logging.getLogger('pytorch_lightning.utilities.rank_zero').setLevel(logging.WARNING)
    for pattern in _NOISE:
        warnings.filterwarnings('ignore', message=f'.*{pattern}.*')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='nni-warmstart', description='Warm-started differentiable architecture search on Microsoft NNI.'
    )
    actions = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    search = actions.add_parser(
        'search',
        help='search for an architecture',
        description='Search as the YAML says; the trial of nnictl runs the same code.',
    )
    search.add_argument('--config', required=True, type=_path, help='search.yml: data, space, evaluator, strategy')
    search.add_argument('--out', required=True, type=_path, help='folder for supernet, architecture, result and checkpoints')
    search.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')
    search.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    _add_set(search)
    search.set_defaults(run=commands.search)

    retrain = actions.add_parser(
        'retrain',
        help='train the network that a search found',
        description='Train the found network on all training pictures, and measure it on the test pictures.',
    )
    retrain.add_argument('--config', required=True, type=_path, help='search.yml; its evaluator section says how to train')
    retrain.add_argument(
        '--run', dest='run_folder', required=True, type=_path, metavar='RUN', help='folder of the finished search'
    )
    retrain.add_argument('--out', required=True, type=_path, help='folder for network.safetensors, result.json, checkpoints')
    retrain.add_argument('--weights', default='scratch', help="scratch, or inherited: the supernet's own (default: scratch)")
    retrain.add_argument(
        '--export', nargs='+', default=[], metavar='FORMAT',
        help='write network.FORMAT too: pt2 (torch.export) or onnx',
    )  # fmt: skip
    retrain.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')
    retrain.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    _add_set(retrain)
    retrain.set_defaults(run=commands.retrain)

    pretrain = actions.add_parser(
        'pretrain', help='train a source supernet', description='Train one supernet jointly on the datasets of a YAML file.'
    )
    pretrain.add_argument(
        '--config', required=True, type=_path, help='pretrain.yml: a list data:, space, evaluator, strategy'
    )
    pretrain.add_argument('--name', required=True, help='name of the entry')
    pretrain.add_argument('--zoo', required=True, help='folder or URL in which the supernet is kept')
    pretrain.add_argument('--out', type=_path, help='folder for log and checkpoints (default: pretrain-NAME)')
    pretrain.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    pretrain.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')
    _add_set(pretrain)
    pretrain.set_defaults(run=commands.pretrain)

    zoo = actions.add_parser('zoo', help='look at remembered supernets').add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )
    for name, run, text in (
        ('list', commands.zoo_list, 'one line per entry'),
        ('show', commands.zoo_show, 'card of one entry'),
        ('rank', commands.zoo_rank, 'order the entries by their promise for a new dataset'),
        ('add', commands.zoo_add, 'copy a supernet file into the zoo'),
        ('remove', commands.zoo_remove, 'delete an entry'),
    ):
        action = zoo.add_parser(name, help=text, description=text)
        changes = name in ('add', 'remove')  # never the package's own by an oversight
        default = '' if changes else ' (default: the one shipped with the package)'
        action.add_argument('--zoo', required=changes, help=f'folder or URL of the zoo{default}')
        if name in ('show', 'remove'):
            action.add_argument('name', help='entry')
        if name == 'show':
            _add_onto(action)
        if name == 'rank':
            _add_rank(action)
        if name == 'add':
            action.add_argument('file', type=_path, help='supernet.safetensors')
            action.add_argument('--name', help='name of the entry (default: the one in the file)')
        action.set_defaults(run=run)

    report = actions.add_parser(
        'report',
        help='write one HTML page about searches',
        description='Write one self-contained HTML page about one or several searches, side by side: curves, what was '
        'inherited, distances of the sources, probabilities over epochs, found cells, settings, versions.',
    )
    report.add_argument(
        'where', nargs='+', metavar='WHERE',
        help='--out of a search (finished or not), a folder above several, or the id of an nnictl experiment',
    )  # fmt: skip
    report.add_argument('--out', type=_path, default=Path('report.html'), help='the page (default: report.html)')
    report.set_defaults(run=commands.report)

    doctor = actions.add_parser(
        'doctor',
        help='check this machine',
        description='Check versions, NNI, port, disk, GPU and zoo, and say how to mend what is wrong (then status 1).',
    )
    doctor.add_argument('--zoo', help='folder or URL of the zoo to read (default: the one shipped with the package)')
    doctor.add_argument('--port', type=int, default=8080, help="of NNI's web page (default: 8080)")
    doctor.set_defaults(run=commands.doctor)

    listing = actions.add_parser(
        'spaces', help='list model spaces', description='Names for space.name, and their arguments.'
    )
    listing.set_defaults(run=commands.spaces)
    return parser


def _add_onto(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--onto', type=_path, metavar='YAML', help='say instead what the search of this file would inherit from the entry'
    )
    parser.add_argument('--tensors', action='store_true', help='with --onto: one line per tensor')
    parser.add_argument(
        '--picture', type=_path, metavar='PNG', help='with --onto: draw source cells against target cells, and the ops'
    )


def _add_rank(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--data', help="the new dataset: 'digits', a file.npz, or a folder with one folder of pictures per class"
    )
    parser.add_argument(
        '--config',
        type=_path,
        help='or search.yml: its data, and the entries of its strategy.zoo that fit its space, as source: nearest does',
    )
    _add_set(parser)
    parser.add_argument(
        '--by', default='otdd',
        help='otdd: optimal transport between datasets; sliced: the same by projections; logme: evidence of the labels '
        "given an entry's features; probe: accuracy after mapping and some steps; static, random: controls (default: otdd)",
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of everything random (default: 0)')
    parser.add_argument('--heatmap', type=_path, metavar='PNG', help='draw all pairwise dataset distances into this file')


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE',
        help='replace a key of the YAML by dotted name, e.g. --set strategy.head=prototype; may be repeated',
    )  # fmt: skip


if __name__ == '__main__':
    sys.exit(main())
