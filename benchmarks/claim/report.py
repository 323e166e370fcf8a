"""Tables of the claim: summary.json and claim.md from the rows of claim.jsonl; figures.py draws them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.claim.comparison import (
    Found,
    Row,
    Table,
    against,
    better_cold,
    controls_in,
    over_copy,
    summarise,
    table,
    zero_shot,
)
from benchmarks.claim.figures import draw
from benchmarks.claim.searches import SPACE
from nni_warmstart.utils.files import write_json

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
OF_SPACES = {
    ('darts', 5): {REQUIRED[0][0]: (5, 10), REQUIRED[2][0]: (10, 20)},
    ('darts', 8): {REQUIRED[0][0]: (3, 8)},
}
"""What is required and aimed at in other spaces (name, number of cells), where it differs."""
NETWORKS = 'networks.json'
"""What networks.py found about the architectures."""


def report(rows: list[Row], out: Path, space: dict[str, Any] = SPACE) -> dict[str, Any]:
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
    (out / 'claim.md').write_text('\n'.join(document(tables, summary, rows, space)) + '\n')
    if tables.get('warm'):
        draw(by_task, tables['warm'], time_parts(rows), out)
    return summary


def rounded(value: Any) -> Any:
    """Figures to nine digits after the point: Pythons before 3.12 sum differently beyond."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 9) if isinstance(value, float) else value


def networks(rows: list[Row], out: Path) -> dict[str, Any]:
    """What networks.py wrote, if it is of the same recipe."""
    found = json.loads((out / NETWORKS).read_text()) if (out / NETWORKS).exists() else {}
    return found if rows and found.get('recipe') == rows[-1]['recipe'] else {}


def document(tables: dict[str, Table], summary: dict[str, Any], rows: list[Row], space: dict[str, Any]) -> list[str]:
    """Lines of claim.md."""
    arguments = ', '.join(f'{name}: {value}' for name, value in space.items())
    other = '' if space == SPACE else f" --space '{{{arguments}}}'"
    lines = [
        '# The claim',
        '',
        f'Made by `python benchmarks/claim/run.py --data DIR --zoo ZOO{other}`; summary.json has the same figures.',
        '',
    ]
    lines += required(summary, (space['name'], space.get('num_cells')))
    for side, title in (('warm', 'Main table: the dataset left out'), ('strict', 'Strict table: its whole family left out')):
        if tables.get(side):
            lines += ['', f'## {title}', '', *task_table(tables[side])]
    if summary['against_better_cold']:
        lines += better_cold_lines(summary['against_better_cold'])
    controls = {side: own for side, own in summary['controls'].items() if own.get('tasks')}
    if controls:
        lines += control_table(controls)
    if tables.get('warm'):
        lines += ['', '## Where the time goes', '', 'Mean of the warm searches, all their epochs.', '']
        parts = time_parts(rows)
        lines += ['| part | seconds | share |', '|---|---|---|']
        lines += [f'| {name} | {value:.2f} | {value / sum(parts.values()):.0%} |' for name, value in parts.items()]
        lines += ['', *(f'![{name}](claim_{name}.png)' for name in ('curves', 'speedup', 'accuracy', 'zero_shot', 'time'))]
    return lines


def better_cold_lines(better: dict[str, Any]) -> list[str]:
    """Text on the better of two cold searches."""
    least, share = better['worst_loss'], better['share_positive']
    return [
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


def control_table(controls: dict[str, dict[str, Any]]) -> list[str]:
    """Table of the controls, beside each the warm searches of the same tasks and seeds."""
    lines = [
        '',
        '## Controls',
        '',
        'Beside each its speedup in epochs is that of the warm searches of the same tasks and seeds.',
        '',
        '| search | tasks | runs | failed | speedup, epochs | of warm | share >= 2 | difference | of warm |',
        '|---' * 9 + '|',
    ]
    for side, own in controls.items():
        warm = own['warm']
        lines.append(
            f'| {side} | {own["tasks"]} | {own["runs"]} | {own["failed_runs"]} | {own["speedup_epochs_geomean"]:.2f} | '
            f'{warm["speedup_epochs_geomean"]:.2f} | {own["share_speedup_2"]:.0%} | {own["mean_difference"]:+.1f} | '
            f'{warm["mean_difference"]:+.1f} |'
        )
    return lines


def required(summary: dict[str, Any], space: tuple[str, int | None]) -> list[str]:
    lines = ['| what | measured | required | aim | |', '|---' * 5 + '|']
    for what, value_of, *bounds, more in REQUIRED:
        least, aim = OF_SPACES.get(space, {}).get(what, bounds)
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


def time_parts(rows: list[Row]) -> dict[str, float]:
    """Mean seconds of the parts of a warm search."""
    warm = [row for row in rows if row['side'] == 'warm']
    parts: dict[str, float] = defaultdict(float)
    for row in warm:
        for name, value in {**row['start_seconds'], 'search': sum(row['epoch_seconds'])}.items():
            parts[name] += value / len(warm)
    return dict(parts)
