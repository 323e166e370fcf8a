"""The command line ``nni-warmstart``."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import devices
from .errors import WarmStartError, reason

_console = Console(quiet=not devices.is_first(), width=None if sys.stdout.isatty() else int(os.environ.get('COLUMNS', 120)))

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
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    search = commands.add_parser(
        'search',
        help='search for an architecture',
        description='Search as the YAML says; the trial of nnictl runs the same code.',
    )
    search.add_argument('--config', required=True, type=Path, help='search.yml: data, space, evaluator, strategy')
    search.add_argument('--out', required=True, type=Path, help='folder for supernet, architecture, result and checkpoints')
    search.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')
    search.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    _add_set(search)
    search.set_defaults(run=_search)

    retrain = commands.add_parser(
        'retrain',
        help='train the network that a search found',
        description='Train the found network on all training pictures, and measure it on the test pictures.',
    )
    retrain.add_argument('--config', required=True, type=Path, help='search.yml; its evaluator section says how to train')
    retrain.add_argument(
        '--run', dest='run_folder', required=True, type=Path, metavar='RUN', help='folder of the finished search'
    )
    retrain.add_argument('--out', required=True, type=Path, help='folder for network.safetensors, result.json, checkpoints')
    retrain.add_argument('--weights', default='scratch', help="scratch, or inherited: the supernet's own (default: scratch)")
    retrain.add_argument(
        '--export', nargs='+', default=[], metavar='FORMAT',
        help='write network.FORMAT too: pt2 (torch.export) or onnx',
    )  # fmt: skip
    retrain.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')
    retrain.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    _add_set(retrain)
    retrain.set_defaults(run=_retrain)

    pretrain = commands.add_parser(
        'pretrain', help='train a source supernet', description='Train one supernet jointly on the datasets of a YAML file.'
    )
    pretrain.add_argument(
        '--config', required=True, type=Path, help='pretrain.yml: a list data:, space, evaluator, strategy'
    )
    pretrain.add_argument('--name', required=True, help='name of the entry')
    pretrain.add_argument('--zoo', required=True, help='folder or URL in which the supernet is kept')
    pretrain.add_argument('--out', type=Path, help='folder for log and checkpoints (default: pretrain-NAME)')
    pretrain.add_argument('--resume', action='store_true', help='go on from the last checkpoint in --out')
    pretrain.add_argument('--seed', type=int, help='seed of everything random (default: the key seed of the YAML, or 0)')
    _add_set(pretrain)
    pretrain.set_defaults(run=_pretrain)

    zoo = commands.add_parser('zoo', help='look at remembered supernets').add_subparsers(
        dest='action', required=True, metavar='ACTION'
    )
    for name, run, text in (
        ('list', _zoo_list, 'one line per entry'),
        ('show', _zoo_show, 'card of one entry'),
        ('rank', _zoo_rank, 'order the entries by their promise for a new dataset'),
        ('add', _zoo_add, 'copy a supernet file into the zoo'),
        ('remove', _zoo_remove, 'delete an entry'),
    ):
        action = zoo.add_parser(name, help=text, description=text)
        action.add_argument('--zoo', help='folder or URL of the zoo (default: the one shipped with the package)')
        if name in ('show', 'remove'):
            action.add_argument('name', help='entry')
        if name == 'show':
            _add_onto(action)
        if name == 'rank':
            _add_rank(action)
        if name == 'add':
            action.add_argument('file', type=Path, help='supernet.safetensors')
            action.add_argument('--name', help='name of the entry (default: the one in the file)')
        action.set_defaults(run=run)

    report = commands.add_parser(
        'report',
        help='write one HTML page about searches',
        description='Write one self-contained HTML page about one or several searches, side by side: curves, what was '
        'inherited, distances of the sources, probabilities over epochs, found cells, settings, versions.',
    )
    report.add_argument(
        'where', nargs='+', metavar='WHERE',
        help='--out of a search (finished or not), a folder above several, or the id of an nnictl experiment',
    )  # fmt: skip
    report.add_argument('--out', type=Path, default=Path('report.html'), help='the page (default: report.html)')
    report.set_defaults(run=_report)

    doctor = commands.add_parser(
        'doctor',
        help='check this machine',
        description='Check versions, NNI, port, disk, GPU and zoo, and say how to mend what is wrong (then status 1).',
    )
    doctor.add_argument('--zoo', help='folder or URL of the zoo to read (default: the one shipped with the package)')
    doctor.add_argument('--port', type=int, default=8080, help="of NNI's web page (default: 8080)")
    doctor.set_defaults(run=_doctor)

    listing = commands.add_parser(
        'spaces', help='list model spaces', description='Names for space.name, and their arguments.'
    )
    listing.set_defaults(run=_spaces)
    return parser


def _add_onto(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--onto', type=Path, metavar='YAML', help='say instead what the search of this file would inherit from the entry'
    )
    parser.add_argument('--tensors', action='store_true', help='with --onto: one line per tensor')
    parser.add_argument(
        '--picture', type=Path, metavar='PNG', help='with --onto: draw source cells against target cells, and the ops'
    )


def _add_rank(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--data',
        required=True,
        help="the new dataset: 'digits', a file.npz, or a folder with one folder of pictures per class",
    )
    parser.add_argument(
        '--by', default='otdd',
        help='otdd: optimal transport between datasets; sliced: the same by projections; logme: evidence of the labels '
        "given an entry's features; probe: accuracy after mapping and some steps; static, random: controls (default: otdd)",
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of everything random (default: 0)')
    parser.add_argument('--heatmap', type=Path, metavar='PNG', help='draw all pairwise dataset distances into this file')


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE',
        help='replace a key of the YAML by dotted name, e.g. --set strategy.head=prototype; may be repeated',
    )  # fmt: skip


def _document(arguments: argparse.Namespace) -> dict[str, Any]:
    import yaml

    from .config import overridden, read
    from .errors import ConfigError

    changes = {}
    for item in arguments.set:
        key, equals, value = item.partition('=')
        if not equals:
            raise ConfigError(f'--set {item!r} has no "="; write KEY=VALUE.')
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f'--set {item!r}: the value is not YAML.') from error
    if arguments.seed is not None:
        changes['seed'] = arguments.seed
    return overridden(read(arguments.config), changes)


def _search(arguments: argparse.Namespace) -> None:
    from .config import parse_search
    from .search import run_search

    config = parse_search(_document(arguments), arguments.config.resolve().parent)
    result = run_search(config, seed=config.seed, out=arguments.out, resume=arguments.resume)
    table = Table(title=f'{config.strategy.name} on {result["data"]}')
    for column in ('epoch', 'validation accuracy', 'train loss', 'alpha entropy', 'skip share', 'seconds'):
        table.add_column(column, justify='right')
    for epoch, figures in enumerate(result['curve'], 1):
        cells = [figures[key] for key in ('default', 'train_loss', 'alpha_entropy', 'skip_share', 'epoch_seconds')]
        table.add_row(str(epoch), *('-' if value is None else f'{value:.4f}' for value in cells))
    _console.print(table)
    if result['warm_start'] is not None:
        accuracy = result['warm_start']['zero_shot_accuracy']
        chosen = result['warm_start']['chosen'] and f', {result["warm_start"]["chosen"]}'
        _console.print(f'Warm start from {result["source"]}{chosen}: accuracy before training {accuracy:.4f}')
    if 'test_accuracy' in result['final']:
        _console.print(f'Test accuracy of the supernet: {result["final"]["test_accuracy"]:.4f}')
    _console.print(f'Results in {arguments.out}')


def _retrain(arguments: argparse.Namespace) -> None:
    from .config import parse_search
    from .retrain import retrain

    config = parse_search(_document(arguments), arguments.config.resolve().parent)
    result = retrain(
        config, arguments.run_folder, out=arguments.out, weights=arguments.weights, exports=arguments.export,
        seed=config.seed, resume=arguments.resume,
    )  # fmt: skip
    table = Table(title=f'{result["data"]}: {result["parameters"]:,} parameters, weights {result["weights"]}')
    table.add_column('choice')
    table.add_column('chosen')
    for label, op in result['architecture'].items():
        table.add_row(label, str(op))
    _console.print(table)
    _console.print(
        f'Accuracy on the {result["measured_on"]} pictures (mean of the last three epochs): {result["final"]:.4f}'
    )
    _console.print(f'Results in {arguments.out}: {", ".join(result["files"])}')


def _pretrain(arguments: argparse.Namespace) -> None:
    from .config import parse_pretrain
    from .pretrain import pretrain
    from .zoo import SupernetZoo

    config = parse_pretrain(_document(arguments), arguments.config.resolve().parent)
    zoo = SupernetZoo(arguments.zoo)
    zoo.check_can_add(arguments.name)
    command = ['nni-warmstart', 'pretrain', '--config', arguments.config.name, '--name', arguments.name]
    command += [word for item in arguments.set for word in ('--set', item)] + ['--seed', str(config.seed)]
    out = arguments.out or Path(f'pretrain-{arguments.name}')
    supernet = pretrain(
        config, name=arguments.name, seed=config.seed, out=out, command=shlex.join(command), resume=arguments.resume
    )
    if not devices.is_first():
        return
    path = zoo.add(supernet)
    table = Table(title=f'{supernet.name}: accuracy on held-out pictures')
    table.add_column('dataset')
    table.add_column('accuracy', justify='right')
    for name, facts in supernet.history['datasets'].items():
        table.add_row(name, f'{facts["accuracy"]:.4f}')
    _console.print(table)
    _console.print(f'Kept as {path} ({len(supernet.to_bytes()) / 1e6:.2f} MB)')


def _report(arguments: argparse.Namespace) -> None:
    from .report_page import write_report

    _check_file('--out', arguments.out, '.html')
    with _console.status('Drawing ...'):
        number = write_report(arguments.where, arguments.out)
    _console.print(
        f'{"One search" if number == 1 else f"{number} searches"} reported in {arguments.out}',
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _zoo_list(arguments: argparse.Namespace) -> None:
    from .zoo import open_zoo

    zoo = open_zoo(arguments.zoo)
    table = Table(title=str(zoo.root), box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ('name', 'space', 'trained on', 'classes', 'numbers', 'created'):
        justify = 'right' if column in ('classes', 'numbers') else 'left'
        table.add_column(column, justify=justify, overflow='fold', no_wrap=column == 'name')
    for entry in zoo.entries():
        space = entry.space.get('name') or entry.space.get('class', '?')
        datasets = list(entry.history.get('datasets', {})) or [str(entry.history.get('dataset', '?'))]
        seen = datasets[0] if len(datasets) == 1 else f'{len(datasets)} datasets'
        table.add_row(entry.name, space, seen, str(len(entry.class_names)), f'{entry.num_parameters:,}',
                      str(entry.history.get('created', '?'))[:10])  # fmt: skip
    _console.print(table)


def _zoo_show(arguments: argparse.Namespace) -> None:
    from .errors import ConfigError
    from .zoo import open_zoo

    entry = open_zoo(arguments.zoo)[arguments.name]
    if arguments.onto is not None:
        _show_onto(arguments, entry)
        return
    if arguments.picture is not None or arguments.tensors:
        raise ConfigError('--picture and --tensors need --onto search.yml: they show what its search would inherit.')
    card = {key: value for key, value in entry.card.items() if key not in ('aliases', 'alphas', 'candidates')}
    _console.print_json(data=card)
    table = Table(title='choices')
    table.add_column('label')
    table.add_column('probability by candidate')
    for label, candidates in entry.candidates.items():
        probability = entry.alpha(label).softmax(-1).tolist()
        table.add_row(label, ', '.join(f'{name} {p:.2f}' for name, p in zip(candidates, probability, strict=True)))
    _console.print(table)


def _show_onto(arguments: argparse.Namespace, entry: Any) -> None:
    from .config import parse_search, read
    from .search import preview

    if arguments.picture is not None:
        _check_file('--picture', arguments.picture, '.png')
    report = preview(parse_search(read(arguments.onto), arguments.onto.resolve().parent), entry)
    _console.print(report.to_text(every_tensor=arguments.tensors), soft_wrap=True, highlight=False)
    shares = report.shares('op')
    if shares:
        _console.print('by op: ' + ', '.join(f'{op} {share:.0%}' for op, share in shares.items()))
    if arguments.picture is not None:
        report.plot(arguments.picture)
        _console.print(f'Drawn in {arguments.picture}')


def _check_file(option: str, path: Path, suffix: str) -> None:
    from .errors import ConfigError
    from .storage import unwritable

    if path.suffix != suffix:
        raise ConfigError(f'{option} {path} must end in {suffix}.')
    trouble = unwritable(path.resolve().parent)
    if trouble:
        raise ConfigError(f'{option}: folder {trouble}')


def _zoo_rank(arguments: argparse.Namespace) -> None:
    from .data import digits, from_folder, from_npz
    from .errors import ConfigError, ZooError
    from .ranking import RANKINGS
    from .zoo import open_zoo

    if arguments.by not in RANKINGS:
        raise ZooError(f'--by {arguments.by!r} is unknown; choose one of {", ".join(RANKINGS)}.')
    if not 0 <= arguments.seed < 2**32:
        raise ConfigError(f'--seed {arguments.seed} must be from 0 to {2**32 - 1}.')
    if arguments.heatmap is not None:
        _check_file('--heatmap', arguments.heatmap, '.png')
    path = Path(arguments.data).expanduser()
    task = digits() if arguments.data == 'digits' else from_folder(path) if path.is_dir() else from_npz(path)
    zoo = open_zoo(arguments.zoo)
    with _console.status(f'Ranking {len(zoo)} entries by {arguments.by} ...'):
        ranked = zoo.rank(task, by=arguments.by, seed=arguments.seed)
    shifted = [entry.distance - min(ranked[0].distance, 0) for entry in ranked]  # scores are negative: the best has no bar
    table = Table(title=f'{zoo.root} for {task.name}, by {arguments.by}; smaller is better')
    for column in ('', 'name', arguments.by, '', 'seconds'):
        table.add_column(column, justify='right' if column in (arguments.by, 'seconds') else 'left')
    for place, (entry, length) in enumerate(zip(ranked, shifted, strict=True), 1):
        bar = Bar(max(max(shifted), 1e-12), 0, length, width=30)
        table.add_row(str(place), entry.name, f'{entry.distance:.4g}', bar, f'{entry.seconds:.2f}')
    _console.print(table)
    if arguments.heatmap is not None:
        from .plots import heatmap
        from .ranking import pairwise

        names, distances = pairwise(list(zoo.entries()), task)
        heatmap(names, distances, arguments.heatmap)
        _console.print(f'Pairwise distances drawn in {arguments.heatmap}')


def _zoo_add(arguments: argparse.Namespace) -> None:
    from .supernet import Supernet
    from .zoo import open_zoo

    supernet = Supernet.load(arguments.file)
    path = open_zoo(arguments.zoo).add(supernet if arguments.name is None else supernet.renamed(arguments.name))
    _console.print(f'Added {path}')


def _zoo_remove(arguments: argparse.Namespace) -> None:
    from .zoo import open_zoo

    open_zoo(arguments.zoo).remove(arguments.name)
    _console.print(f'Removed {arguments.name}')


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import examine
    from .errors import ConfigError

    if not 1 <= arguments.port <= 65535:
        raise ConfigError(f'--port {arguments.port} must be from 1 to 65535.')
    colours = {'good': 'green', 'note': 'yellow', 'bad': 'red'}
    table = Table()
    for column in ('', 'checked', 'found', 'remedy'):
        table.add_column(column, overflow='fold')
    bad = 0
    with _console.status('Examining this machine ...'):
        for finding in examine(zoo=arguments.zoo, port=arguments.port):
            colour = colours[finding.status]
            table.add_row(
                f'[{colour}]{finding.status}[/{colour}]', *map(escape, (finding.subject, finding.text, finding.remedy))
            )
            bad += finding.status == 'bad'
    _console.print(table)
    _console.print('All is well.' if not bad else f'{bad} to be mended, see the last column.')
    return 1 if bad else 0


def _spaces(arguments: argparse.Namespace) -> None:
    from .spaces import parameters_of, space_names

    table = Table(title='model spaces; your own: package.module:Class')
    table.add_column('name')
    table.add_column('arguments')
    for name, cls in space_names().items():
        shown = (key if p.default is p.empty else f'{key}={p.default!r}' for key, p in parameters_of(cls).items())
        table.add_row(name, ', '.join(shown))
    _console.print(table)


if __name__ == '__main__':
    sys.exit(main())
