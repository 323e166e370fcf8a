"""``nni-warmstart search``."""

from __future__ import annotations

import argparse

from rich.table import Table

from .common import a_path, add_resume, add_seed, add_set, console, document, loading, show_costs

HELP = 'search for an architecture'
DESCRIPTION = 'Search as the YAML says; the trial of nnictl runs the same code.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--config', required=True, type=a_path, help='search.yml: data, space, evaluator, strategy')
    parser.add_argument(
        '--out', required=True, type=a_path, help='folder for supernet, architecture, result and checkpoints'
    )
    add_seed(parser)
    add_resume(parser)
    add_set(parser)


def run(arguments: argparse.Namespace) -> None:
    """Search, then print the curve as a table."""
    with loading():
        from ..runs.config import parse_search
        from ..runs.search import run_search

    config = parse_search(document(arguments), arguments.config.resolve().parent)
    result = run_search(config, seed=config.seed, out=arguments.out, resume=arguments.resume,
                        overwrite=arguments.overwrite, tell=console.print)  # fmt: skip
    table = Table(title=f'{config.strategy.name} on {result["data"]}')
    for column in ('epoch', 'validation accuracy', 'train loss', 'alpha entropy', 'skip share of alphas', 'seconds'):
        table.add_column(column, justify='right')
    for epoch, figures in enumerate(result['curve'], 1):
        cells = [figures[key] for key in ('default', 'train_loss', 'alpha_entropy', 'skip_share', 'epoch_seconds')]
        table.add_row(str(epoch), *('-' if value is None else f'{value:.4f}' for value in cells))
    console.print(table)
    if result['warm_start'] is not None:
        accuracy = result['warm_start']['zero_shot_accuracy']
        chosen = result['warm_start']['chosen'] and f', {result["warm_start"]["chosen"]}'
        console.print(f'Warm start from {result["source"]}{chosen}: accuracy before training {accuracy:.4f}')
    show_costs(result['costs'])
    stop = result['stop_at']
    if stop is not None:
        reached = 'was not reached and held' if stop['epoch'] is None else f'was reached in epoch {stop["epoch"]}, and held'
        console.print(f'Validation accuracy {stop["accuracy"]:g} {reached}')
    if 'test_accuracy' in result['final']:
        console.print(f'Test accuracy of the supernet: {result["final"]["test_accuracy"]:.4f}')
    console.print(f'Results in {arguments.out}')
