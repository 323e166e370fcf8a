"""The claim, measured: cold and warm searches on every task of a folder, every second counted.

    python benchmarks/claim/run.py --data DIR                        # all tasks, three seeds, the shipped zoo
    python benchmarks/claim/run.py --data DIR --zoo ZOO --tasks mnist flowers5 --seeds 0 --sides cold warm
    python benchmarks/claim/run.py --report                          # tables and figures from the runs so far
    python benchmarks/claim/run.py --report --seeds 3 --out COPY     # of three seeds only, in a copy of this folder
    python benchmarks/claim/run.py --report --recipe 2a68403e33e8 --out COPY    # of searches with NNI's rate of the alphas

DIR holds NAME.npz with train_x (n, height, width, channels), train_y, and optionally test_x, test_y. Cold is NNI's DARTS at
the rate that serves it best on tasks that are not reported. Warm starts from what `source: auto` chooses among the supernets
of the zoo that have not seen the target's dataset, and strict among those that have seen nothing of its family. Killed, it
goes on where it was: one JSON line per run in OUT/claim.jsonl. One process per core. Seconds of runs with different
``series`` (--series) are not compared.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim.report import report
from benchmarks.claim.searches import FIRST, PICTURES, SIDES, SPACE, TUNING, Run, Setting, search, sources
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--space', type=yaml.safe_load, default=SPACE, help=f'name or YAML mapping (default: {SPACE})')
    seeds = 'how many, or, where 0 or several are given, which (default: 3; of a report, all)'
    parser.add_argument('--seeds', type=int, nargs='+', help=seeds)
    parser.add_argument('--tasks', nargs='+', metavar='NAME', help=f'default: all in DIR but {", ".join(TUNING)}')
    parser.add_argument('--zoo', help='of the sources (default: the shipped one)')
    parser.add_argument('--controls', help='zoo of the random and the farthest source (default: that of the sources)')
    parser.add_argument('--pictures', type=int, default=PICTURES, help=f'for training at most (default: {PICTURES})')
    sides = f'of {", ".join(map(repr, SIDES))} (default: all)'
    parser.add_argument('--sides', nargs='+', choices=list(SIDES), default=list(SIDES), metavar='SIDE', help=sides)
    parser.add_argument('--processes', type=int, default=os.cpu_count(), help='at once (default: one per core)')
    parser.add_argument('--series', help='name of what is timed under the same conditions (default: none)')
    parser.add_argument(
        '--out', type=Path, default=HERE, help='folder of claim.jsonl, tables and figures (default: that of this script)'
    )
    parser.add_argument('--report', action='store_true', help='run nothing, write tables and figures')
    recipes = 'of the runs of a report; of a run in several, the last (default: that of the last line)'
    parser.add_argument('--recipe', nargs='+', default=[None], help=recipes)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path, given = arguments.out / 'claim.jsonl', arguments.seeds or [3]
    seeds = list(range(given[0])) if len(given) == 1 and given[0] else given
    space = {'name': arguments.space} if isinstance(arguments.space, str) else dict(arguments.space)
    if arguments.report:
        rows = [row for recipe in arguments.recipe for row in of_recipe(path, recipe)]
        rows = [row for row in rows if arguments.seeds is None or row['seed'] in seeds]
        report(rows, arguments.out, space)
        return
    if arguments.data is None or not sorted(arguments.data.glob('*.npz')):
        parser.error(f'--data must be a folder with NAME.npz; {arguments.data} has none.')
    setting = Setting(
        arguments.data, arguments.zoo, space, arguments.pictures, arguments.out, arguments.controls, arguments.series
    )
    names = arguments.tasks or [p.stem for p in sorted(arguments.data.glob('*.npz')) if p.stem not in TUNING]
    missing = [name for name in names if not (arguments.data / f'{name}.npz').is_file()]
    if missing:
        parser.error(f'--tasks: {", ".join(missing)} not in {arguments.data}.')
    recipe = setting.recipe
    alike = {name for name in names if sources(setting, name, strict=True) == sources(setting, name, strict=False)}
    first = [
        Run(name, seed, side)
        for seed in seeds for name in names for side in FIRST
        if side in arguments.sides and not (side == 'strict' and name in alike)
    ]  # fmt: skip
    perform(search, first, setting, path, arguments.processes)
    took = {(row['task'], row['seed']): row['source'] for row in of_recipe(path, recipe) if row['side'] == 'warm'}
    second = [
        Run(name, seed, side, took[name, seed])
        for seed in seeds for name in names for side in arguments.sides if side not in FIRST and (name, seed) in took
    ]  # fmt: skip
    perform(search, second, setting, path, arguments.processes)
    report(of_recipe(path, recipe), arguments.out, space)


if __name__ == '__main__':
    main()
