"""Cold searches against others: figures of each task, and of all together."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from nni_warmstart.utils.metrics import epochs_to, final_accuracy

Row = dict[str, Any]
Found = dict[str, dict[int, Row]]
"""Side -> seed -> row, of one task."""
Table = dict[str, dict[str, Any]]
"""Task -> figures."""


def controls_in(rows: list[Row]) -> list[str]:
    return [side for side in dict.fromkeys(row['side'] for row in rows) if side not in ('cold', 'warm', 'strict')]


def better_cold(found: Found) -> Found:
    """Choose of two cold searches of a seed, with and without random crops, the one that ends higher."""
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


def compare(cold: Row, warm: Row) -> dict[str, Any]:
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


def timed_alike(cold: Row, warm: Row) -> bool:
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


def zero_shot(rows: list[Row]) -> float | None:
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
    """Standard error of the difference of two means over seeds; 0 for a single seed."""
    if len(cold) < 2:
        return 0.0
    return math.sqrt(statistics.variance(cold) / len(cold) + statistics.variance(warm) / len(warm))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of 95 % of the geometric means of bootstraps over tasks."""
    generator = random.Random(0)
    drawn = sorted(geometric(generator.choices(values, k=len(values))) for _ in range(2000))
    return drawn[50], drawn[1949]
