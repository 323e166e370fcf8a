"""From a warm search to a trained network by inherited weights: what freezing loses, what the fit gives back, what it costs.

    python benchmarks/discretisation/run.py --data DIR --zoo ZOO   # after claim/networks.py; resumable
    python benchmarks/discretisation/run.py --report

A warm search of a quarter of the budget, as in claim/networks.py, whose network is taken from the supernet. Test accuracy of
the supernet; of the network with the supernet's weights, and after the fit to the supernet's outputs, both without any
training and with batch norm estimated for it; and after fourteen epochs on all training images, as ``retrain --weights
inherited`` trains. Beside it, from claim/networks.py, the network of the cold search with the full budget, trained from
scratch for 30 epochs, and its seconds: those rows are older, and measured on the same kind of machine, but not side by side.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import networks, searches
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe, read
from nni_warmstart import Supernet
from nni_warmstart.evaluators.recalibration import Recalibration
from nni_warmstart.nni_adapter.batchnorm import reestimate
from nni_warmstart.runs.retrain import RATE, SMOOTHING, learning, some_images, train
from nni_warmstart.supernets.network import inherited
from nni_warmstart.utils.metrics import accuracy_on, final_accuracy
from nni_warmstart.warm_start.fitted_network import fitted

HERE = Path(__file__).resolve().parent
COLD = HERE.parent / 'claim' / 'claim_networks.jsonl'
_RATES = {'learning_rate': RATE * networks.TRAININGS['long']['learning_rate'], 'label_smoothing': SMOOTHING}
TRAINING = {**networks.TUNING, 'max_epochs': 14, **_RATES}
PARTS = ('supernet', 'frozen', 'fitted', 'trained')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', help='as of claim/run.py')
    parser.add_argument('--tasks', nargs='+', help='default: those of claim/networks.py')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='default: 0')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of discretisation.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    arguments = parser.parse_args()
    path = arguments.out / 'discretisation.jsonl'
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is missing.')
        setting = searches.Setting(arguments.data, arguments.zoo, searches.SPACE, searches.PICTURES, arguments.out)
        tasks = arguments.tasks or list(dict.fromkeys(row['task'] for row in read(COLD)))
        runs = [searches.Run(task, seed, 'warm') for seed in arguments.seeds for task in tasks]
        perform(run, runs, setting, path, arguments.processes)
    (arguments.out / 'discretisation.md').write_text('\n'.join(document(of_recipe(path))) + '\n')


def run(each: searches.Run, setting: searches.Setting) -> dict[str, Any]:
    """Search and train; the row that goes into the file."""
    task, start = searches.load(setting, each.task), time.perf_counter()
    strategy = networks.searched(networks.Found(each.task, each.seed, each.side), setting, task)
    architecture, supernet = strategy.oneshot_module.export(), Supernet.from_strategy(strategy, name='found')
    row = {
        'task': each.task,
        'seed': each.seed,
        'side': each.side,
        'supernet': strategy.oneshot_module.final['test_accuracy'],
    }
    seconds = {'search': time.perf_counter() - start}
    splits = learning(task, val_share=0.5)
    recalibration = Recalibration(splits.train, TRAINING['batch_size'])
    test = [splits.val[index] for index in torch.arange(len(splits.val)).split(256)]
    for name in ('frozen', 'fitted'):
        start = time.perf_counter()
        if name == 'frozen':
            network = inherited(supernet, architecture)
        else:
            network = fitted(supernet, architecture, images=some_images(splits.train))
        reestimate(network, [splits.train[batch][0] for batch in recalibration.batches])
        seconds[name] = time.perf_counter() - start
        row[name] = accuracy_on(network.eval(), test, 'cpu')
    start = time.perf_counter()
    with TemporaryDirectory() as out:
        curve = train(
            network.train(), splits, task.num_classes, TRAINING, out,
            seed=each.seed, measured_on='test', callbacks=[recalibration], progress=False,
        )  # fmt: skip
    seconds['trained'] = time.perf_counter() - start
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    return {**row, 'trained': final_accuracy(curve), 'seconds': rounded, 'architecture': architecture}


def document(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of discretisation.md."""
    cold = {(row['task'], row['seed']): row for row in read(COLD) if row['side'] == 'cold'}
    tasks = sorted({row['task'] for row in rows})
    found: dict[str, dict[str, float]] = {}
    for task in tasks:
        mine = [row for row in rows if row['task'] == task]
        others = [cold[task, row['seed']] for row in mine]
        found[task] = {name: statistics.mean(row[name] for row in mine) for name in PARTS}
        found[task]['cold'] = statistics.mean(row['accuracy']['long'] for row in others)
        found[task]['seconds'] = statistics.mean(
            sum(row['seconds'][name] for name in ('search', 'fitted', 'trained')) for row in mine
        )
        found[task]['cold seconds'] = statistics.mean(row['seconds']['search'] + row['seconds']['long'] for row in others)
    mean = {name: statistics.mean(each[name] for each in found.values()) for name in found[tasks[0]]}
    kept = {name: [each[name] / each['supernet'] for each in found.values()] for name in ('frozen', 'fitted')}
    gaps = [100 * (each['trained'] - each['cold']) for each in found.values()]
    seeds = len({row['seed'] for row in rows})
    return [
        '# From a warm search to a trained network',
        '',
        'Made by `python benchmarks/discretisation/run.py --data DIR --zoo ZOO`. Test accuracy of the supernet of a warm',
        'search with a quarter of the budget; of its network with the weights of the supernet (frozen) and after the fit to',
        f'the outputs of the supernet (fitted), before any training; and after {TRAINING["max_epochs"]} epochs (trained).',
        'Cold: the network of a cold search with the full budget, trained from scratch for 30 epochs.',
        f'{seeds} seed{"s" * (seeds > 1)}.',
        '',
        '| task | supernet | frozen | fitted | trained | cold | seconds | cold |',
        '|---' * 8 + '|',
        *(
            f'| {task} | ' + ' | '.join(f'{each[name]:.3f}' for name in (*PARTS, 'cold'))
            + f' | {each["seconds"]:.0f} | {each["cold seconds"]:.0f} |'
            for task, each in (found | {'mean': mean}).items()
        ),
        '',
        f'Of the accuracy of the supernet the frozen network keeps {statistics.mean(kept["frozen"]):.0%}, the fitted one',
        f'{statistics.mean(kept["fitted"]):.0%} (required 80 %, aim 95 %), at least {min(kept["fitted"]):.0%}.',
        'Trained, it is at least as good as the network of the cold search',
        f'on {statistics.mean(gap >= 0 for gap in gaps):.0%} of {len(tasks)}',
        f'tasks (required 90 %), by {statistics.mean(gaps):+.1f} points in the mean (required +4) and',
        f'{statistics.median(gaps):+.1f} in the median, in {mean["seconds"] / mean["cold seconds"]:.2f} of the seconds.',
    ]  # fmt: skip


if __name__ == '__main__':
    main()
