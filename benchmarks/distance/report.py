"""Table and figure of the distances: distance.md and sliced.png."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.figures import plt, save

HERE = Path(__file__).resolve().parent


def report(found: dict[str, dict[str, Any]]) -> None:
    """Write distance.md and sliced.png."""
    lines = ['| measured | found |', '|---|---|']
    if 'agreement' in found:
        row = found['agreement']
        low, high = row['peer']
        lines += [
            f'| largest relative error against brute force, {row["cases"]} cases | {row["largest_relative_error"]:.1e} |',
            f"| microsoft/otdd's values against brute force | {low:+.1%} to {high:+.1%} |",
        ]
    if 'laws' in found:
        row = found['laws']
        lines += [
            f'| self-distance, in typical distances (exact, 12 tasks) | {row["self_distance"]:.1e} |',
            f'| asymmetry, in typical distances | {row["asymmetry"]:.1e} |',
            f'| largest excess over the triangle inequality, {row["triples"]} triples | {row["triangle_excess"]:.3f} '
            '(none: below 0) |',
        ]
    for embedding in ('pixels', 'random_conv'):
        if f'sliced, {embedding}' in found:
            row = found[f'sliced, {embedding}']
            spearman = ', '.join(f'{value:.3f}' for value in row['spearman_sliced'])
            spread = row['relative_spread_over_seeds']
            lines += [
                f'| sliced with exact, Spearman over {row["pairs"]} pairs of tasks, {embedding}, 3 seeds | {spearman} |',
                f'| gaussian with exact, the same pairs | {row["spearman_gaussian"]:.3f} |',
                f'| spread of a sliced value over seeds, {embedding} | {spread["mean"]:.1%} on average, '
                f'{spread["largest"]:.1%} at most |',
            ]
    if 'ranking' in found:
        row = found['ranking']
        cells = ', '.join(f'{by} {value:.1f} s' for by, value in row['seconds'].items())
        lines.append(f'| ranking {row["entries"]} entries, the new dataset sketched | {cells} |')
    lines += ['', *speed_table(found)]
    text = '\n'.join(lines) + '\n'
    (HERE / 'distance.md').write_text(text)
    print(text)
    if 'scaling' in found:
        draw(found['scaling']['values'])


def speed_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        'Seconds on one thread, medians; the peer in single precision, its default, and in double precision where single '
        'fails on some pairs.',
        '',
        '| features, pair, samples, method | ours | otdd | ratio | otdd, double | ratio | ours / emd |',
        '|---' * 7 + '|',
    ]
    for name, row in found.items():
        if not name.startswith('speed'):
            continue
        values = row['values']
        failure = values['peer']['failure']
        peer = 'fails' if failure else f'{row["peer"]:.2f}'
        ratio = '-' if failure else f'{row["peer"] / row["ours"]:.1f}'
        double = row.get('peer, double')
        bare = row['ours'] / statistics.median(values['ours']['bare_emd'])
        lines.append(
            f'| {name.removeprefix("speed, ")} | {row["ours"]:.2f} | {peer} | {ratio} | '
            + (f'{double:.1f} | {double / row["ours"]:.0f}' if double else '- | -')
            + f' | {bare:.2f} |'
        )
    if len(lines) == 4:
        return []
    lines += ['', '| peak memory above the start, MB | ours | otdd |', '|---|---|---|']
    for name, row in found.items():
        if name.startswith('memory'):
            lines.append(f'| {name.removeprefix("memory, ")} | {row["ours"]:.0f} | {row["peer"]:.0f} |')
    return lines


def draw(values: dict[str, dict[str, float]]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    sizes = np.array([int(n) for n in values])
    for method in ('sliced', 'gaussian'):
        mine = [(int(n), seconds[method]) for n, seconds in values.items() if method in seconds]
        axes.loglog(
            *zip(*mine, strict=True), marker='o', label=f'{method}{" (linear programme)" if method == "gaussian" else ""}'
        )
    first = values[next(iter(values))]['sliced']
    guide = first * sizes * np.log(sizes) / (sizes[0] * np.log(sizes[0]))
    axes.loglog(sizes, guide, linestyle=':', color='grey', label='n log n')
    axes.set(xlabel='samples on each side', ylabel='seconds (one thread)', title='Dataset distance, 64 dimensions')
    axes.legend()
    save(figure, HERE / 'sliced.png')
