"""What does a whole warm search cost, every second counted, with NNI's step and with ours?

    python benchmarks/step/search.py --data DIR    # what search.jsonl lacks, and search.md (twelve minutes)
    python benchmarks/step/search.py --report      # the table from the results so far

The search of the claim: 20 epochs of `nasbench201` at width 16, a warm start by `source: auto` from the shipped zoo,
validation after each epoch, test. 'NNI' computes all gradients in both phases and runs NNI's forward; 'phases' computes in
each phase its own gradients, as a cold search does; 'plans' is the default of a warm search. Processor time on one thread,
variants in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim.searches import CLIP, PICTURES, SPACE, TUNING, Setting, evaluator, load, space_of
from benchmarks.common.rows import Rows
from benchmarks.step.run import processor, quietly, write
from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.search.phases import Phases

HERE = Path(__file__).resolve().parent
VARIANTS = ('NNI', 'phases', 'plans')
ROUNDS = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    rows = Rows(HERE / 'search.jsonl', ('task', 'variant', 'round'))
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is needed, a folder of NAME.npz.')
        quietly()
        logging.disable(logging.WARNING)
        for number in range(ROUNDS):
            for task in TUNING:
                for variant in VARIANTS:
                    rows.measure(
                        {'task': task, 'variant': variant, 'round': number}, measured, arguments.data, task, variant
                    )
    report(rows.all())


def measured(data: Path, name: str, variant: str) -> dict[str, Any]:
    """Search once."""
    setting = Setting(data, None, SPACE, PICTURES, HERE)
    task = load(setting, name)
    seed_everything(0, workers=True, verbose=False)
    space, splits = space_of(setting, task), split(task)
    strategy = WarmStartDARTS(source='auto', gradient_clip_val=CLIP, fast=variant == 'plans')
    all_gradients = patch.object(Phases, 'gradients', lambda self, phase: contextlib.nullcontext())
    with tempfile.TemporaryDirectory() as out, all_gradients if variant == 'NNI' else contextlib.nullcontext():
        begun, wall = time.process_time(), time.perf_counter()
        strategy(RawFormatModelSpace(space, evaluator(task, splits, out)), SequentialExecutionEngine())
        seconds, wall = time.process_time() - begun, time.perf_counter() - wall
    assert strategy.report is not None
    return {
        'seconds': round(seconds, 2),
        'wall': round(wall, 2),
        'start': round(sum(strategy.report.seconds.values()), 2),
        'accuracy': strategy.curve[-1]['default'],
        'processor': processor(),
        'torch': torch.__version__,
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Write search.md."""
    lines = [
        'A whole warm search of the claim (`python benchmarks/step/search.py --data DIR`): processor time on one thread,',
        'and validation accuracy after its last epoch.',
        '',
        '| task | NNI, s | phases | plans | accuracy: NNI, phases, plans |',
        '|---|---|---|---|---|',
    ]
    ratios = []
    for task in dict.fromkeys(row['task'] for row in rows):
        own = {variant: [row for row in rows if row['task'] == task and row['variant'] == variant] for variant in VARIANTS}
        if not all(own.values()):
            continue
        seconds = {variant: min(row['seconds'] for row in found) for variant, found in own.items()}
        ratios.append([seconds[variant] / seconds['NNI'] for variant in VARIANTS])
        accuracies = ', '.join(f'{found[0]["accuracy"]:.3f}' for found in own.values())
        lines.append(f'| {task} | {seconds["NNI"]:.1f} | {ratios[-1][1]:.2f} | {ratios[-1][2]:.2f} | {accuracies} |')
    if ratios:
        means = [statistics.geometric_mean(column) for column in zip(*ratios, strict=True)]
        lines.append(f'| geometric mean | | {means[1]:.2f} | {means[2]:.2f} | |')
    write(HERE / 'search.md', lines, rows)


if __name__ == '__main__':
    main()
