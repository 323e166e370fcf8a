"""The networks that the searches of claim.py found: are those of warm searches as good, and what does it cost to have one?

    python benchmarks/claim_networks.py --data DIR [--zoo ZOO]    # after claim.py with the same arguments; resumable
    python benchmarks/claim_networks.py --report

Retrained: what a cold search found with the full budget and a warm one with a quarter of it, trained from scratch on all
training pictures under three settings. Inherited: a warm search of a quarter of the budget, its network with the supernet's
weights, tuned for a few epochs. All accuracies are on the test pictures. One JSON line per run in OUT/claim_networks.jsonl.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import claim
import yaml
from claim_report import mean_of, standard_error
from common import RESULTS
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything

from nni_warmstart import Supernet, WarmStartDARTS, data
from nni_warmstart.measure import final_accuracy
from nni_warmstart.network import chosen, inherited
from nni_warmstart.retrain import learning, train
from nni_warmstart.storage import write_json

TRAININGS: dict[str, dict[str, Any]] = {
    'short': {'max_epochs': 15, 'batch_size': 32, 'learning_rate': 0.1, 'weight_decay': 3e-4, 'crop': 0.125},
    'long': {'max_epochs': 40, 'batch_size': 32, 'learning_rate': 0.05, 'weight_decay': 3e-4, 'crop': 0.125},
    'regularised': {
        'max_epochs': 25,
        'batch_size': 64,
        'learning_rate': 0.1,
        'weight_decay': 1e-3,
        'crop': 0.125,
        'cutout': 0.4,
    },
}
TUNING: dict[str, Any] = {'max_epochs': 5, 'batch_size': 32, 'learning_rate': 0.02, 'weight_decay': 3e-4, 'crop': 0.125}
"""Of inherited weights."""
QUARTER = claim.EPOCHS // 4


@dataclass(frozen=True)
class Training:
    """One network, trained."""

    task: str
    seed: int
    side: str
    training: str
    architecture: dict[str, Any] | None = None
    source: str | None = None

    key: ClassVar = ('task', 'seed', 'side', 'training')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--space', type=yaml.safe_load, default=claim.SPACE, help='as of claim.py')
    parser.add_argument('--zoo', help='as of claim.py')
    parser.add_argument('--pictures', type=int, default=claim.PICTURES, help='as of claim.py')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of claim.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    arguments = parser.parse_args()
    path = arguments.out / 'claim_networks.jsonl'
    if arguments.report:
        report(claim.read(path), arguments.out)
        return
    if arguments.data is None:
        parser.error('--data is missing.')
    space = {'name': arguments.space} if isinstance(arguments.space, str) else dict(arguments.space)
    setting = claim.Setting(arguments.data, arguments.zoo, space, arguments.pictures, arguments.out)
    runs = []
    for row in claim.read(arguments.out / 'claim.jsonl', setting.recipe):
        place, side = (row['task'], row['seed']), row['side']
        if side in ('cold', 'warm'):
            found = row['architecture' if side == 'cold' else 'architecture_quarter']
            runs += [Training(*place, side, training, architecture=found) for training in TRAININGS]
        if side == 'warm':
            runs.append(Training(*place, 'inherited', 'tuned', source=row['source']))
    claim.perform(run, runs, setting, path, arguments.processes)
    report(claim.read(path, setting.recipe), arguments.out)


def run(training: Training, setting: claim.Setting) -> dict[str, Any]:
    """Train one network; the row that goes into the file."""
    task = claim.load(setting, training.task)
    splits = learning(task, val_share=0.5)
    start = time.perf_counter()
    if training.side == 'inherited':
        network, settings = searched(training, setting, task), TUNING
    else:
        seed_everything(training.seed, workers=True, verbose=False)
        network, settings = chosen(claim.space_of(setting, task), training.architecture or {}), TRAININGS[training.training]
    with tempfile.TemporaryDirectory() as out:
        curve = train(network, splits, task.num_classes, settings, out, seed=training.seed, progress=False)
    return {
        **asdict(training),
        'accuracy': final_accuracy(curve),
        'parameters': sum(parameter.numel() for parameter in network.parameters()),
        'seconds': round(time.perf_counter() - start, 2),
    }


def searched(training: Training, setting: claim.Setting, task: data.Task) -> Any:
    """A warm search of a quarter of the budget; its network, with the supernet's weights."""
    seed_everything(training.seed, workers=True, verbose=False)
    zoo = claim.zoo_of(setting, claim.sources(setting, training.task, strict=False))
    strategy = WarmStartDARTS(gradient_clip_val=claim.CLIP, zoo=zoo, source='auto')
    with tempfile.TemporaryDirectory() as out:
        evaluator = claim.evaluator(task, data.split(task), out, epochs=QUARTER)
        strategy(RawFormatModelSpace(claim.space_of(setting, task), evaluator), SequentialExecutionEngine())
    return inherited(Supernet.from_strategy(strategy, name='found'))


def report(rows: list[dict[str, Any]], out: Path) -> None:
    """Write networks.json and networks.md."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row['task']][row['side']].append(row['accuracy'])
    lines = [
        '# The networks that the searches found',
        '',
        'Made by `python benchmarks/claim_networks.py --data DIR`. Test accuracy, means over seeds and settings. Cold:',
        'found with the full budget; warm: with a quarter of it; both trained from scratch. Inherited: with the weights of',
        f'the warm search, tuned for {TUNING["max_epochs"]} epochs.',
        '',
        '| task | cold | warm | difference, points | inherited |',
        '|---' * 5 + '|',
    ]
    differences = []
    for task, sides in sorted(found.items()):
        if not sides['cold'] or len(sides['cold']) != len(sides['warm']):
            continue
        difference = statistics.mean(sides['warm']) - statistics.mean(sides['cold'])
        differences.append((difference, standard_error(sides['cold'], sides['warm'])))
        tuned = mean_of(sides['inherited'])
        cells = [f'{statistics.mean(sides[side]):.3f}' for side in ('cold', 'warm')]
        cells += [f'{100 * difference:+.1f} ± {100 * differences[-1][1]:.1f}', '-' if tuned is None else f'{tuned:.3f}']
        lines.append(f'| {task} | {" | ".join(cells)} |')
    if not differences:
        return
    seconds = {
        side: statistics.median(row['seconds'] for row in rows if row['side'] == side)
        for side in dict.fromkeys(row['side'] for row in rows)
    }
    summary = {
        'tasks': len(differences),
        'share_at_least_as_good': statistics.mean(difference >= 0 for difference, _ in differences),
        'mean_difference': 100 * statistics.mean(difference for difference, _ in differences),
        'median_seconds': seconds,
    }
    lines += [
        '',
        f'At least as good on {summary["share_at_least_as_good"]:.0%} of {len(differences)} tasks (required 70 %, aim',
        f'85 %); mean difference {summary["mean_difference"]:+.2f} points (required 0, aim +1).',
    ]
    write_json(out / 'networks.json', summary)
    (out / 'networks.md').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
