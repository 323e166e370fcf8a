"""Tables of the claim: summary.json and claim.md from the rows of claim.jsonl; claim_figures.py draws them."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import claim_figures

from nni_warmstart.utils.files import write_json
from nni_warmstart.utils.metrics import epochs_to, final_accuracy

Rows = list[dict[str, Any]]
Found = dict[str, dict[int, dict[str, Any]]]
"""Side -> seed -> row, of one task."""
Table = dict[str, dict[str, Any]]
"""Task -> figures."""

REQUIRED: list[tuple[str, Callable[[dict[str, Any]], float | None], float, float, bool]] = [
    ('speedup in epochs, geometric mean, main table', lambda s: s.get('speedup_epochs_geomean'), 3, 10, True),
    ('the same, strict table', lambda s: s['strict'].get('speedup_epochs_geomean'), 2, 6, True),
    ('speedup in wall-clock, everything counted', lambda s: s.get('speedup_seconds_geomean'), 2.5, 8, True),
    ('share of tasks with speedup of 2 or more', lambda s: s.get('share_speedup_2'), 0.75, 0.95, True),
    ('share of tasks at least as high as cold, equal budget', lambda s: s.get('share_positive'), 0.9, 1, True),
    ("worst task's loss of final accuracy, points", lambda s: s.get('worst_loss'), 1, 0.3, False),
    (
        'share of tasks where its network, retrained, is at least as good, at a quarter of the budget',
        lambda s: s['networks'].get('share_at_least_as_good'),
        0.7,
        0.85,
        True,
    ),
    ('mean difference of the retrained networks, points', lambda s: s['networks'].get('mean_difference'), 0, 1, True),
    ('zero-shot (ridge head) over chance, median', lambda s: s.get('zero_shot_over_chance_median'), 3, 5, True),
    ('recipe over plain copy, geometric mean of speedups', lambda s: s.get('recipe_over_plain_copy_geomean'), 1.5, 3, True),
]
"""What, where it is in the summary, what is required and aimed at, and whether more is better."""

NETWORKS = 'networks.json'
"""What claim_networks.py found about the architectures."""


def report(rows: Rows, out: Path) -> dict[str, Any]:
    """Write everything, and give the summary."""
    by_task: dict[str, Found] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_task[row['task']][row['side']][row['seed']] = row
    for found in by_task.values():  # where leaving out the family leaves the same sources, it was not run again
        found['strict'] = found['strict'] or found['warm']
    better = {task: better_cold(found) for task, found in by_task.items() if found['cold, no crops']}
    tables = {side: table(by_task, side) for side in ('warm', 'strict', *controls_in(rows))}
    summary = {
        **summarise(tables.get('warm', {})),
        'strict': summarise(tables.get('strict', {})),
        'controls': {side: against(by_task, side) for side in controls_in(rows)},
        'against_better_cold': summarise(table(better, 'warm')),
        'recipe_over_plain_copy_geomean': over_copy(by_task),
        'zero_shot_over_chance_median': zero_shot(rows),
        'networks': networks(rows, out),
        'equals_upstream': [row['equals_upstream'] for row in rows if 'equals_upstream' in row],
    }
    write_json(out / 'summary.json', rounded(summary))
    (out / 'claim.md').write_text('\n'.join(document(tables, summary, rows)) + '\n')
    if tables.get('warm'):
        claim_figures.draw(by_task, tables['warm'], time_parts(rows), out)
    return summary


def rounded(figures: Any) -> Any:
    """Figures to nine digits after the point: Pythons before 3.12 sum differently beyond."""
    if isinstance(figures, dict):
        return {key: rounded(value) for key, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [rounded(value) for value in figures]
    return round(figures, 9) if isinstance(figures, float) else figures


def networks(rows: Rows, out: Path) -> dict[str, Any]:
    """What claim_networks.py wrote, if it is of the same recipe."""
    found = json.loads((out / NETWORKS).read_text()) if (out / NETWORKS).exists() else {}
    return found if rows and found.get('recipe') == rows[-1]['recipe'] else {}


def controls_in(rows: Rows) -> list[str]:
    return [side for side in dict.fromkeys(row['side'] for row in rows) if side not in ('cold', 'warm', 'strict')]


def better_cold(found: Found) -> Found:
    """Of two cold searches of a seed, with and without random crops, the one that ends higher."""
    both = {seed: (found['cold'][seed], row) for seed, row in found['cold, no crops'].items() if seed in found['cold']}
    best = {seed: max(rows, key=lambda row: final_accuracy(row['curve'])) for seed, rows in both.items()}
    return {'cold': best, 'warm': found['warm']}


def table(by_task: dict[str, Found], side: str) -> Table:
    """How the runs of ``side`` compare with the cold ones of the same seeds.

    The goal is the cold run's final accuracy, reached and held. A search that never reaches it counts as failed, with all
    its epochs spent.
    """
    lines = {}
    for task, found in sorted(by_task.items()):
        seeds = sorted(found['cold'].keys() & found[side].keys())
        if not seeds:
            continue
        cold, warm = ([found[name][seed] for seed in seeds] for name in ('cold', side))
        pairs = [compare(one, other) for one, other in zip(cold, warm, strict=True)]
        ends = [[final_accuracy(row['curve']) for row in rows] for rows in (cold, warm)]
        lines[task] = {
            'seeds': len(seeds),
            'cold': statistics.mean(ends[0]),
            'warm': statistics.mean(ends[1]),
            'cold_epochs': statistics.mean(pair['cold_epochs'] for pair in pairs),
            'warm_epochs': statistics.mean(pair['warm_epochs'] for pair in pairs),
            'failed': sum(pair['failed'] for pair in pairs),
            'speedup_epochs': geometric(pair['speedup_epochs'] for pair in pairs),
            'speedup_seconds': geometric_of(pair['speedup_seconds'] for pair in pairs),
            'spread': (min(p['speedup_epochs'] for p in pairs), max(p['speedup_epochs'] for p in pairs)),
            'difference': statistics.mean(ends[1]) - statistics.mean(ends[0]),
            'standard_error': standard_error(*ends),
            'test_cold': mean_of(row['test_accuracy'] for row in cold),
            'test_warm': mean_of(row['test_accuracy'] for row in warm),
            'zero_shot': mean_of(row.get('zero_shot') for row in warm),
            'chance': 1 / warm[0]['classes'],
            'sources': sorted({row['source'] or '' for row in warm}),
        }
    return lines


def compare(cold: dict[str, Any], warm: dict[str, Any]) -> dict[str, Any]:
    """One seed; seconds of the warm start (choosing, mapping, trying out) count as the warm search's, and are compared only
    with a cold search's of the same series: machines differ from day to day."""
    goal = final_accuracy(cold['curve'])
    slow = epochs_to(cold['curve'], goal) or len(cold['curve'])
    reached = epochs_to(warm['curve'], goal)
    fast = reached or len(warm['curve'])
    seconds = sum(warm.get('start_seconds', {}).values()) + sum(warm['epoch_seconds'][:fast])
    return {
        'cold_epochs': slow,
        'warm_epochs': fast,
        'failed': reached is None,
        'speedup_epochs': slow / fast,
        'speedup_seconds': sum(cold['epoch_seconds'][:slow]) / seconds if timed_alike(cold, warm) else None,
    }


def timed_alike(cold: dict[str, Any], warm: dict[str, Any]) -> bool:
    return cold.get('series') == warm.get('series')


def summarise(found: Table) -> dict[str, Any]:
    """Figures over tasks; losses and differences in percentage points."""
    if not found:
        return {}
    lines = list(found.values())
    speedups = [line['speedup_epochs'] for line in lines]
    return {
        'tasks': len(lines),
        'seeds': min(line['seeds'] for line in lines),
        'runs': sum(line['seeds'] for line in lines),
        'failed_runs': sum(line['failed'] for line in lines),
        'speedup_epochs_geomean': geometric(speedups),
        'speedup_epochs_interval': interval(speedups),
        'speedup_epochs_median': statistics.median(speedups),
        'speedup_epochs_worst': min(speedups),
        'speedup_seconds_geomean': geometric_of(line['speedup_seconds'] for line in lines),
        'share_speedup_2': statistics.mean(value >= 2 for value in speedups),
        'share_positive': statistics.mean(line['difference'] >= -line['standard_error'] / 2 for line in lines),
        'mean_difference': 100 * statistics.mean(line['difference'] for line in lines),
        'worst_loss': max(0.0, *(-100 * line['difference'] for line in lines)),
        'mean_test_difference': mean_of(
            100 * (line['test_warm'] - line['test_cold']) for line in lines if line['test_warm'] is not None
        ),
    }


def against(by_task: dict[str, Found], side: str) -> dict[str, Any]:
    """Figures of a control, and those of the warm searches of the same tasks and seeds."""
    return {**summarise(table(by_task, side)), 'warm': summarise(warm_like(by_task, side))}


def warm_like(by_task: dict[str, Found], side: str) -> Table:
    """The warm searches of the tasks and seeds that ``side`` has."""
    kept = {
        task: {**found, 'warm': {seed: row for seed, row in found['warm'].items() if seed in found[side]}}
        for task, found in by_task.items()
    }
    return table(kept, 'warm')


def over_copy(by_task: dict[str, Found]) -> float | None:
    """Speedup of the recipe over that of a plain copy, on the tasks and seeds that have both."""
    ours, copies = warm_like(by_task, 'plain copy'), table(by_task, 'plain copy')
    ratios = [ours[task]['speedup_epochs'] / copies[task]['speedup_epochs'] for task in ours.keys() & copies.keys()]
    return geometric(ratios) if ratios else None


def zero_shot(rows: Rows) -> float | None:
    ratios = [row['zero_shot'] * row['classes'] for row in rows if row['side'] == 'warm' and row.get('zero_shot')]
    return statistics.median(ratios) if ratios else None


def geometric(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)


def geometric_of(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return geometric(there) if there else None


def mean_of(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.mean(there) if there else None


def standard_error(cold: Sequence[float], warm: Sequence[float]) -> float:
    """Of the difference of two means over seeds; 0 for a single seed."""
    if len(cold) < 2:
        return 0.0
    return math.sqrt(statistics.variance(cold) / len(cold) + statistics.variance(warm) / len(warm))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of the geometric means of bootstraps over tasks."""
    generator = random.Random(0)
    drawn = sorted(geometric(generator.choices(values, k=len(values))) for _ in range(2000))
    return drawn[50], drawn[1949]


def document(tables: dict[str, Table], summary: dict[str, Any], rows: Rows) -> list[str]:
    """Lines of claim.md."""
    lines = [
        '# The claim',
        '',
        'Made by `python benchmarks/claim.py --data DIR --zoo ZOO`; summary.json has the same figures.',
        '',
    ]
    lines += required(summary)
    for side, title in (('warm', 'Main table: the dataset left out'), ('strict', 'Strict table: its whole family left out')):
        if tables.get(side):
            lines += ['', f'## {title}', '', *task_table(tables[side])]
    better = summary['against_better_cold']
    if better:
        least, share = better['worst_loss'], better['share_positive']
        lines += [
            '',
            '## Against the better of two cold searches',
            '',
            'Random crops slow cold searches on some tasks. Where the goal is that of the cold search with or without them,',
            f'whichever ends higher, on {better["tasks"]} tasks: {better["speedup_epochs_geomean"]:.2f} times fewer epochs '
            '(geometric mean),',
            f'{better["share_speedup_2"]:.0%} of the tasks at least twice as fast, {better["failed_runs"]} of '
            f'{better["runs"]} searches do not reach it;',
            f'final accuracy {better["mean_difference"]:+.1f} points (mean), worst loss {least:.1f}, at least as high on '
            f'{share:.0%}.',
        ]
    if any(own.get('tasks') for own in summary['controls'].values()):
        lines += [
            '',
            '## Controls',
            '',
            'Beside each its speedup in epochs is that of the warm searches of the same tasks and seeds.',
            '',
            '| search | tasks | runs | failed | speedup, epochs | of warm | share >= 2 | difference | of warm |',
            '|---' * 9 + '|',
        ]
        for side, own in summary['controls'].items():
            if own.get('tasks'):
                warm = own['warm']
                lines.append(
                    f'| {side} | {own["tasks"]} | {own["runs"]} | {own["failed_runs"]} | '
                    f'{own["speedup_epochs_geomean"]:.2f} | {warm["speedup_epochs_geomean"]:.2f} | '
                    f'{own["share_speedup_2"]:.0%} | {own["mean_difference"]:+.1f} | '
                    f'{warm["mean_difference"]:+.1f} |'
                )
    if tables.get('warm'):
        lines += ['', '## Where the time goes', '', 'Mean of the warm searches, all their epochs.', '']
        parts = time_parts(rows)
        lines += ['| part | seconds | share |', '|---|---|---|']
        lines += [f'| {name} | {value:.2f} | {value / sum(parts.values()):.0%} |' for name, value in parts.items()]
        lines += ['', *(f'![{name}](claim_{name}.png)' for name in ('curves', 'speedup', 'accuracy', 'zero_shot', 'time'))]
    return lines


def required(summary: dict[str, Any]) -> list[str]:
    lines = ['| what | measured | required | aim | |', '|---' * 5 + '|']
    for what, value_of, least, aim, more in REQUIRED:
        value = value_of(summary)
        if value is None:
            lines.append(f'| {what} | not run | {least:g} | {aim:g} | |')
            continue
        met = [(value >= bound) if more else (value <= bound) for bound in (least, aim)]
        verdict = 'aim met' if met[1] else 'met' if met[0] else '**missed**'
        lines.append(f'| {what} | {value:.2f} | {least:g} | {aim:g} | {verdict} |')
    return lines


def task_table(found: Table) -> list[str]:
    lines = [
        'Validation accuracy of the supernet, mean of the last three epochs. Epochs: to the cold final accuracy, reached',
        'and held. Spread: over seeds. Difference: warm minus cold, points, with its standard error.',
        '',
        '| task | seeds | before training (chance) | cold | warm | epochs cold | epochs warm | speedup (spread) '
        '| in seconds | difference | test cold / warm | source |',
        '|---' * 12 + '|',
    ]
    for task, line in sorted(found.items(), key=lambda item: -item[1]['speedup_epochs']):
        tests = ' / '.join(number(line[key], 3) for key in ('test_cold', 'test_warm'))
        zero = '-' if line['zero_shot'] is None else f'{line["zero_shot"]:.2f} ({line["chance"]:.2f})'
        failed = f', {line["failed"]} failed' if line['failed'] else ''
        lines.append(
            f'| {task} | {line["seeds"]} | {zero} | {line["cold"]:.3f} | {line["warm"]:.3f} | {line["cold_epochs"]:.1f} | '
            f'{line["warm_epochs"]:.1f}{failed} | {line["speedup_epochs"]:.1f} ({line["spread"][0]:.1f} to '
            f'{line["spread"][1]:.1f}) | {number(line["speedup_seconds"], 1)} | {100 * line["difference"]:+.1f} ± '
            f'{100 * line["standard_error"]:.1f} | {tests} | {", ".join(line["sources"])} |'
        )
    total = summarise(found)
    low, high = total['speedup_epochs_interval']
    mean, median, worst = (total[f'speedup_epochs_{name}'] for name in ('geomean', 'median', 'worst'))
    return [
        *lines,
        '',
        f'Speedup in epochs: geometric mean {mean:.2f} (95 % of bootstraps over tasks: {low:.2f} to {high:.2f}), median',
        f'{median:.2f}, worst {worst:.2f}; in seconds, of pairs timed in one series, '
        f'{number(total["speedup_seconds_geomean"], 2)}. {total["failed_runs"]} of',
        f'{total["runs"]} searches never reach the goal.',
    ]


def number(value: float | None, digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def time_parts(rows: Rows) -> dict[str, float]:
    """Mean seconds of the parts of a warm search."""
    warm = [row for row in rows if row['side'] == 'warm']
    parts: dict[str, float] = defaultdict(float)
    for row in warm:
        for name, value in {**row['start_seconds'], 'search': sum(row['epoch_seconds'])}.items():
            parts[name] += value / len(warm)
    return dict(parts)
