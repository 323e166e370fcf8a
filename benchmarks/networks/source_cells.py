"""The cell of the source, without any search, beside what warm searches found: both trained from scratch.

    python benchmarks/networks/source_cells.py --data DIR    # what source_cells.jsonl lacks, and source_cells.md
    python benchmarks/networks/source_cells.py --report

The searches are the warm ones of claim/networks.py (a quarter of the budget, at most two operations without
parameters in a cell). The cell of a source is what such a search would export if its alphas did not move, as in
ground_truth.jsonl. Trainings and test images are those of claim/networks.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import searches
from benchmarks.claim.networks import TRAININGS, Found, agreement, gaps, run
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe, read
from benchmarks.networks.ground_truth import CLAIM, PACED, ROWS, architecture_of

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of source_cells.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    arguments = parser.parse_args()
    path, found = arguments.out / 'source_cells.jsonl', warm_networks()
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is missing.')
        cells = {row['source']: architecture_of(row['cell']) for row in read(ROWS) if 'source' in row}
        runs = [
            Found(task, seed, 'source', cells[row['source']], seconds=0.0)
            for (task, seed), row in found.items() if seed in arguments.seeds
        ]  # fmt: skip
        setting = searches.Setting(arguments.data, None, searches.SPACE, searches.PICTURES, arguments.out)
        perform(run, sorted(runs, key=lambda each: each.seed), setting, path, arguments.processes)
    (arguments.out / 'source_cells.md').write_text('\n'.join(document(found, of_recipe(path))) + '\n')


def warm_networks() -> dict[tuple[str, int], dict[str, Any]]:
    """Return task and seed -> row of the network that a warm search found."""
    rows = of_recipe(CLAIM / 'claim_networks.jsonl', PACED)
    return {(row['task'], row['seed']): row for row in rows if row['side'] == 'warm'}


def document(found: dict[tuple[str, int], dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of source_cells.md."""
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        pairs[row['task']].append((row, found[row['task'], row['seed']]))
    most = max(map(len, pairs.values()), default=0)
    lines = [
        '# The cell of the source, without any search',
        '',
        'Made by `python benchmarks/networks/source_cells.py --data DIR`. Test accuracy, mean of three trainings from',
        'scratch, of the cell of the source and of the network that a warm search found (a quarter of the budget);',
        f'{most} seed{"s" * (most != 1)} where no other number is given. Error: standard error of the difference over the',
        'trainings, of all seeds.',
        '',
        '| task | source | its cell | warm search | difference, points |',
        '|---' * 5 + '|',
    ]
    differences = []
    for task, both in sorted(pairs.items()):
        each = [gap for pair in both for gap in gaps(pair)]
        means = [statistics.mean(pair[side]['accuracy'][name] for pair in both for name in TRAININGS) for side in (0, 1)]
        error = statistics.stdev(each) / len(each) ** 0.5
        differences.append(statistics.mean(each))
        name = task if len(both) == most else f'{task}, {len(both)}'
        sources = ', '.join(sorted({pair[1]['source'] for pair in both}))
        lines.append(f'| {name} | {sources} | {means[0]:.3f} | {means[1]:.3f} | {differences[-1]:+.1f} ± {error:.1f} |')
    if differences:
        whole = agreement(differences)
        lines += [
            '',
            f'The network that was found is at least as good on {whole["share_at_least_as_good"]:.0%} of {whole["tasks"]}',
            f'tasks (required 70 %, aim 85 %); mean difference {whole["mean_difference"]:+.2f} points (required 0), median',
            f'{whole["median_difference"]:+.2f}.',
        ]
    return lines


if __name__ == '__main__':
    main()
