"""``nni-warmstart run``."""

from __future__ import annotations

import argparse

from rich.table import Table

from ..utils import distributed
from .common import a_path, add_export, add_resume, add_seed, add_set, changed, console, document, loading

HELP = 'from images to a trained network: search, train, test, export'
DESCRIPTION = """\
Search for an architecture as the YAML says, train the network that was
found on all training images, measure it on the test images, and export it.
DIR/search is what `nni-warmstart search` leaves, DIR/network what
`nni-warmstart retrain` does, and DIR/result.json sums up both."""
EXAMPLE = """\
example, with one folder of images per class in `pictures`:

  search.yml:
    data:      {folder: {path: pictures}}
    space:     {name: nasbench201, width: 8, depth: 1, image_size: 16}
    evaluator: {max_epochs: 20, batch_size: 64, learning_rate: 0.05}
    strategy:  {name: WarmStartDARTS, source: auto}

  nni-warmstart run --config search.yml --out DIR --export pt2
  nni-warmstart run --config search.yml --out DIR --export pt2 --resume   # after it was killed
  nni-warmstart report DIR                                                # one page about it

a network that is trained for longer than the search:

  nni-warmstart run --config search.yml --out DIR --set-network evaluator.max_epochs=100
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLE
    parser.add_argument('--config', required=True, type=a_path, help='search.yml: data, space, evaluator, strategy')
    parser.add_argument(
        '--out', required=True, type=a_path, metavar='DIR', help='folder for the search, the network and result.json'
    )
    parser.add_argument(
        '--weights', default='inherited',
        help="what the network begins with: inherited, the supernet's own, or scratch (default: inherited)",
    )  # fmt: skip
    add_export(parser)
    add_seed(parser)
    add_resume(parser)
    add_set(parser)
    parser.add_argument(
        '--set-network', action='append', default=[], metavar='KEY=VALUE',
        help='as --set, for the training of the network alone; may be repeated',
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Run the pipeline, then print accuracies, seconds and files."""
    with loading():
        from ..runs.config import parse_search
        from ..runs.pipeline import run_pipeline

    base = arguments.config.resolve().parent
    config = parse_search(document(arguments), base)
    network_config = parse_search(document(arguments, '--set-network'), base)
    result = run_pipeline(
        config, out=arguments.out, network_config=network_config, changed=changed(arguments, '--set-network'),
        weights=arguments.weights, exports=list(dict.fromkeys(arguments.export)), resume=arguments.resume,
        overwrite=arguments.overwrite, tell=console.print,
    )  # fmt: skip
    if not distributed.is_first():
        return
    table = Table(title=f'{result["data"]}: from images to a network')
    for column in ('stage', 'what', 'accuracy', 'images', 'epochs', 'seconds'):
        table.add_column(column, justify='right' if column in ('accuracy', 'epochs', 'seconds') else 'left')
    network = result['network']
    named = {
        'search': ('supernet', result['supernet']),
        'network': (f'{network["parameters"]:,} parameters, {network["weights"]} weights', network),
    }
    for stage, (what, row) in named.items():
        accuracy = '-' if row['accuracy'] is None else f'{row["accuracy"]:.4f}'
        table.add_row(stage, what, accuracy, row['measured_on'], str(row['epochs']), f'{row["seconds"]:.1f}')
    console.print(table)
    for name in network['files']:
        console.print(f'Network: {arguments.out / name}', soft_wrap=True)
    console.print(f'Results in {arguments.out / "result.json"}; nni-warmstart report {arguments.out}', soft_wrap=True)
