"""The best of random cells by the validation loss of a warm supernet, by ground truth, beside what the search exports.

    python benchmarks/networks/random_cells.py --data DIR --peers DIR [--zoo ZOO]    # what random_cells.jsonl lacks
    python benchmarks/networks/random_cells.py --report

A control that needs the weights of a supernet, but no alphas: of each warm search of claim/networks.py (a quarter of the
budget) 30 random cells without zeros get the weights of the supernet, batch norm is estimated anew on the training half,
and the validation half says which is best: as they are, and fitted to what the supernet computes. Ground truth is that of
ground_truth.py, with its --peers, and the tasks are those that are photographs.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import networks, searches
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe
from benchmarks.networks.ground_truth import PHOTOGRAPHS, accuracies, cell_string, known_cells
from nni_warmstart import Supernet
from nni_warmstart.data import Images, split
from nni_warmstart.evaluators.recalibration import Recalibration
from nni_warmstart.nni_adapter.batchnorm import reestimate
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.supernets.network import inherited
from nni_warmstart.warm_start.fitted_network import fitted

HERE = Path(__file__).resolve().parent
CELLS = 30
WAYS = 'as they are', 'fitted'
"""Which weights of the supernet the networks have when they are compared."""


@dataclass(frozen=True)
class Setting(searches.Setting):
    """The setting of the claim, and where the table of NATS-Bench is."""

    table: Path = Path()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--peers', type=Path, help='folder with nb201/nb201.csv')
    parser.add_argument('--zoo', help='as of claim/run.py')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='default: 0')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of random_cells.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    arguments = parser.parse_args()
    path = arguments.out / 'random_cells.jsonl'
    if not arguments.report:
        if arguments.data is None or arguments.peers is None:
            parser.error('--data and --peers are needed.')
        table = arguments.peers / 'nb201' / 'nb201.csv'
        setting = Setting(arguments.data, arguments.zoo, searches.SPACE, searches.PICTURES, arguments.out, table=table)
        runs = [searches.Run(task, seed, 'warm') for seed in arguments.seeds for task in PHOTOGRAPHS]
        perform(run, runs, setting, path, arguments.processes)
    (arguments.out / 'random_cells.md').write_text('\n'.join(document(of_recipe(path))) + '\n')


def run(each: searches.Run, setting: Setting) -> dict[str, Any]:
    """Search, and compare random cells with the weights of the supernet; the row that goes into the file."""
    task, known = searches.load(setting, each.task), known_cells(setting.table)
    strategy = networks.searched(networks.Found(each.task, each.seed, each.side), setting, task)
    exported, supernet = strategy.oneshot_module.export(), Supernet.from_strategy(strategy, name='found')
    splits, dice = split(task), random.Random(each.seed)
    free = {
        label: [each for each in choice.candidates if each != 'none'] for label, choice in choices(supernet.build()).items()
    }
    cells = [{label: dice.choice(each) for label, each in free.items()} for _ in range(CELLS)]
    batches = Recalibration(splits.train, searches.SETTINGS['batch_size']).batches
    images = [splits.train[batch][0] for batch in batches]
    losses = {way: [loss(network_of(supernet, cell, images, way), splits.val) for cell in cells] for way in WAYS}
    return {
        'task': each.task,
        'seed': each.seed,
        'side': each.side,
        'exported': known[cell_string(exported)],
        'cells': [cell_string(cell) for cell in cells],
        'truth': [known[cell_string(cell)] for cell in cells],
        'losses': {way: [round(value, 4) for value in each] for way, each in losses.items()},
    }


def network_of(supernet: Supernet, cell: dict[str, Any], images: list[Tensor], way: str) -> nn.Module:
    """Return the network of a cell with the weights of the supernet, batch norm estimated on batches of images."""
    network = fitted(supernet, cell, images=torch.cat(images)) if way == 'fitted' else inherited(supernet, cell)
    reestimate(network, images)
    return network.eval()


@torch.no_grad()
def loss(network: nn.Module, images: Images) -> float:
    """Return the mean cross-entropy."""
    parts = [images[index] for index in torch.arange(len(images)).split(256)]
    total: Tensor = sum((functional.cross_entropy(network(x), y, reduction='sum') for x, y in parts), torch.zeros(()))
    return float(total) / len(images)


def document(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of random_cells.md."""
    lines = [
        '# The best of random cells by the loss of a warm supernet',
        '',
        'Made by `python benchmarks/networks/random_cells.py --data DIR --peers DIR --zoo ZOO`. Ground truth (%) in',
        'NATS-Bench, CIFAR-10 / ImageNet16-120, of what a warm search of a quarter of the budget exports, and of',
        f'{CELLS} random cells without zeros: their mean, and those of the least validation loss with the weights of the',
        'supernet, as they are and fitted to it. Rank correlations: Spearman, of minus these losses with CIFAR-10.',
        '',
        '| task | exported | mean of the random ones | best as they are | best fitted | rank correlations |',
        '|---' * 6 + '|',
    ]
    columns = []
    for row in sorted(rows, key=lambda row: (row['task'], row['seed'])):
        truth, losses = row['truth'], row['losses']
        best = [truth[losses[way].index(min(losses[way]))] for way in WAYS]
        mean = [statistics.fmean(column) for column in zip(*truth, strict=True)]
        figures = [[each[0], each[2]] for each in (row['exported'], mean, *best)]
        ranks = [-float(spearmanr(losses[way], [each[0] for each in truth]).statistic) for way in WAYS]
        columns.append([*figures, ranks])
        lines.append(line(row['task'] if row['seed'] == 0 else f'{row["task"]}, seed {row["seed"]}', *figures, ranks))
    if columns:
        means = [[statistics.fmean(each) for each in zip(*column, strict=True)] for column in zip(*columns, strict=True)]
        lines.append(line('mean', *means))
    return lines


def line(name: str, *figures: list[float]) -> str:
    """Return a row of the table: four pairs of accuracies, and two correlations."""
    *pairs, ranks = figures
    return f'| {name} | ' + ' | '.join(map(accuracies, pairs)) + f' | {ranks[0]:+.2f} / {ranks[1]:+.2f} |'


if __name__ == '__main__':
    main()
