"""The claim at a larger size, for a GPU: the DARTS space with 8 cells of width 16, pictures of 32 x 32 pixels, stride 1.

    python benchmarks/large/run.py --data DIR     # resumable, one JSON line per run; without a CUDA device it only says so
    python benchmarks/large/run.py --report       # the table from the results so far

The source is pretrained first, by the recipe of the shipped ones in this space, and kept in --zoo. Then the searches of
the claim, cold and warm, with up to 4,000 training pictures of tasks that the source has not seen. The table names the card.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import searches as claim
from benchmarks.claim.comparison import Found, table
from benchmarks.claim.report import task_table
from benchmarks.common.processes import perform
from benchmarks.common.rows import of_recipe
from benchmarks.rebuild_zoo import BEGUN, document
from nni_warmstart import SupernetZoo
from nni_warmstart.cli import quiet
from nni_warmstart.runs.config import parse_pretrain
from nni_warmstart.runs.pretrain import pretrain

HERE = Path(__file__).resolve().parent
SPACE = {'name': 'darts', 'width': 16, 'num_cells': 8, 'image_size': 32}
SOURCE = 'joint-darts-w16-c8'
TASKS = ['gtsrb', 'flowers5', 'math_symbols', 'quickdraw3', 'cifar10', 'mnist']
PICTURES = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', type=Path, default=Path('.large-zoo'), help='folder of the source (default: .large-zoo)')
    parser.add_argument('--tasks', nargs='+', default=TASKS, metavar='NAME', help=f'default: {", ".join(TASKS)}')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='which (default: 0)')
    parser.add_argument('--processes', type=int, default=1, help='at once, on the one card (default: 1)')
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    quiet()
    path = HERE / 'large.jsonl'
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is missing.')
        if not torch.cuda.is_available():
            print('Skipped: there is no CUDA device, and on a processor this takes days.')
            return
        pretrained(arguments.zoo, arguments.data)
        setting = claim.Setting(arguments.data, str(arguments.zoo), SPACE, PICTURES, HERE)
        runs = [
            claim.Run(task, seed, side) for seed in arguments.seeds for task in arguments.tasks for side in ('cold', 'warm')
        ]
        perform(search, runs, setting, path, arguments.processes)
    report(of_recipe(path))


def pretrained(folder: Path, data: Path) -> None:
    """The source, if it is not there yet."""
    zoo = SupernetZoo(folder)
    if SOURCE not in zoo:
        recipe = {**document(BEGUN), 'space': SPACE}
        with tempfile.TemporaryDirectory() as out:
            print(zoo.add(pretrain(parse_pretrain(recipe, data), name=SOURCE, seed=0, out=out)))


def search(run: claim.Run, setting: claim.Setting) -> dict[str, Any]:
    return {**claim.search(run, setting), 'device': torch.cuda.get_device_name()}


def report(rows: list[dict[str, Any]]) -> None:
    """Write large.md."""
    by_task: dict[str, Found] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_task[row['task']][row['side']][row['seed']] = row
    found = table(by_task, 'warm')
    if not found:
        print('No results to report.')
        return
    devices = ' and '.join(sorted({row['device'] for row in rows}))
    lines = [
        '# The claim at a larger size',
        '',
        f'Made by `python benchmarks/large/run.py --data DIR` on {devices}:',
        f'the DARTS space, 8 cells of width 16, up to {PICTURES} training pictures.',
        '',
        *task_table(found),
    ]
    (HERE / 'large.md').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
