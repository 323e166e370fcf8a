"""Is one supernet from many datasets a better source than the best from one, what does it cost, and what makes it good?

    python benchmarks/pretraining.py targets  --data DIR    # warm starts on tasks that no source has seen
    python benchmarks/pretraining.py cost     --data DIR    # a joint step against steps on each dataset alone
    python benchmarks/pretraining.py ablation --data DIR    # sampling, batch norm, augmentation; three seeds
    python benchmarks/pretraining.py sequence --data DIR    # ten tasks, the zoo growing from empty
    python benchmarks/pretraining.py report                 # results/pretraining.md and .png

All steps are resumable, one JSON line per run; `--part I N` shares the work. Sources are the shipped supernets: the
joint one of 12 datasets, and eight of one dataset each (of the five Omniglot alphabets one). Two more, of all photographs of
clothing and groceries that the joint one has seen, are made first, into --more:

    python benchmarks/photographs.py --data DIR
    python benchmarks/rebuild_zoo.py --data DIR --zoo MORE nasbench201-w8-clothing_3k nasbench201-w8-grocery_3k
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import yaml
from common import RESULTS, Rows, load, search
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything
from pytorch_lightning.callbacks import Callback

from nni_warmstart import JointClassification, Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import quiet
from nni_warmstart.data import Task, split
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.utils.metrics import epochs_to, final_accuracy
from nni_warmstart.zoo.ranking import rank
from nni_warmstart.zoo.zoo import open_zoo

RECIPE = yaml.safe_load((Path(__file__).resolve().parent / 'pretrain_shipped.yml').read_text())
DATASETS = [Path(item['npz']['path']).stem for item in RECIPE['data']]
SOURCES = [
    'fashion_mnist', 'clothing', 'omniglot_latin', 'grocery', 'emoji_category', 'notmnist', 'braille', 'blood_cells',
]  # fmt: skip
MORE = ['clothing_3k', 'grocery_3k']
DEVELOPMENT = ['kannada_digits', 'plant_seedlings', 'sign_digits']
"""Tasks that were looked at while recipes were made."""
TARGETS = [
    'mnist', 'math_symbols', 'gtsrb', 'flowers5', 'spoken_digits', 'steel_defects', 'quickdraw3', 'house_rooms', 'dog_cat',
    'solar_cells', 'cifar10', 'tinyimagenet_things', 'tinyimagenet_animals', 'usps', 'digits8x8',
]  # fmt: skip
"""All other tasks of families that no source has seen, without the X-rays that the claim was tuned on."""
ADDED = TARGETS[12:]
"""After a first look at the others."""
SEQUENCE = [
    'mnist', 'flowers5', 'usps', 'spoken_digits', 'math_symbols', 'cifar10', 'steel_defects', 'tinyimagenet_things',
    'quickdraw3', 'gtsrb',
]  # fmt: skip
ORDERS = {'forwards': SEQUENCE, 'backwards': SEQUENCE[::-1]}
COLD, WARM, LONG = 20, 5, 10
ABLATION: dict[str, dict[str, Any]] = {
    'recipe': {},
    'draws ~ n': {'temperature': 1.0},
    'draws equal': {'temperature': 1e6},
    'batch norm per dataset': {'batch_norm': 'per_dataset'},
    'no augmentation': {'jitter': 0.0},
    'crop for jitter': {'jitter': 0.0, 'crop': 0.125},
    '+ flips of photographs': {'flip': ['clothing', 'grocery', 'blood_cells']},
    '+ cutout': {'cutout': 0.4},
    '+ label smoothing': {'label_smoothing': 0.1},
    '+ drop path': {'drop_path': 0.2},
}
"""What each variant changes in the recipe."""
ABLATION_EPOCHS = 6

targets = Rows('pretraining_targets.jsonl', ('target', 'source', 'epochs', 'seed'))
costs = Rows('pretraining_cost.jsonl', ('datasets', 'repeat'))
ablation = Rows('pretraining_ablation.jsonl', ('variant', 'seed', 'target'))
sequence = Rows('pretraining_sequence.jsonl', ('order', 'place'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', choices=['targets', 'cost', 'ablation', 'sequence', 'report'])
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', help='zoo of the sources (default: the shipped one)')
    parser.add_argument('--more', type=Path, default=Path('.more-zoo'), help='zoo of the two that are not shipped')
    parser.add_argument('--growing', type=Path, default=Path('.growing-zoo'), help='folder for the zoos of `sequence`')
    seeds = "of the searches (default: 1); further ones with the joint and the single sources and 'auto' only"
    parser.add_argument('--seeds', type=int, nargs='+', default=[1], help=seeds)
    parser.add_argument('--part', type=int, nargs=2, default=(0, 1), metavar=('I', 'N'), help='every Nth run, from the Ith')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if arguments.step != 'report':
        {'targets': run_targets, 'cost': run_cost, 'ablation': run_ablation, 'sequence': run_sequence}[arguments.step](
            arguments
        )
    report()


def space(classes: int) -> Any:
    return create('nasbench201', {'width': 8, 'depth': 1, 'image_size': 16}, classes)


def run_targets(arguments: argparse.Namespace) -> None:
    part, parts = arguments.part
    zoo = open_zoo(arguments.zoo)
    singles = {name: zoo[f'nasbench201-w8-{name}'].renamed(name) for name in SOURCES}
    more = {name: SupernetZoo(arguments.more)[f'nasbench201-w8-{name}'].renamed(name) for name in MORE}
    for seed in arguments.seeds:
        for target in TARGETS[part::parts]:
            task = load(arguments.data, target)
            runs: list[tuple[str, int, Any]] = [('joint', WARM, 'joint')]
            runs += [*((name, WARM, each) for name, each in {**singles, **more}.items()), ('auto', WARM, 'auto')]
            if seed == arguments.seeds[0]:
                near = [singles[each.name] for each in rank(list(singles.values()), split(task).train)[:2]]
                runs += [('nearest', WARM, near[0]), ('fused', WARM, near)]
                runs += [('cold', COLD, None), ('cold', WARM, None)]
            for name, epochs, source in runs:
                row = {'target': target, 'source': name, 'epochs': epochs, 'seed': seed}
                if not targets.has(**row):
                    found = search(space, task, seed=seed, epochs=epochs, source=source, zoo=zoo)
                    targets.append(**row, taken=found.pop('source', None), **found)


def run_cost(arguments: argparse.Namespace) -> None:
    """Seconds per step, all datasets together and each alone, one after the other."""
    tasks = {name: load(arguments.data, name, 3000) for name in DATASETS}
    for repeat in range(3):
        for names in [DATASETS, *([name] for name in DATASETS)]:
            row = {'datasets': '+'.join(names), 'repeat': repeat}
            if not costs.has(**row):
                clock = StepClock()
                trained({name: tasks[name] for name in names}, 1, repeat, callbacks=[clock], steps_per_epoch=36)
                costs.append(**row, seconds_per_step=statistics.mean(clock.seconds[2:]), steps=len(clock.seconds))


def run_ablation(arguments: argparse.Namespace) -> None:
    part, parts = arguments.part
    tasks = {name: load(arguments.data, name, 3000) for name in DATASETS}
    runs = [(seed, variant) for seed in (0, 1, 2) for variant in ABLATION]
    for seed, variant in runs[part::parts]:
        if all(ablation.has(variant=variant, seed=seed, target=target) for target in DEVELOPMENT):
            continue
        start = time.perf_counter()
        strategy = trained(tasks, ABLATION_EPOCHS, seed, **ABLATION[variant])
        source = Supernet.from_strategy(strategy, name='ablation')
        seconds = time.perf_counter() - start
        for target in DEVELOPMENT:
            task = load(arguments.data, target)
            found = search(space, task, seed=seed + 1, epochs=WARM, source=source, average=0.0)
            ablation.append(
                variant=variant, seed=seed, target=target, **found, joint_accuracy=strategy.curve[-1]['default'],
                pretraining_seconds=seconds,
            )  # fmt: skip


class StepClock(Callback):
    """Seconds of every training step, weights and alphas, without validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def trained(
    tasks: dict[str, Task], epochs: int, seed: int, callbacks: list[Any] | None = None, **settings: Any
) -> WarmStartDARTS:
    """A strategy that has trained by the shipped recipe, changed by ``settings``."""
    seed_everything(seed, workers=True, verbose=False)
    recipe = {**RECIPE['evaluator'], **settings}
    del recipe['max_epochs']
    strategy = WarmStartDARTS(**{key: value for key, value in RECIPE['strategy'].items() if key != 'name'})
    with tempfile.TemporaryDirectory() as out:
        evaluator = JointClassification(tasks, make_trainer(epochs, out, progress=False, callbacks=callbacks), **recipe)
        strategy(RawFormatModelSpace(space(10), evaluator), SequentialExecutionEngine())
    return strategy


def run_sequence(arguments: argparse.Namespace) -> None:
    """Each task is searched from what the zoo remembers of the earlier ones, and remembered in its turn."""
    part, parts = arguments.part
    for order in list(ORDERS)[part::parts]:
        zoo = SupernetZoo(arguments.growing / order)
        for place, name in enumerate(ORDERS[order]):
            if sequence.has(order=order, place=place):
                continue
            task = load(arguments.data, name)
            row = {'target': name, 'source': 'cold', 'epochs': COLD, 'seed': 1}
            if not targets.has(**row):
                targets.append(**row, **search(space, task, seed=1, epochs=COLD))
            before = {entry: (Path(zoo.root) / f'{entry}.safetensors').read_bytes() for entry in zoo.names()}
            warm = {'source': 'auto', 'zoo': zoo} if before else {}
            epochs = LONG if before else COLD
            found = search(space, task, seed=1, epochs=epochs, save_to=zoo, **warm)
            after = {entry: (Path(zoo.root) / f'{entry}.safetensors').read_bytes() for entry in before}
            sequence.append(order=order, place=place, target=name, zoo=len(before), unchanged=before == after, **found)


def report() -> None:
    """Write results/pretraining.md and results/pretraining.png."""
    lines = ['# Sources from many datasets', '', 'Made by `python benchmarks/pretraining.py STEP --data DIR --zoo DIR`.']
    lines += [*report_targets(), *report_cost(), *report_ablation(), *report_sequence()]
    (RESULTS / 'pretraining.md').write_text('\n'.join(lines) + '\n')


def report_targets() -> list[str]:
    accuracy: dict[str, dict[tuple[str, int], dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in targets.all():
        accuracy[row['target']][row['source'], row['epochs']][row['seed']] = row['test_accuracy']
    lines = [
        '',
        '## One joint source or one of many',
        '',
        f'Test accuracy after {WARM} warm epochs of search on at most 1000 pictures; families of the targets are in no',
        'source. "Best" and "random": the best one in hindsight (of the means over seeds), and the mean, of '
        f'{len(SOURCES + MORE)}',
        'sources of one dataset: eight that are shipped, and two of all the photographs of clothing and groceries that the',
        'joint one has seen. Means over the seeds of joint, these and "auto", which chooses among all that are shipped;',
        '"nearest" and "fused", which choose among the eight, and the cold searches have the first seed only.',
        '',
        f'| target | seeds | cold, {COLD} epochs | cold, {WARM} | random | nearest | fused | best | joint '
        '| joint at least best | auto |',
        '|---' * 11 + '|',
    ]
    columns: dict[str, list[float]] = defaultdict(list)
    wins: dict[str, bool] = {}
    over_shipped: dict[str, bool] = {}
    for target, found in sorted(accuracy.items()):
        seeds = set(found['joint', WARM]).intersection(*(found[name, WARM] for name in [*SOURCES, *MORE, 'auto']))
        if not seeds:
            continue
        singles = {name: statistics.mean(found[name, WARM][seed] for seed in seeds) for name in SOURCES + MORE}
        best = max(singles, key=lambda name: singles[name])
        first = {key: values[min(values)] for key, values in found.items() if values}
        values = {
            f'cold {COLD}': first['cold', COLD], f'cold {WARM}': first['cold', WARM],
            'random': statistics.mean(singles.values()), 'nearest': first['nearest', WARM], 'fused': first['fused', WARM],
            'best': singles[best], 'joint': statistics.mean(found['joint', WARM][seed] for seed in seeds),
        }  # fmt: skip
        for name, value in values.items():
            columns[name].append(value)
        wins[target] = values['joint'] >= values['best']
        over_shipped[target] = values['joint'] >= max(singles[name] for name in SOURCES)
        columns['auto'].append(statistics.mean(found['auto', WARM][seed] for seed in seeds))
        cells = [f'{value:.3f}' + (f' ({best})' if name == 'best' else '') for name, value in values.items()]
        verdict = 'yes' if wins[target] else 'no'
        lines.append(f'| {target} | {len(seeds)} | {" | ".join(cells)} | {verdict} | {columns["auto"][-1]:.3f} |')
    if wins:
        means = [f'{statistics.mean(values):.3f}' for values in columns.values()]
        lines.append(f'| **mean** | | {" | ".join(means[:-1])} | {sum(wins.values())} of {len(wins)} | {means[-1]} |')
        first, over = ([won for target, won in each.items() if target not in ADDED] for each in (wins, over_shipped))
        lines += [
            '',
            f'Without {", ".join(ADDED)}, added after a first look at the others: {sum(first)} of {len(first)}. Against the '
            f'{len(SOURCES)} that are shipped: {sum(over_shipped.values())} of {len(wins)}, and {sum(over)} of {len(over)}.',
        ]
    return lines


def report_cost() -> list[str]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in costs.all():
        seconds[row['datasets']].append(row['seconds_per_step'])
    joint = '+'.join(DATASETS)
    if len(seconds) < len(DATASETS) + 1:
        return []
    alone = [statistics.mean(seconds[name][k] for name in DATASETS) for k in range(len(seconds[joint]))]
    ratios = [a / b for a, b in zip(seconds[joint], alone, strict=True)]
    return [
        '',
        '## Cost of a joint step',
        '',
        f'A step on one batch of one of {len(DATASETS)} datasets (weights and alphas) takes '
        f'{statistics.median(ratios):.2f} times as long as the mean step of {len(DATASETS)} separate trainings '
        f'(median of {len(ratios)}; {min(ratios):.2f} to {max(ratios):.2f}).',
    ]


def report_ablation() -> list[str]:
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    own: dict[str, dict[int, float]] = defaultdict(dict)
    for row in ablation.all():
        found[row['variant']][row['seed']].append(row['test_accuracy'])
        own[row['variant']][row['seed']] = row['joint_accuracy']
    lines = [
        '',
        '## What makes a good source',
        '',
        f'Pretrained for {100 * ABLATION_EPOCHS} steps each on the {len(DATASETS)} datasets; test accuracy after {WARM}',
        f'warm epochs without averaged weights, mean over {", ".join(DEVELOPMENT)}; spread over seeds is the standard',
        'deviation.',
        '',
        '| variant | seeds | warm accuracy | spread | against the recipe, same seeds | accuracy on its own datasets |',
        '|---' * 6 + '|',
    ]
    for variant in ABLATION:
        means = {seed: statistics.mean(v) for seed, v in found[variant].items() if len(v) == len(DEVELOPMENT)}
        if not means:
            continue
        base = [statistics.mean(found['recipe'][seed]) for seed in means]
        values = list(means.values())
        spread = f'{statistics.stdev(values):.3f}' if len(values) > 1 else '-'
        gain = statistics.mean(values) - statistics.mean(base)
        mine = statistics.mean(own[variant][seed] for seed in means)
        lines.append(f'| {variant} | {len(values)} | {statistics.mean(values):.3f} | {spread} | {gain:+.3f} | {mine:.3f} |')
    return lines


def report_sequence() -> list[str]:
    cold = {row['target']: row['curve'] for row in targets.all() if row['source'] == 'cold' and row['epochs'] == COLD}
    lines = [
        '',
        '## A zoo that grows',
        '',
        f'Ten tasks, one after the other; each is searched with `source: auto` for {LONG} epochs, from what the',
        f'zoo remembers of the earlier ones. Epochs: to the final validation accuracy of a cold search of {COLD} epochs,',
        'reached and held.',
        '',
        '| order | task | zoo | source | cold epochs | warm epochs | ratio | stored before unchanged |',
        '|---' * 8 + '|',
    ]
    points = []
    for row in sequence.all():
        if row['target'] not in cold or not row['zoo']:
            continue
        goal = final_accuracy(cold[row['target']])
        slow, fast = epochs_to(cold[row['target']], goal), epochs_to(row['curve'], goal)
        ratio = (slow or COLD) / (fast or COLD)
        points.append((row['zoo'], ratio))
        lines.append(
            f'| {row["order"]} | {row["target"]} | {row["zoo"]} | {row["source"]} | {slow} | {fast or "not"} | '
            f'{ratio:.1f} | {"yes" if row["unchanged"] else "NO"} |'
        )
    if not points:
        return []
    lines += ['', '| supernets in the zoo | searches | geometric mean ratio |', '|---|---|---|']
    for low, high in ((1, 3), (4, 6), (7, 9)):
        ratios = [ratio for size, ratio in points if low <= size <= high]
        if ratios:
            lines.append(f'| {low} to {high} | {len(ratios)} | {statistics.geometric_mean(ratios):.2f} |')
    draw(points)
    return [*lines, '', '![speedup by size of the zoo](pretraining.png)']


def draw(points: list[tuple[int, float]]) -> None:
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.scatter(*zip(*points, strict=True), color='tab:orange', alpha=0.7, label='one search')
    sizes = sorted({size for size, _ in points})
    means = [statistics.geometric_mean(ratio for size, ratio in points if size == each) for each in sizes]
    axes.plot(sizes, means, color='tab:blue', label='geometric mean')
    axes.axhline(1, color='tab:grey', linewidth=0.8)
    axes.set(xlabel='supernets in the zoo', ylabel='cold epochs / warm epochs', yscale='log')
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / 'pretraining.png', dpi=120)
    plt.close(figure)


if __name__ == '__main__':
    main()
