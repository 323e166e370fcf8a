"""What the commands of ``nni-warmstart`` do: read what they were given, call the package, show what came out."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import devices

if TYPE_CHECKING:
    from .config import SearchConfig
    from .data import Task

_HAS_WIDTH = sys.stdout.isatty() or 'COLUMNS' in os.environ
_console = Console(quiet=not devices.is_first(), width=None if _HAS_WIDTH else 120, markup=False, emoji=False)


def _document(arguments: argparse.Namespace) -> dict[str, Any]:
    from .errors import ConfigError
    from .settings import overridden, parse_yaml, read

    changes = {}
    for item in arguments.set:
        key, equals, value = item.partition('=')
        if not equals:
            raise ConfigError(f'--set {item!r} has no "="; write KEY=VALUE.')
        try:
            changes[key] = parse_yaml(value)
        except ConfigError as error:
            raise ConfigError(f'--set {item!r}: the value is not YAML.') from error
    if arguments.seed is not None:
        changes['seed'] = arguments.seed
    return overridden(read(arguments.config), changes)


def search(arguments: argparse.Namespace) -> None:
    """Search, then the curve as a table."""
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


def retrain(arguments: argparse.Namespace) -> None:
    """Train the found network, then its accuracies as a table."""
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


def pretrain(arguments: argparse.Namespace) -> None:
    """Train a joint supernet into a zoo, then its accuracies as a table."""
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


def report(arguments: argparse.Namespace) -> None:
    """Write the page."""
    from .report_page import write_report

    _check_file('--out', arguments.out, '.html')
    with _console.status('Drawing ...'):
        number = write_report(arguments.where, arguments.out)
    _console.print(
        f'{"One search" if number == 1 else f"{number} searches"} reported in {arguments.out}',
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def zoo_list(arguments: argparse.Namespace) -> None:
    """A line per entry."""
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


def zoo_show(arguments: argparse.Namespace) -> None:
    """The card of an entry, or what a search would inherit from it."""
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
    from .config import parse_search
    from .search import preview
    from .settings import read

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


def zoo_rank(arguments: argparse.Namespace) -> None:
    """The entries in order of their promise."""
    from .config import make_strategy
    from .errors import ConfigError, ZooError
    from .ranking import RANKINGS, rank
    from .search import fitting
    from .zoo import open_zoo

    if arguments.by not in RANKINGS:
        raise ZooError(f'--by {arguments.by!r} is unknown; choose one of {", ".join(RANKINGS)}.')
    if not 0 <= arguments.seed < 2**32:
        raise ConfigError(f'--seed {arguments.seed} must be from 0 to {2**32 - 1}.')
    if arguments.heatmap is not None:
        _check_file('--heatmap', arguments.heatmap, '.png')
    task, config = _task(arguments)
    zoo = arguments.zoo
    if config is not None and zoo is None:
        zoo = make_strategy(config.strategy, config.base).zoo
    zoo = open_zoo(zoo)
    candidates = list(zoo.entries()) if config is None else fitting(config, task, zoo)
    if not candidates:
        raise ZooError(f'zoo {zoo.root} has no readable entry to rank; add supernets with `nni-warmstart zoo add`.')
    with _console.status(f'Ranking {len(candidates)} entries by {arguments.by} ...'):
        ranked = rank(candidates, task, by=arguments.by, seed=arguments.seed)
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

        names, distances = pairwise(candidates, task)
        heatmap(names, distances, arguments.heatmap)
        _console.print(f'Pairwise distances drawn in {arguments.heatmap}')


def _task(arguments: argparse.Namespace) -> tuple[Task, SearchConfig | None]:
    """The data to rank for, and the search that they are for, if one is given."""
    from .config import parse_search
    from .data import digits, from_folder, from_npz
    from .errors import ConfigError
    from .search import adapted

    if (arguments.data is None) == (arguments.config is None):
        raise ConfigError('give one of --data and --config: the new dataset, or search.yml.')
    if arguments.config is not None:
        config = parse_search(_document(arguments), arguments.config.resolve().parent)
        return adapted(config), config
    if arguments.set:
        raise ConfigError('--set changes search.yml: give it with --config.')
    path = Path(os.path.expanduser(arguments.data))
    return digits() if arguments.data == 'digits' else from_folder(path) if path.is_dir() else from_npz(path), None


def zoo_add(arguments: argparse.Namespace) -> None:
    """Copy a file into the zoo."""
    from .supernet import Supernet
    from .zoo import open_zoo

    supernet = Supernet.load(arguments.file)
    path = open_zoo(arguments.zoo).add(supernet if arguments.name is None else supernet.renamed(arguments.name))
    _console.print(f'Added {path}')


def zoo_remove(arguments: argparse.Namespace) -> None:
    """Delete an entry."""
    from .zoo import open_zoo

    open_zoo(arguments.zoo).remove(arguments.name)
    _console.print(f'Removed {arguments.name}')


def doctor(arguments: argparse.Namespace) -> int:
    """What was examined, found and to be done; 1 if something is bad."""
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
            table.add_row(Text(finding.status, colours[finding.status]), finding.subject, finding.text, finding.remedy)
            bad += finding.status == 'bad'
    _console.print(table)
    _console.print('All is well.' if not bad else f'{bad} to be mended, see the last column.')
    return 1 if bad else 0


def spaces(arguments: argparse.Namespace) -> None:
    """Names and arguments of the model spaces."""
    from .spaces import parameters_of, space_names

    table = Table(title='model spaces; your own: package.module:Class')
    table.add_column('name')
    table.add_column('arguments')
    for name, cls in space_names().items():
        shown = (key if p.default is p.empty else f'{key}={p.default!r}' for key, p in parameters_of(cls).items())
        table.add_row(name, ', '.join(shown))
    _console.print(table)
