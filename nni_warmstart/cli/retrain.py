"""``nni-warmstart retrain``."""

from __future__ import annotations

import argparse

from rich.table import Table

from .common import a_path, add_export, add_resume, add_seed, add_set, changed, console, document, loading, show_costs

HELP = 'train the network that a search found'
DESCRIPTION = (
    'Train the found network on all training images, and measure it on the test images. Data and space must be those of the '
    'search; --set changes them on purpose (--set space.width=32).'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--config', required=True, type=a_path, help='search.yml; its evaluator section says how to train')
    parser.add_argument(
        '--run', dest='run_folder', required=True, type=a_path, metavar='RUN', help='folder of the finished search'
    )
    parser.add_argument('--out', required=True, type=a_path, help='folder for network.safetensors, result.json, checkpoints')
    parser.add_argument(
        '--weights', default='scratch',
        help="scratch, or inherited: the supernet's own, fitted to its outputs, at a fifth of the learning rate; with these "
             'ten epochs go a long way (default: scratch)',
    )  # fmt: skip
    add_export(parser)
    add_seed(parser)
    add_resume(parser)
    add_set(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train the found network, then print its accuracies as a table."""
    with loading():
        from ..runs.config import parse_search
        from ..runs.retrain import retrain

    config = parse_search(document(arguments), arguments.config.resolve().parent)
    result = retrain(
        config, arguments.run_folder, out=arguments.out, weights=arguments.weights, exports=arguments.export,
        seed=config.seed, resume=arguments.resume, overwrite=arguments.overwrite, changed=changed(arguments),
    )  # fmt: skip
    table = Table(title=f'{result["data"]}: {result["parameters"]:,} parameters, weights {result["weights"]}')
    table.add_column('choice')
    table.add_column('chosen')
    for label, op in result['architecture'].items():
        table.add_row(label, str(op))
    console.print(table)
    show_costs(result['costs'])
    console.print(f'Accuracy on the {result["measured_on"]} images: {result["curve"][-1]:.4f}')
    console.print(f'Results in {arguments.out}: {", ".join(result["files"])}')
