"""Tables and figure of pretraining: pretraining.md and pretraining.png."""

from __future__ import annotations

import statistics
from collections import defaultdict

from benchmarks.common.figures import plt, save
from benchmarks.pretraining.settings import (
    ABLATION,
    ABLATION_EPOCHS,
    ADDED,
    COLD,
    DEVELOPMENT,
    HERE,
    JOINT,
    LONG,
    MORE,
    SOURCES,
    WARM,
    ablation,
    costs,
    sequence,
    targets,
)
from nni_warmstart.utils.metrics import epochs_to, final_accuracy


def report() -> None:
    """Write pretraining.md and pretraining.png."""
    lines = ['# Sources from many datasets', '', 'Made by `python benchmarks/pretraining/run.py STEP --data DIR --zoo DIR`.']
    lines += [*report_targets(), *report_cost(), *report_ablation(), *report_sequence()]
    (HERE / 'pretraining.md').write_text('\n'.join(lines) + '\n')


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
    joint = '+'.join(JOINT)
    if len(seconds) < len(JOINT) + 1:
        return []
    alone = [statistics.mean(seconds[name][k] for name in JOINT) for k in range(len(seconds[joint]))]
    ratios = [a / b for a, b in zip(seconds[joint], alone, strict=True)]
    return [
        '',
        '## Cost of a joint step',
        '',
        f'A step on one batch of one of {len(JOINT)} datasets (weights and alphas) takes '
        f'{statistics.median(ratios):.2f} times as long as the mean step of {len(JOINT)} separate trainings '
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
        f'Pretrained for {100 * ABLATION_EPOCHS} steps each on the {len(JOINT)} datasets; test accuracy after {WARM}',
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
    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.scatter(*zip(*points, strict=True), color='tab:orange', alpha=0.7, label='one search')
    sizes = sorted({size for size, _ in points})
    means = [statistics.geometric_mean(ratio for size, ratio in points if size == each) for each in sizes]
    axes.plot(sizes, means, color='tab:blue', label='geometric mean')
    axes.axhline(1, color='tab:grey', linewidth=0.8)
    axes.set(xlabel='supernets in the zoo', ylabel='cold epochs / warm epochs', yscale='log')
    axes.legend()
    save(figure, HERE / 'pretraining.png')
