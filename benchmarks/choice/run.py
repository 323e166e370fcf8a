"""How good is the choice of a source? Every source is transferred to every target, and every ranking is judged in hindsight.

    python benchmarks/choice/run.py --data DIR --seeds 1 2          # all steps; resumable, one JSON line per run
    python benchmarks/choice/run.py --data DIR --seeds 1 2 --part 0 2   # half of the targets, to share the work
    python benchmarks/choice/run.py --report                        # table and figure from the results so far

Sources are pretrained on one dataset each (15 x 100 steps, seed 0) and kept in --zoo. A transfer is three epochs of search
on at most 600 pictures of the target, without averaged weights; its accuracy is that on the test pictures. A ranking loses
what its first choice ends below the best source. The target's own dataset is never among the sources.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.figures import plt, save
from benchmarks.common.rows import Rows
from benchmarks.common.searches import part, search
from nni_warmstart import DatasetSketch, SupernetZoo, transfer
from nni_warmstart.cli import quiet
from nni_warmstart.data import from_npz, split
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.runs.config import parse_pretrain
from nni_warmstart.runs.pretrain import pretrain
from nni_warmstart.zoo.ranking import rank

HERE = Path(__file__).resolve().parent
SOURCES = [
    'braille', 'cifar10', 'clothing', 'emoji_category', 'fashion_mnist', 'flowers5', 'grocery', 'kannada_digits',
    'mnist', 'notmnist', 'omniglot_latin', 'plant_seedlings', 'sign_digits', 'spoken_digits', 'steel_defects',
    'tinyimagenet_animals',
]  # fmt: skip
DEVELOPMENT = [
    'usps', 'fashion_mnist', 'tinyimagenet_things', 'sign_digits', 'omniglot_greek', 'plant_seedlings', 'digits8x8',
    'cifar10',
]  # fmt: skip
"""Targets that were looked at while the rankings were made."""
TARGETS = [
    'gtsrb', 'clothing', 'math_symbols', 'spoken_digits', 'dog_cat', 'omniglot_latin', 'steel_defects', 'mnist',
    'quickdraw3', 'emoji_category', 'flowers5', 'kannada_digits', 'tinyimagenet_animals', 'braille', 'notmnist',
    'grocery', 'house_rooms', 'omniglot_korean',
]  # fmt: skip
FAMILIES = (
    {'mnist', 'usps', 'digits8x8', 'kannada_digits', 'math_symbols'},
    {'omniglot_latin', 'omniglot_greek', 'omniglot_korean'},
    {'tinyimagenet_animals', 'tinyimagenet_things', 'cifar10', 'dog_cat'},
    {'fashion_mnist', 'clothing'},
    {'flowers5', 'plant_seedlings'},
)
SPACE = {'width': 8, 'depth': 1, 'image_size': 16}
RANKINGS = [(by, None) for by in ('logme', 'probe', 'random')]
RANKINGS += [(by, embedding) for by in ('otdd', 'sliced', 'static') for embedding in ('pixels', 'random_conv')]
SEEDED = ('probe', 'random')
"""Rankings that depend on the seed; the others are made once for a target."""
HEADS = ('ot', 'random', 'ridge', 'prototype')

rows = Rows(HERE / 'choice.jsonl', ('kind', 'target', 'seed', 'source', 'by', 'embedding', 'head'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', type=Path, default=Path('.choice-zoo'), help='folder of the sources (default: .choice-zoo)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2], help='seeds of the transfers (default: 1 2)')
    parser.add_argument(
        '--part', type=int, nargs=2, default=(0, 1), metavar=('I', 'N'), help='every Nth target, from the Ith'
    )
    parser.add_argument('--report', action='store_true', help='write table and figure, run nothing')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if not arguments.report:
        zoo = SupernetZoo(arguments.zoo)
        first, step = arguments.part
        for name in SOURCES[first::step]:
            pretrained(zoo, name, arguments.data)
        while not all(name in zoo for name in SOURCES):  # the other parts are still at it
            time.sleep(10)
        entries = {entry.name: entry for entry in zoo.entries()}
        for seed in arguments.seeds:
            for target in [*TARGETS, *DEVELOPMENT][first::step]:
                run_target(target, seed, entries, arguments.data)
    report(rows.all())


def pretrained(zoo: SupernetZoo, name: str, folder: Path) -> None:
    """Pretrain a source if the zoo has none of that name; sketch its data if they are not sketched."""
    task = from_npz(folder / f'{name}.npz')
    if name in zoo:
        supernet = zoo[name]
        if not supernet.sketches:
            zoo.add(supernet.sketched(task))
        return
    document = {
        'data': [{'npz': {'path': str(folder / f'{name}.npz')}}],
        'space': {'name': 'nasbench201', **SPACE},
        'evaluator': {'max_epochs': 15, 'steps_per_epoch': 100, 'learning_rate': 0.1, 'weight_decay': 5e-4},
        'strategy': {'name': 'DARTS', 'arc_learning_rate': 1e-3, 'gradient_clip_val': 5.0},
    }
    with tempfile.TemporaryDirectory() as log:
        zoo.add(pretrain(parse_pretrain(document, Path()), name=name, seed=0, out=log))


def run_target(target: str, seed: int, entries: dict[str, Any], folder: Path) -> None:
    """Everything there is to measure on one target and is not in the results yet."""
    candidates = [entry for name, entry in entries.items() if name != target]
    task = part(folder, target, 600)
    adapted = task.adapted(3, SPACE['image_size'])
    splits = split(adapted)
    for by, embedding in RANKINGS:
        chance = seed if by in SEEDED else None
        row = {'kind': 'rank', 'target': target, 'source': None, 'seed': chance, 'by': by, 'embedding': embedding}
        if not rows.has(**row):
            start = time.perf_counter()
            ranked = rank(candidates, task, by=by, seed=seed, **({'embedding': embedding} if embedding else {}))
            rows.append(**row, order=[list(entry[:2]) for entry in ranked], seconds=time.perf_counter() - start)
    for source in [None, *candidates]:
        row = {'kind': 'transfer', 'target': target, 'source': source and source.name, 'seed': seed}
        if not rows.has(**row):
            space = functools.partial(create, 'nasbench201', SPACE)
            found = search(space, adapted, seed=seed, epochs=3, source=source, average=0.0)
            rows.append(**{**row, **found, 'source': row['source']})
    nearest = rank(candidates, DatasetSketch.from_dataset(task))[0].name
    for head in HEADS:
        row = {'kind': 'head', 'target': target, 'source': nearest, 'seed': seed, 'head': head}
        if not rows.has(**row):
            torch.manual_seed(seed)
            model = mutate(create('nasbench201', SPACE, task.num_classes), 'DARTS')
            loaders = {'data': DataLoader(splits.train, 256), 'val_data': DataLoader(splits.val, 256)}
            found = transfer(entries[nearest], model, head=head, **loaders)
            rows.append(**row, zero_shot=found.zero_shot_accuracy, chance=1 / task.num_classes)


def report(results: list[dict[str, Any]]) -> None:
    """Write choice.md and choice.png."""
    accuracy: dict[tuple[str, int], dict[str | None, float]] = defaultdict(dict)
    for row in results:
        if row['kind'] == 'transfer':
            accuracy[row['target'], row['seed']][row['source']] = row['test_accuracy']
    complete = {each for each, found in accuracy.items() if len(found) == len(SOURCES) + 1 - (each[0] in SOURCES)}
    losses: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in (row for row in results if row['kind'] == 'rank'):
        name = row['by'] + (f', {row["embedding"]}' if row['embedding'] else '')
        seconds[name].append(row['seconds'])
        for target, seed in complete:
            if target == row['target'] and row['seed'] in (None, seed):
                found = accuracy[target, seed]
                losses[name][target, seed] = max(v for k, v in found.items() if k) - found[row['order'][0][0]]
    for case in complete:
        warm = [value for source, value in accuracy[case].items() if source]
        losses['(mean over sources)'][case] = max(warm) - statistics.mean(warm)
        losses['(worst source)'][case] = max(warm) - min(warm)
        losses['(cold start)'][case] = max(warm) - accuracy[case][None]
    lines = [
        f'Accuracy lost against the best of {len(SOURCES)} sources in hindsight: percentage points of test accuracy after '
        f'three epochs, mean over {len({t for t, _ in complete})} targets. "New" ones were not looked at while the rankings '
        'were made; by seed: the mean and the number of new targets.',
        '',
        '| ranking | new targets | by seed | all targets | worst target | seconds for a zoo of 16 |',
        '|---' * 6 + '|',
    ]
    table = []
    for name, by_case in losses.items():
        by_target: dict[str, list[float]] = defaultdict(list)
        by_seed: dict[int, list[float]] = defaultdict(list)
        for (target, seed), value in by_case.items():
            by_target[target].append(100 * value)
            if target in TARGETS:
                by_seed[seed].append(100 * value)
        means = {target: mean(values) for target, values in by_target.items()}
        new = mean(value for target, value in means.items() if target in TARGETS)
        seeds = ', '.join(f'{seed}: {mean(values):.2f} ({len(values)})' for seed, values in sorted(by_seed.items()))
        spent = f'{statistics.median(seconds[name]):.1f}' if name in seconds else '-'
        table.append((new, name, f'{seeds} | {mean(means.values()):.2f} | {max(means.values()):.1f} | {spent}'))
    lines += [f'| {name} | {lost:.2f} | {rest} |' for lost, name, rest in sorted(table)]
    lines += ['', *heads(results)]
    text = '\n'.join(lines) + '\n'
    (HERE / 'choice.md').write_text(text)
    print(text)
    draw(table)


def mean(values: Iterable[float]) -> float:
    return statistics.mean(list(values) or [0.0])


def heads(results: list[dict[str, Any]]) -> list[str]:
    """Accuracy before any training from the nearest source, by head."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    chance, nearest = {}, {}
    for row in results:
        if row['kind'] == 'head':
            found[row['target']][row['head']].append(row['zero_shot'])
            chance[row['target']], nearest[row['target']] = row['chance'], row['source']
    if not found:
        return []
    lines = [
        'Accuracy before any training, from the nearest source by otdd (mean over seeds):',
        '',
        f'| target | nearest source | same family | chance | {" | ".join(HEADS)} |',
        '|---' * (4 + len(HEADS)) + '|',
    ]
    ratios, above = [], 0
    for target, by_head in sorted(found.items()):
        family = any({target, nearest[target]} <= family for family in FAMILIES)
        means = {head: statistics.mean(by_head[head]) for head in HEADS if by_head[head]}
        if family:
            ratios.append(means['ot'] / chance[target])
        above += means['ot'] > means['random']
        cells = ' | '.join(f'{means[head]:.3f}' for head in HEADS)
        lines.append(f'| {target} | {nearest[target]} | {"yes" if family else "no"} | {chance[target]:.3f} | {cells} |')
    lines.append(
        f"\nhead='ot' over chance, median over the {len(ratios)} targets whose nearest source is of their family: "
        f'{statistics.median(ratios or [0]):.1f}; above the random head on {above} of {len(found)} targets.'
    )
    return lines


def draw(table: list[tuple[float, str, str]]) -> None:
    table = sorted(table, reverse=True)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    controls = ('random', 'static', '(')
    colours = ['tab:grey' if name.startswith(controls) else 'tab:orange' for _, name, _ in table]
    axes.barh([name for _, name, _ in table], [new for new, _, _ in table], color=colours)
    axes.set(xlabel='accuracy lost against the best source (pp, new targets)', title='Choosing one of 16 sources')
    save(figure, HERE / 'choice.png')


if __name__ == '__main__':
    main()
