"""Figures of the claim: claim_*.png."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.common.figures import plt, save

COLOURS = {'cold': 'tab:blue', 'warm': 'tab:orange'}
DPI = 110


def draw(by_task: dict[str, Any], found: dict[str, dict[str, Any]], parts: dict[str, float], out: Path) -> None:
    """Draw everything: rows by task, side and seed; the figures of the main table; mean seconds of the parts of a search."""
    order = sorted(found, key=lambda task: found[task]['speedup_epochs'])
    save(curves(by_task, found, order[::-1]), out / 'claim_curves.png', DPI)
    save(speedups(found, order), out / 'claim_speedup.png', DPI)
    save(differences(found), out / 'claim_accuracy.png', DPI)
    save(before_training(found), out / 'claim_zero_shot.png', DPI)
    save(times(parts), out / 'claim_time.png', DPI)


def curves(by_task: dict[str, Any], found: dict[str, dict[str, Any]], order: list[str]) -> Any:
    """Accuracy over epochs, a panel per task."""
    columns, height = 5, -(-len(order) // 5)
    figure, grid = plt.subplots(height, columns, figsize=(3 * columns, 2.2 * height), squeeze=False)
    for axes in grid.flat[len(order) :]:
        axes.set_axis_off()
    for axes, task in zip(grid.flat, order, strict=False):
        for side, colour in COLOURS.items():
            for row in by_task[task][side].values():
                axes.plot(range(1, len(row['curve']) + 1), row['curve'], color=colour, alpha=0.6, linewidth=1)
        axes.axhline(found[task]['cold'], color='tab:blue', linewidth=0.6, linestyle=':')
        axes.set_title(task, fontsize=8)
        axes.tick_params(labelsize=6)
    handles = [plt.Line2D([], [], color=colour, label=side) for side, colour in COLOURS.items()]
    figure.legend(handles=handles, loc='lower right', fontsize=8)
    figure.supxlabel('epoch', fontsize=9)
    figure.supylabel('validation accuracy', fontsize=9)
    return figure


def speedups(found: dict[str, dict[str, Any]], order: list[str]) -> Any:
    """Sorted bars with the range over seeds."""
    values = [found[task]['speedup_epochs'] for task in order]
    bars = [[max(0.0, sign * (found[task]['spread'][end] - found[task]['speedup_epochs'])) for task in order]
            for end, sign in ((0, -1), (1, 1))]  # fmt: skip
    mean = statistics.geometric_mean(values)
    figure, axes = plt.subplots(figsize=(7, 0.25 * len(order) + 1))
    axes.barh(order, values, xerr=bars, color='tab:orange', ecolor='grey')
    axes.axvline(1, color='black', linewidth=0.8)
    axes.axvline(mean, color='tab:blue', linestyle='--', label=f'geometric mean {mean:.1f}')
    axes.set(xlabel='cold epochs / warm epochs (bars: range over seeds)', xscale='log')
    ticks = [1, 2, 3, 5, 10, 20]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8)
    return figure


def differences(found: dict[str, dict[str, Any]]) -> Any:
    """Final accuracy, warm minus cold, as sorted bars with the standard error."""
    ends = sorted(found, key=lambda task: found[task]['difference'])
    figure, axes = plt.subplots(figsize=(7, 0.25 * len(ends) + 1))
    axes.barh(
        ends, [100 * found[t]['difference'] for t in ends], xerr=[100 * found[t]['standard_error'] for t in ends],
        color=['tab:orange' if found[t]['difference'] >= 0 else 'tab:grey' for t in ends], ecolor='grey',
    )  # fmt: skip
    axes.set(xlabel='final validation accuracy, warm minus cold (points; bars: standard error)')
    axes.tick_params(labelsize=7)
    return figure


def before_training(found: dict[str, dict[str, Any]]) -> Any:
    """Accuracy before training against chance."""
    figure, axes = plt.subplots(figsize=(4, 4))
    known = [line for line in found.values() if line['zero_shot'] is not None]
    axes.scatter([line['chance'] for line in known], [line['zero_shot'] for line in known], color='tab:orange')
    axes.plot([0, 1], [0, 1], color='grey', linewidth=0.8)
    axes.set(xlabel='chance', ylabel='accuracy before training', xlim=(0, 1), ylim=(0, 1))
    return figure


def times(parts: dict[str, float]) -> Any:
    """What the time of a warm search was spent on, one stacked bar."""
    figure, axes = plt.subplots(figsize=(7, 1.6))
    left = 0.0
    for name, value in parts.items():
        axes.barh(['warm search'], [value], left=left, label=name)
        left += value
    axes.set(xlabel='seconds (mean)')
    axes.legend(fontsize=7, ncol=4, loc='lower center', bbox_to_anchor=(0.5, 1.0))
    return figure
