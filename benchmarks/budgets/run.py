"""The gain of a warm start over the budget: longer searches, and more images.

    python benchmarks/budgets/run.py --data DIR --epochs 50 100                     # the shipped zoo, eight tasks
    python benchmarks/budgets/run.py --data DIR/large --tasks cifar10_16k --images 4000 16000
    python benchmarks/budgets/run.py --report

Searches as in claim/run.py, cold and warm, with other numbers of epochs and of training images (half of which are for
validation); those of 20 epochs and 1,000 images are taken from there. DIR holds NAME.npz. Killed, it goes on where it was:
one JSON line per search in OUT/budgets.jsonl.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim.comparison import Row, compare, geometric, geometric_of
from benchmarks.claim.searches import EPOCHS, PICTURES, SPACE, Run, Setting, search
from benchmarks.common.figures import plt, save
from benchmarks.common.processes import perform
from benchmarks.common.rows import read
from nni_warmstart.utils.metrics import final_accuracy

HERE = Path(__file__).resolve().parent
TASKS = ['cifar10', 'dog_cat', 'flowers5', 'gtsrb', 'mnist', 'quickdraw3', 'spoken_digits', 'steel_defects']
"""None of them is among the datasets of the shipped sources."""
BOTH = ['cold', 'warm']
SHOWN = {'epochs': 'epochs of a search', 'images': 'training images'}
DRAWN = {'speedup_epochs': 'cold epochs / warm epochs', 'difference': 'warm minus cold, points'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--tasks', nargs='+', default=TASKS, metavar='NAME', help=f'default: {", ".join(TASKS)}')
    parser.add_argument('--epochs', type=int, nargs='+', default=[EPOCHS], help=f'of each search (default: {EPOCHS})')
    parser.add_argument('--images', type=int, nargs='+', default=[PICTURES], help=f'at most (default: {PICTURES})')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='default: 0')
    parser.add_argument('--sides', nargs='+', choices=BOTH, default=BOTH, metavar='SIDE', help=f'default: {" ".join(BOTH)}')
    parser.add_argument('--zoo', help='of the sources (default: the shipped one)')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of budgets.jsonl and the table')
    parser.add_argument('--report', action='store_true', help='run nothing, write table and figure')
    arguments = parser.parse_args()
    path, known = arguments.out / 'budgets.jsonl', of_the_claim(arguments.out.parent)
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is missing.')
        runs = [Run(task, seed, side) for seed in arguments.seeds for task in arguments.tasks for side in arguments.sides]
        for epochs in arguments.epochs:
            for images in arguments.images:
                setting = Setting(arguments.data, arguments.zoo, SPACE, images, arguments.out, epochs=epochs)
                done = {tuple(row[key] for key in Run.key) for row in known} if setting.is_claim else set()
                todo = [run for run in runs if (run.task, run.seed, run.side) not in done]
                perform(search, todo, setting, path, arguments.processes)
    found = pairs(read(path) + known)
    (arguments.out / 'budgets.md').write_text('\n'.join(document(found)) + '\n')
    save(figure(found), arguments.out / 'budgets.png')


def of_the_claim(benchmarks: Path) -> list[Row]:
    """Return the searches of the usual length that the claim beside has of these tasks, cold and warm side by side."""
    rows = read(benchmarks / 'claim_by_plans' / 'claim.jsonl')
    return [row for row in rows if row['task'] in TASKS and row['side'] in BOTH and row.get('series') == 'plans']


def pairs(rows: list[Row]) -> list[dict[str, Any]]:
    """Compare the searches of a task, seed and recipe; differences in percentage points.

    Half a standard error is that of a difference between two accuracies that are measured on so many images.
    """
    sides: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        sides[row['task'], row['seed'], row['recipe']][row['side']] = row
    found = []
    for both in sides.values():
        if len(both) < 2:
            continue
        cold, warm = both['cold'], both['warm']
        ends = final_accuracy(cold['curve']), final_accuracy(warm['curve'])
        error = math.sqrt(sum(end * (1 - end) for end in ends) / (cold['pictures'] / 2))
        test = None if cold['test_accuracy'] is None else 100 * (warm['test_accuracy'] - cold['test_accuracy'])
        found.append({
            'task': cold['task'], 'seed': cold['seed'], 'epochs': len(cold['curve']), 'images': cold['pictures'],
            **compare(cold, warm), 'cold': ends[0], 'warm': ends[1], 'test': test,
            'difference': 100 * (ends[1] - ends[0]), 'positive': ends[1] - ends[0] >= -error / 2,
        })  # fmt: skip
    return sorted(found, key=lambda pair: (pair['epochs'], pair['images'], pair['task'], pair['seed']))


def budgets_of(found: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Group pairs by epochs and images, the latter in round thousands: tasks have a few more or fewer."""
    groups: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for pair in found:
        groups[pair['epochs'], 1000 * max(1, round(pair['images'] / 1000))].append(pair)
    return dict(sorted(groups.items()))


def document(found: list[dict[str, Any]]) -> list[str]:
    """Lines of budgets.md."""
    lines = [
        '# Longer searches, and more images',
        '',
        'Made by `python benchmarks/budgets/run.py --data DIR` with `--epochs` and `--images`. Searches as in the',
        '[claim](../claim_by_plans/claim.md), cold and warm, from the shipped sources; those of 20 epochs on eight tasks',
        'are the ones there. Speedup: epochs to the final accuracy of the cold search, reached and held (never: all',
        'epochs). At least as high: within half a standard error of the difference of two accuracies on so many images.',
        '',
        '| epochs | images | tasks | speedup | least | never | in seconds | at least as high | validation | test, points |',
        '|---' * 10 + '|',
    ]
    for (epochs, images), group in budgets_of(found).items():
        seconds = geometric_of(pair['speedup_seconds'] for pair in group)
        tests = [pair['test'] for pair in group if pair['test'] is not None]
        speedups = [pair['speedup_epochs'] for pair in group]
        lines.append(
            f'| {epochs} | {images:,} | {len({pair["task"] for pair in group})} '
            f'| {geometric(speedups):.1f} | {min(speedups):.1f} '
            f'| {sum(pair["failed"] for pair in group)} | {"-" if seconds is None else f"{seconds:.1f}"} '
            f'| {statistics.mean(pair["positive"] for pair in group):.0%} '
            f'| {statistics.mean(pair["difference"] for pair in group):+.1f} '
            f'| {f"{statistics.mean(tests):+.1f}" if tests else "-"} |'
        )
    lines += [
        '',
        '| task | seed | epochs | images | validation, cold | warm | epochs, cold | warm | speedup | test, points |',
        '|---' * 10 + '|',
        *(
            f'| {pair["task"]} | {pair["seed"]} | {pair["epochs"]} | {pair["images"]:,} '
            f'| {pair["cold"]:.3f} | {pair["warm"]:.3f} '
            f'| {pair["cold_epochs"]} | {"-" if pair["failed"] else pair["warm_epochs"]} | {pair["speedup_epochs"]:.1f} '
            f'| {"-" if pair["test"] is None else format(pair["test"], "+.1f")} |'
            for pair in found
        ),
        '',
        '![Speedup and difference over epochs and images](budgets.png)',
    ]
    return lines


def figure(found: list[dict[str, Any]]) -> Any:
    """Speedup and final difference over both budgets, a line per task."""
    drawn, grid = plt.subplots(2, 2, figsize=(9, 6), squeeze=False)
    for column, (budget, label) in enumerate(SHOWN.items()):
        fixed = ('images', PICTURES * 1.5) if budget == 'epochs' else ('epochs', EPOCHS)
        shown = [pair for pair in found if pair[fixed[0]] <= fixed[1]]
        for row, (value, title) in enumerate(DRAWN.items()):
            axes = grid[row][column]
            for task in sorted({pair['task'] for pair in shown}):
                own = [pair for pair in shown if pair['task'] == task]
                if len({pair[budget] for pair in own}) > 1:
                    axes.plot([pair[budget] for pair in own], [pair[value] for pair in own], marker='o', label=task)
            ticks = sorted({key[column] for key in budgets_of(shown)})
            axes.axhline(1 if row == 0 else 0, color='black', linewidth=0.8)
            axes.set(xlabel=label, ylabel=title, xscale='log')
            axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
            axes.minorticks_off()
            if row == 0:
                axes.set_yscale('log')
            if axes.lines[1:]:
                axes.legend(fontsize=6)
    return drawn


if __name__ == '__main__':
    main()
