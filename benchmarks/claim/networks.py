"""The networks that the searches of run.py found: are those of warm searches as good, and what does it cost to have one?

    python benchmarks/claim/networks.py --data DIR [--zoo ZOO]    # after claim/run.py with the same arguments; resumable
    python benchmarks/claim/networks.py --report                  # then claim/run.py --report, which takes the figures over

Retrained: what a cold search found with the full budget and a warm one with a quarter of it (at most two operations without
parameters per cell), trained from scratch on all training pictures under three settings. Inherited: the warm network with
the weights of its search, tuned for a few epochs. All accuracies are on the test pictures. One JSON line per search in
OUT/claim_networks.jsonl.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import searches
from benchmarks.claim.report import NETWORKS, rounded
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe
from benchmarks.common.searches import arguments_of
from nni_warmstart import Supernet, WarmStartDARTS
from nni_warmstart.data import Task, split
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.nni_adapter.model_spaces import create, input_of, resolve
from nni_warmstart.runs.retrain import learning, train
from nni_warmstart.supernets.network import inherited, is_blind
from nni_warmstart.utils.files import write_json
from nni_warmstart.utils.metrics import final_accuracy

HERE = Path(__file__).resolve().parent
_BASE: dict[str, Any] = {'batch_size': 32, 'learning_rate': 0.05, 'weight_decay': 3e-4, 'crop': 0.125}
TRAININGS: dict[str, dict[str, Any]] = {
    'short': {**_BASE, 'max_epochs': 12},
    'long': {**_BASE, 'max_epochs': 30},
    'regularised': {**_BASE, 'max_epochs': 20, 'weight_decay': 1e-3, 'cutout': 0.4},
}
TUNING: dict[str, Any] = {**_BASE, 'max_epochs': 5, 'learning_rate': 0.02}
"""Training of inherited weights."""
QUARTER = searches.EPOCHS // 4
CAP = 2
"""Operations without parameters in a cell that a warm search finds, as in P-DARTS: DARTS likes skip connections."""
SIDES: dict[str, dict[str, Any]] = {
    'cold': {},
    'warm': {'parameter_free_cap': CAP},
    'warm, alphas reset': {'parameter_free_cap': CAP, 'alpha': 'reset'},
}
"""Arguments of the strategy."""


@dataclass(frozen=True)
class Found:
    """One network: what a cold search found, as run.py recorded it, or a warm search of a quarter of the budget finds."""

    task: str
    seed: int
    side: str
    architecture: dict[str, Any] | None = None
    seconds: float | None = None

    key: ClassVar = ('task', 'seed', 'side')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--space', type=yaml.safe_load, default=searches.SPACE, help='as of run.py')
    parser.add_argument('--zoo', help='as of run.py')
    parser.add_argument('--pictures', type=int, default=searches.PICTURES, help='as of run.py')
    parser.add_argument('--seeds', type=int, nargs='+', help='which (default: all that run.py has run)')
    sides = f'of {", ".join(map(repr, SIDES))} (default: the first two)'
    parser.add_argument('--sides', nargs='+', choices=list(SIDES), default=['cold', 'warm'], metavar='SIDE', help=sides)
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of claim.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    parser.add_argument('--recipe', help='of the runs of a report, as of run.py')
    arguments = parser.parse_args()
    space = {'name': arguments.space} if isinstance(arguments.space, str) else dict(arguments.space)
    path = arguments.out / 'claim_networks.jsonl'
    if arguments.report:
        report(of_recipe(path, arguments.recipe), space, arguments.out)
        return
    if arguments.data is None:
        parser.error('--data is missing.')
    setting = searches.Setting(arguments.data, arguments.zoo, space, arguments.pictures, arguments.out)
    runs = []
    for row in of_recipe(arguments.out / 'claim.jsonl', setting.recipe):
        if row['side'] == 'cold' and (arguments.seeds is None or row['seed'] in arguments.seeds):
            for side in arguments.sides:
                found = (row['architecture'], row['seconds']) if side == 'cold' else ()
                runs.append(Found(row['task'], row['seed'], side, *found))
    perform(run, runs, setting, path, arguments.processes)
    report(of_recipe(path, setting.recipe), space, arguments.out)


def run(found: Found, setting: searches.Setting) -> dict[str, Any]:
    """Search where it is a warm network, and train under every setting; the row that goes into the file."""
    task = searches.load(setting, found.task)
    row: dict[str, Any] = {'task': found.task, 'seed': found.seed, 'side': found.side, 'accuracy': {}, 'seconds': {}}
    architecture, row['seconds']['search'], start = found.architecture, found.seconds, time.perf_counter()
    if architecture is None:
        strategy = searched(found, setting, task)
        architecture, row['source'] = strategy.oneshot_module.export(), strategy.report.source
        row['seconds']['search'] = round(time.perf_counter() - start, 2)
        tuned = inherited(Supernet.from_strategy(strategy, name='found'), architecture)
        fit(row, 'inherited', tuned, task, TUNING)
    for name, settings in TRAININGS.items():
        seed_everything(found.seed, workers=True, verbose=False)
        network = freeze(searches.space_of(setting, task), architecture)
        fit(row, name, network, task, settings)
    return {**row, 'architecture': architecture, 'parameters': sum(p.numel() for p in network.parameters())}


def fit(row: dict[str, Any], name: str, network: Any, task: Task, settings: dict[str, Any]) -> None:
    """Train ``network`` on all training pictures and note its test accuracy and the seconds."""
    splits, start = learning(task, val_share=0.5), time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        curve = train(network, splits, task.num_classes, settings, out, seed=row['seed'], progress=False)
    row['accuracy'][name] = final_accuracy(curve)
    row['seconds'][name] = round(time.perf_counter() - start, 2)


def searched(found: Found, setting: searches.Setting, task: Task) -> Any:
    """A warm search of a quarter of the budget."""
    seed_everything(found.seed, workers=True, verbose=False)
    zoo = searches.zoo_of(setting, searches.sources(setting, found.task, strict=False))
    strategy = WarmStartDARTS(gradient_clip_val=searches.CLIP, zoo=zoo, source='auto', **SIDES[found.side])
    with tempfile.TemporaryDirectory() as out:
        evaluator = searches.evaluator(task, split(task), out, epochs=QUARTER)
        strategy(RawFormatModelSpace(searches.space_of(setting, task), evaluator), SequentialExecutionEngine())
    return strategy


def pairs(rows: list[dict[str, Any]], side: str) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Task -> what cold searches found and what those of a side found, by seeds that both have."""
    found = {(row['task'], row['side'], row['seed']): row for row in rows}
    both: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for task, which, seed in sorted(found):
        if which == side and (task, 'cold', seed) in found:
            both[task].append((found[task, 'cold', seed], found[task, side, seed]))
    return both


def gaps(pair: tuple[dict[str, Any], dict[str, Any]]) -> list[float]:
    """Test accuracy of the second network above that of the first, one for each training, in points."""
    cold, warm = pair
    return [100 * (warm['accuracy'][name] - cold['accuracy'][name]) for name in TRAININGS]


def is_collapsed(space: dict[str, Any], architecture: dict[str, Any]) -> bool:
    """Whether no path leads through the network of an architecture."""
    return _is_collapsed(json.dumps(space), json.dumps(architecture, sort_keys=True))


@functools.cache
def _is_collapsed(space: str, architecture: str) -> bool:
    name, arguments = json.loads(space)['name'], arguments_of(json.loads(space))
    network = freeze(create(name, arguments, 2), json.loads(architecture))
    return is_blind(network, input_of(resolve(name), arguments))


def agreement(differences: list[float]) -> dict[str, Any]:
    """What a table says of the differences of its tasks; nothing without any."""
    if not differences:
        return {}
    return {
        'tasks': len(differences),
        'share_at_least_as_good': statistics.mean(gap >= 0 for gap in differences),
        'mean_difference': statistics.mean(differences),
        'median_difference': statistics.median(differences),
    }


def of_task(both: list[tuple[dict[str, Any], dict[str, Any]]], space: dict[str, Any]) -> dict[str, Any]:
    """The figures of a task: one row of the table."""
    each = [gap for pair in both for gap in gaps(pair)]
    sound = [gap for pair in both if not any(is_collapsed(space, row['architecture']) for row in pair) for gap in gaps(pair)]
    cold, warm = (statistics.mean(pair[side]['accuracy'][name] for pair in both for name in TRAININGS) for side in (0, 1))
    return {
        'seeds': len(both),
        'cold': cold,
        'warm': warm,
        'difference': statistics.mean(each),
        'error': statistics.stdev(each) / len(each) ** 0.5,
        'difference_without_collapsed': statistics.mean(sound) if sound else None,
        'inherited': statistics.mean(row['accuracy']['inherited'] for _, row in both),
    }


def summarise(rows: list[dict[str, Any]], space: dict[str, Any]) -> dict[str, Any]:
    """The figures of all tasks together."""
    tasks = {task: of_task(both, space) for task, both in pairs(rows, 'warm').items()}
    paired = [pair for both in pairs(rows, 'warm').values() for pair in both]
    sound = [task['difference_without_collapsed'] for task in tasks.values()]
    reset = [[gap for pair in both for gap in gaps(pair)] for both in pairs(rows, 'warm, alphas reset').values()]
    long = max(TRAININGS, key=lambda name: TRAININGS[name]['max_epochs'])
    ways = {
        'cold, trained from scratch': (0, long),
        'warm, trained from scratch': (1, long),
        'warm, inherited weights': (1, 'inherited'),
    }
    return {
        'recipe': rows[-1]['recipe'],
        **agreement([task['difference'] for task in tasks.values()]),
        'share_within_half_error': statistics.mean(task['difference'] >= -task['error'] / 2 for task in tasks.values()),
        'searches': len(paired),
        'collapsed': {
            side: sum(is_collapsed(space, pair[index]['architecture']) for pair in paired)
            for index, side in enumerate(('cold', 'warm'))
        },
        'without_collapsed': agreement([gap for gap in sound if gap is not None]),
        'architectures': {
            side: len({json.dumps(pair[index]['architecture'], sort_keys=True) for pair in paired})
            for index, side in enumerate(('cold', 'warm'))
        },
        'alphas_reset': agreement([statistics.mean(each) for each in reset]),
        'cost': {
            name: {
                'training': training,
                'accuracy': statistics.mean(pair[side]['accuracy'][training] for pair in paired),
                'seconds': statistics.mean(
                    pair[side]['seconds']['search'] + pair[side]['seconds'][training] for pair in paired
                ),
            }
            for name, (side, training) in ways.items()
        },
        'by_task': tasks,
    }


def report(rows: list[dict[str, Any]], space: dict[str, Any], out: Path) -> None:
    """Write networks.json and networks.md."""
    if pairs(rows, 'warm'):
        summary = summarise(rows, space)
        write_json(out / NETWORKS, rounded(summary))
        (out / 'networks.md').write_text('\n'.join(document(summary)) + '\n')


def document(summary: dict[str, Any]) -> list[str]:
    """Lines of networks.md."""
    collapsed = summary['collapsed']
    lines = [
        '# The networks that the searches found',
        '',
        'Made by `python benchmarks/claim/networks.py --data DIR --zoo ZOO`. Test accuracy, means over seeds and three',
        'trainings from scratch, with the standard error of the paired differences. Cold: found with the full budget;',
        f'warm: with a quarter of it and at most {CAP} operations without parameters per cell.',
        f'Inherited: the warm network with the weights of its search, tuned for {TUNING["max_epochs"]} epochs.',
        '',
        '| task | seeds | cold | warm | difference, points | inherited |',
        '|---' * 6 + '|',
        *(
            f'| {name} | {task["seeds"]} | {task["cold"]:.3f} | {task["warm"]:.3f} | '
            f'{task["difference"]:+.1f} ± {task["error"]:.1f} | {task["inherited"]:.3f} |'
            for name, task in summary['by_task'].items()
        ),
        '',
        f'At least as good on {summary["share_at_least_as_good"]:.0%} of {summary["tasks"]} tasks (required 70 %, aim',
        f'85 %), within half the standard error on {summary["share_within_half_error"]:.0%}; mean difference',
        f'{summary["mean_difference"]:+.2f} points (required 0, aim +1), median {summary["median_difference"]:+.2f}.',
        f'Of {summary["searches"]} searches, {collapsed["cold"]} cold and {collapsed["warm"]} warm ones',
        'chose cells in which no path leads from the input to the output; such a network stays at chance.',
        f'Cold searches found {summary["architectures"]["cold"]} different cells, warm ones '
        f'{summary["architectures"]["warm"]}.',
    ]
    lines += [
        f'{name} ({figures["tasks"]} tasks): at least as good on {figures["share_at_least_as_good"]:.0%}, mean '
        f'{figures["mean_difference"]:+.2f}, median {figures["median_difference"]:+.2f}.'
        for name, figures in (
            ('Without the searches that found such a cell', summary['without_collapsed']),
            ("With flat alphas instead of the source's, one seed", summary['alphas_reset']),
        )
        if figures
    ]
    lines += [
        '',
        'From pictures to a trained network, search included (means over tasks and seeds):',
        '',
        '| way | epochs of training | test accuracy | seconds |',
        '|---|---|---|---|',
        *(
            f'| {name} | {({**TRAININGS, "inherited": TUNING})[way["training"]]["max_epochs"]} | '
            f'{way["accuracy"]:.3f} | {way["seconds"]:.0f} |'
            for name, way in summary['cost'].items()
        ),
    ]
    return lines


if __name__ == '__main__':
    main()
