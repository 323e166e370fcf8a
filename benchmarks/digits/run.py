"""Cold against warm on scikit-learn's digits, several seeds: the figures in the README.

    python benchmarks/digits/run.py --seeds 5
    python benchmarks/digits/run.py --seeds 3 --ablation    # which part of the recipe does what

Both runs use examples/digits/search.yml; the cold one is NNI's DARTS. Runs are appended to digits.jsonl, one line
each, and are not repeated; table and figure are written anew.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning import seed_everything

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.figures import plt, save
from benchmarks.common.rows import Rows, of_recipe
from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import quiet
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.model_spaces import create, input_of, resolve
from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.search import run_search
from nni_warmstart.runs.settings import overridden, read
from nni_warmstart.search import alpha_rate
from nni_warmstart.utils.metrics import epochs_to, final_accuracy

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parents[1] / 'examples' / 'digits' / 'search.yml'
MAIN = {
    'cold': {'strategy.name': 'DARTS'},
    'warm': {'strategy.name': 'WarmStartDARTS'},
}
JOINT = {'strategy.source': 'joint-nasbench201-w8'}
ABLATION = {
    'the joint source by name': JOINT,
    'the same, plain copy, random head': {**JOINT, 'strategy.head': 'random', 'strategy.keep': 1.0},
    'the same, keep 0.8, random head': {**JOINT, 'strategy.head': 'random'},
    'the same, plain copy, ridge head': {**JOINT, 'strategy.keep': 1.0},
    'the same, keep 0.8, ridge head, alphas reset': {**JOINT, 'strategy.alpha': 'reset'},
}
"""Sides of the comparison: keys of search.yml that differ from it."""

rows = Rows(HERE / 'digits.jsonl', ('side', 'seed', 'recipe'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=5, help='seeds 0 .. SEEDS - 1 (default: 5)')
    parser.add_argument('--only', choices=tuple(MAIN), help='run one side only, to share the work between processes')
    parser.add_argument('--ablation', action='store_true', help='run the variants of the recipe as well')
    parser.add_argument('--report', action='store_true', help='write table and figure of the last recipe, run nothing')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if not arguments.report:
        for seed in range(arguments.seeds):
            sides = [arguments.only] if arguments.only else [*MAIN, *(ABLATION if arguments.ablation else ())]
            for side in sides:
                row = {'side': side, 'seed': seed, 'recipe': recipe()}
                if not rows.has(**row):
                    rows.append(**row, **run(side, seed))
    report(of_recipe(rows.path))


def run(side: str, seed: int) -> dict[str, Any]:
    """One search, as the demo runs it."""
    config = parse_search(overridden(read(CONFIG), {**MAIN, **ABLATION}[side]), CONFIG.parent)
    with tempfile.TemporaryDirectory() as out:
        result = run_search(config, seed=seed, out=out, progress=False)
        row = {
            'curve': [figures['default'] for figures in result['curve']],
            'epoch_seconds': [figures['epoch_seconds'] for figures in result['curve']],
            'warm_start_seconds': result['warm_start']['seconds'] if result['warm_start'] else {},
            'accuracy_before_training': result['warm_start'] and result['warm_start']['zero_shot_accuracy'],
            'test_accuracy': result['final']['test_accuracy'],
            'source': result['source'],
            'versions': result['versions'],
        }
        if side == 'cold' and seed == 0:
            row['equals_upstream'] = equals_upstream(config, Path(out))
    return row


def equals_upstream(config: Any, out: Path) -> bool:
    """Whether NNI's own, untouched DARTS ends with the same weights and alphas, to the bit."""
    cls = resolve(config.space.name)
    channels, side = input_of(cls, config.space.arguments)
    task = config.data.load(config.base, side).adapted(channels, side)
    seed_everything(0, workers=True, verbose=False)
    space = create(config.space.name, config.space.arguments, task.num_classes)
    settings = config.evaluator
    evaluator = classification(
        split(task, val_share=settings.val_share),
        task.num_classes,
        make_trainer(settings.max_epochs, out / 'upstream', progress=False),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    strategy = DARTS(**config.strategy.arguments)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    ours = Supernet.load(out / 'supernet.safetensors').state_dict()
    return all(torch.equal(tensor, ours[name]) for name, tensor in strategy.supernet.state_dict().items())


def recipe() -> str:
    """Identity of what is measured: the example's settings, the joint source of its space, and the rate of its alphas."""
    source = SupernetZoo.shipped()[JOINT['strategy.source']]
    rate = f'{alpha_rate.TRAVEL} {alpha_rate.LARGEST}'
    return hashlib.sha256((CONFIG.read_text() + source.key + rate).encode()).hexdigest()[:12]


def report(results: list[dict[str, Any]]) -> None:
    """Write digits.md and digits.png."""
    pairs = []
    for seed in sorted({row['seed'] for row in results}):
        both = {row['side']: row for row in results if row['seed'] == seed}
        if both.keys() >= MAIN.keys():
            pairs.append((seed, both['cold'], both['warm']))
    lines = [
        '| seed | cold: final | cold: epochs | warm: final | warm: epochs | warm before training | epochs, ratio |'
        ' seconds, ratio | warm start, in epochs | test cold | test warm |',
        '|---' * 11 + '|',
    ]
    ratios, time_ratios, overheads = [], [], []
    for seed, cold, warm in pairs:
        target = final_accuracy(cold['curve'])
        epochs = [epochs_to(row['curve'], target) for row in (cold, warm)]
        seconds = [
            None if count is None else sum(row['warm_start_seconds'].values()) + sum(row['epoch_seconds'][:count])
            for count, row in zip(epochs, (cold, warm), strict=True)
        ]
        overhead = sum(warm['warm_start_seconds'].values()) / statistics.median(warm['epoch_seconds'])
        overheads.append(overhead)
        reached = epochs[1] is not None
        ratios.append(epochs[0] / epochs[1] if reached else 0.0)
        time_ratios.append(seconds[0] / seconds[1] if reached else 0.0)
        lines.append(
            f'| {seed} | {target:.4f} | {epochs[0]} | {final_accuracy(warm["curve"]):.4f} | {epochs[1] or "not reached"} | '
            f'{warm["accuracy_before_training"]:.4f} | {ratios[-1]:.1f} | {time_ratios[-1]:.1f} | {overhead:.2f} | '
            f'{cold["test_accuracy"]:.4f} | {warm["test_accuracy"]:.4f} |'
        )
    if pairs:
        lines.append(
            f'\nMedian over {len(pairs)} seeds: {statistics.median(ratios):.1f} times fewer epochs '
            f'(from {min(ratios):.1f} to {max(ratios):.1f}), {statistics.median(time_ratios):.1f} times less time '
            f'(from {min(time_ratios):.1f} to {max(time_ratios):.1f}); a run that never reaches the target counts as 0. '
            f'The warm start itself costs {statistics.median(overheads):.2f} epochs.'
        )
    text = '\n'.join([*lines, '', *ablation(results)]) + '\n'
    (HERE / 'digits.md').write_text(text)
    print(text)
    draw(results)


def ablation(results: list[dict[str, Any]]) -> list[str]:
    """Table of the variants, over the seeds that all of them have."""
    sides = [side for side in (*MAIN, *ABLATION) if any(row['side'] == side for row in results)]
    if len(sides) <= len(MAIN):
        return []
    seeds = set.intersection(*({row['seed'] for row in results if row['side'] == side} for side in sides))
    curves = {(row['side'], row['seed']): row['curve'] for row in results}
    lines = [
        f'Parts of the recipe, mean over seeds {", ".join(map(str, sorted(seeds)))} (not reached: the whole budget):',
        '',
        '| search | epoch 1 | epoch 2 | epoch 3 | final | epochs to the cold final accuracy |',
        '|---' * 6 + '|',
    ]
    for side in sides:
        mine = [curves[side, seed] for seed in sorted(seeds)]
        reached = [epochs_to(curves[side, seed], final_accuracy(curves['cold', seed])) for seed in sorted(seeds)]
        spent = [len(curve) if count is None else count for curve, count in zip(mine, reached, strict=True)]
        cells = [statistics.mean(curve[epoch] for curve in mine) for epoch in range(3)]
        cells.append(statistics.mean(final_accuracy(curve) for curve in mine))
        lines.append(f'| {side} | ' + ' | '.join(f'{cell:.4f}' for cell in cells) + f' | {statistics.mean(spent):.1f} |')
    return lines


def draw(results: list[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for side, colour in zip(MAIN, ('tab:blue', 'tab:orange'), strict=True):
        curves = [row['curve'] for row in results if row['side'] == side]
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), curve, color=colour, alpha=0.3, linewidth=1)
        if curves:
            median = [statistics.median(values) for values in zip(*curves, strict=True)]
            axes.plot(
                range(1, len(median) + 1), median, color=colour, linewidth=2, label=f'{side} (median of {len(curves)})'
            )
        before = [
            row['accuracy_before_training'] for row in results if row['side'] == side and row['accuracy_before_training']
        ]
        if before:
            axes.scatter([0] * len(before), before, color=colour, s=12, label='before training')
    axes.set(xlabel='epoch', ylabel='validation accuracy', title='Supernet search on digits', ylim=(0.6, 1.0))
    axes.legend(loc='lower right')
    save(figure, HERE / 'digits.png')


if __name__ == '__main__':
    main()
