"""The cell of the source, without any search, beside what warm searches found: both trained from scratch.

    python benchmarks/networks/source_cells.py --data DIR    # what source_cells.jsonl lacks (an hour), and source_cells.md
    python benchmarks/networks/source_cells.py --report

The searches are the warm ones of claim/networks.py, of seed 0: a quarter of the budget, at most two operations without
parameters in a cell. The cell of a source is what such a search would export if its alphas did not move, as in
ground_truth.jsonl. Trainings and test images are those of claim/networks.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import searches
from benchmarks.claim.networks import TRAININGS, Found, agreement, gaps, run
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe, read
from benchmarks.networks.ground_truth import CLAIM, PACED, ROWS, architecture_of

HERE = Path(__file__).resolve().parent
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of source_cells.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    arguments = parser.parse_args()
    path, found = arguments.out / 'source_cells.jsonl', warm_networks()
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is missing.')
        cells = {row['source']: architecture_of(row['cell']) for row in read(ROWS) if 'source' in row}
        runs = [Found(task, SEED, 'source', cells[row['source']], seconds=0.0) for task, row in found.items()]
        setting = searches.Setting(arguments.data, None, searches.SPACE, searches.PICTURES, arguments.out)
        perform(run, runs, setting, path, arguments.processes)
    (arguments.out / 'source_cells.md').write_text('\n'.join(document(found, of_recipe(path))) + '\n')


def warm_networks() -> dict[str, dict[str, Any]]:
    """Return task -> row of the network that a warm search found."""
    rows = of_recipe(CLAIM / 'claim_networks.jsonl', PACED)
    return {row['task']: row for row in rows if (row['side'], row['seed']) == ('warm', SEED)}


def document(found: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of source_cells.md."""
    controls = {row['task']: row for row in rows}
    lines = [
        '# The cell of the source, without any search',
        '',
        'Made by `python benchmarks/networks/source_cells.py --data DIR`. Test accuracy, mean of three trainings from',
        f'scratch, of the cell of the source and of the network that a warm search found (seed {SEED}, a quarter of the',
        'budget). Error: standard error of the difference over the trainings.',
        '',
        '| task | source | its cell | warm search | difference, points |',
        '|---' * 5 + '|',
    ]
    differences = []
    for task in sorted(found.keys() & controls.keys()):
        each = gaps((controls[task], found[task]))
        means = [statistics.mean(row[task]['accuracy'][name] for name in TRAININGS) for row in (controls, found)]
        error = statistics.stdev(each) / len(each) ** 0.5
        differences.append(statistics.mean(each))
        lines.append(
            f'| {task} | {found[task]["source"]} | {means[0]:.3f} | {means[1]:.3f} | {differences[-1]:+.1f} ± {error:.1f} |'
        )
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
