"""``nni-warmstart zoo rank``: the entries ranked as sources for a new dataset."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.table import Table

from ..errors import ConfigError, DataError, ZooError
from .common import a_path, add_set, check_file, console, document, loading

if TYPE_CHECKING:
    from ..runs.config import SearchConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--data', help="the new dataset: 'digits', a file.npz, or a folder with one folder of images per class"
    )
    parser.add_argument(
        '--config',
        type=a_path,
        help='or search.yml: its data, and the entries of its strategy.zoo that fit its space, as source: nearest does',
    )
    add_set(parser)
    parser.add_argument(
        '--by', default='otdd',
        help='way to rank (default: otdd, optimal transport between datasets); --by help lists the ways',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, help="of everything random (default: search.yml's, or 0)")
    parser.add_argument('--heatmap', type=a_path, metavar='PNG', help='draw all pairwise dataset distances into this file')


def run(arguments: argparse.Namespace) -> None:
    """Print the entries, the most promising first."""
    with loading():
        from ..data.file_check import SKIP
        from ..data.image_folder import IMAGE_SIZE
        from ..data.sources import from_word
        from ..runs.search import fitting, target_of
        from ..runs.setup import load_task
        from ..runs.strategies import make_strategy
        from ..zoo.ranking import RANKINGS, rank
        from ..zoo.zoo import open_zoo

    if arguments.by == 'help':
        for name, way in RANKINGS.items():
            console.print(f'{name}: {way.text}')
        return
    if arguments.by not in RANKINGS:
        ways = ', '.join(f'{name} ({way.text})' for name, way in RANKINGS.items())
        raise ZooError(f'--by {arguments.by!r} is unknown; choose one of {ways}.')
    if arguments.seed is not None and not 0 <= arguments.seed < 2**32:
        raise ConfigError(f'--seed {arguments.seed} must be from 0 to {2**32 - 1}.')
    if arguments.heatmap is not None:
        check_file('--heatmap', arguments.heatmap, '.png')
    config, zoo = _config(arguments), arguments.zoo
    if config is not None and zoo is None:
        zoo = make_strategy(config.strategy, config.base).zoo
    zoo = open_zoo(zoo)
    zoo.check_exists()
    if config is None:
        candidates = list(zoo.entries())
        sizes = (entry.recorded_pictures[1] for entry in candidates if entry.recorded_pictures and not entry.is_network)
        try:
            task = from_word(arguments.data, max(sizes, default=0) or IMAGE_SIZE)
        except DataError as error:
            if SKIP not in str(error):
                raise
            raise DataError(f'{error} This setting is one of search.yml: give --config in place of --data.') from error
    else:
        task = load_task(config)
        candidates = fitting(config, task, zoo)
    if not candidates:
        raise ZooError(f'zoo {zoo.root} has no readable entry to rank; add supernets with `nni-warmstart zoo add`.')
    seed = arguments.seed if arguments.seed is not None else 0 if config is None else config.seed
    with console.status(f'Ranking {len(candidates)} entries by {arguments.by} ...'):
        make_target = None if config is None else target_of(config)
        ranked = rank(candidates, task, by=arguments.by, seed=seed, make_target=make_target)
    shifted = [entry.distance - min(ranked[0].distance, 0) for entry in ranked]  # negative: the best has no bar
    table = Table(title=f'{zoo.root} for {task.name}, by {arguments.by}; smaller is better')
    for column in ('', 'name', arguments.by, '', 'seconds'):
        table.add_column(column, justify='right' if column in (arguments.by, 'seconds') else 'left')
    for place, (entry, length) in enumerate(zip(ranked, shifted, strict=True), 1):
        bar = Bar(max(max(shifted), 1e-12), 0, length, width=30)
        table.add_row(str(place), entry.name, f'{entry.distance:.4g}', bar, f'{entry.seconds:.2f}')
    console.print(table)
    if arguments.heatmap is not None:
        from ..utils.plots import heatmap
        from ..zoo.ranking import pairwise

        with console.status('Measuring all pairwise distances ...'):
            names, distances = pairwise(candidates, task)
            heatmap(names, distances, arguments.heatmap)
        console.print(f'Pairwise distances drawn in {arguments.heatmap}')


def _config(arguments: argparse.Namespace) -> SearchConfig | None:
    """Return the configuration of the search to rank for, if one is given and not data."""
    from ..runs.config import parse_search

    if (arguments.data is None) == (arguments.config is None):
        raise ConfigError('give one of --data and --config: the new dataset, or search.yml.')
    if arguments.config is not None:
        return parse_search(document(arguments), arguments.config.resolve().parent)
    if arguments.set:
        raise ConfigError('--set changes search.yml: give it with --config.')
    return None
