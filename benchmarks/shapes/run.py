"""Warm starts across shapes: half and double width, half and double depth, a third of the ops exchanged.

    python benchmarks/shapes/run.py --data DIR                 # all runs; resumable, one JSON line per run
    python benchmarks/shapes/run.py --data DIR --part 0 2      # half of the tasks, to share the work
    python benchmarks/shapes/run.py --data DIR --paced         # warm searches with the package's own rate of the alphas
    python benchmarks/shapes/run.py --report                   # the table from the results so far

The source is the shipped joint supernet of width 16 and depth 1; for half the depth one with depth 2, pretrained on the same
datasets for 60 epochs and kept in --zoo. Cold and warm runs search as in the claim (20 epochs, at most 1000 pictures of
32 x 32 pixels, random crops), with the arguments of the strategy at their defaults, but for the rate of the alphas, which is
NNI's without --paced. Epochs are those to the cold run's final validation accuracy, reached and held.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from nni.nas.hub.pytorch.modules import NasBench201Cell
from nni.nas.hub.pytorch.nasbench201 import OPS_WITH_STRIDE, SepConv

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim import searches as claim
from benchmarks.common.rows import Rows
from benchmarks.common.searches import arguments_of, load, search
from benchmarks.rebuild_zoo import RECIPE
from nni_warmstart import Supernet, SupernetZoo
from nni_warmstart.cli import quiet
from nni_warmstart.runs.config import parse_pretrain
from nni_warmstart.runs.pretrain import pretrain
from nni_warmstart.search_spaces import NasBench201Space
from nni_warmstart.utils.metrics import epochs_to, final_accuracy

HERE = Path(__file__).resolve().parent
TARGETS = ['mnist', 'gtsrb', 'flowers5', 'spoken_digits', 'steel_defects', 'quickdraw3']
DEEP = 'joint-nasbench201-w16-d2'


class OtherOps(NasBench201Space):
    """NAS-Bench-201 with a third of its ops exchanged: a separable convolution and max pooling for the 1x1 convolution."""

    OPS = ('max_pool_3x3', 'conv_3x3', 'none', 'sep_conv_3x3', 'skip_connect', 'avg_pool_3x3')

    def __init__(self, width: int, **arguments: Any) -> None:
        super().__init__(width=width, **arguments)
        for index, cell in enumerate(self.cells):
            if isinstance(cell, NasBench201Cell):
                channels = width * 2 ** (index // 2)
                self.cells[index] = NasBench201Cell({op: maker(op) for op in self.OPS}, channels, channels, label='cell')


def maker(op: str) -> Any:
    if op == 'sep_conv_3x3':
        return lambda c_in, c_out: SepConv(c_in, c_out, (3, 3), (1, 1), (1, 1), (1, 1))
    return lambda c_in, c_out: OPS_WITH_STRIDE[op](c_in, c_out, 1)


SHAPES: dict[str, tuple[type[NasBench201Space], dict[str, int]]] = {
    'half width': (NasBench201Space, {'width': 8}),
    'double width': (NasBench201Space, {'width': 32}),
    'half depth': (NasBench201Space, {}),
    'double depth': (NasBench201Space, {'depth': 2}),
    'other ops': (OtherOps, {}),
}
"""Class, and what it changes in the space of the claim."""

rows = Rows(HERE / 'shapes.jsonl', ('target', 'shape', 'warm', 'seed', 'paced'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', type=Path, default=Path('.shapes-zoo'), help='folder of the deep source')
    parser.add_argument('--shapes', nargs='+', default=list(SHAPES), choices=list(SHAPES), help='which (default: all)')
    parser.add_argument('--targets', nargs='+', default=TARGETS, help='which tasks (default: the six that are reported)')
    parser.add_argument('--part', type=int, nargs=2, default=(0, 1), metavar=('I', 'N'), help='every Nth task, from the Ith')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1], help='seeds (default: 1)')
    parser.add_argument('--paced', action='store_true', help="alphas of warm searches at the package's own rate")
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if not arguments.report:
        first, step = arguments.part
        for seed in arguments.seeds:
            for shape in arguments.shapes:
                source = (
                    deep_source(arguments.zoo, arguments.data)
                    if shape == 'half depth'
                    else SupernetZoo.shipped()['joint-nasbench201-w16']
                )
                for target in arguments.targets[first::step]:
                    run(target, shape, source, seed, arguments.data, paced=arguments.paced)
    report()


def deep_source(folder: Path, data: Path) -> Supernet:
    """Return the source of depth 2, pretrained if the zoo in ``folder`` lacks it."""
    zoo = SupernetZoo(folder)
    if DEEP not in zoo:
        evaluator = {**RECIPE['evaluator'], 'max_epochs': 60}
        document = {**RECIPE, 'space': {**claim.SPACE, 'depth': 2}, 'evaluator': evaluator}
        with tempfile.TemporaryDirectory() as log:
            zoo.add(pretrain(parse_pretrain(document, data), name=DEEP, seed=0, out=log))
    return zoo[DEEP]


def run(target: str, shape: str, source: Supernet, seed: int, folder: Path, *, paced: bool = False) -> None:
    task = load(folder, target, claim.PICTURES, claim.SPACE['image_size'])
    cls, changes = SHAPES[shape]
    arguments = {**arguments_of(claim.SPACE), **changes}

    def space(classes: int) -> NasBench201Space:
        return cls(**arguments, num_classes=classes)

    for warm in (False, True):
        row = {'target': target, 'shape': shape, 'warm': warm, 'seed': seed}
        recipe = {'epochs': claim.EPOCHS, 'settings': claim.SETTINGS, 'source': source if warm else None}
        if warm and paced:  # a cold search has NNI's rate either way
            row, recipe = {**row, 'paced': True}, {**recipe, 'arc_learning_rate': None}
        if not rows.has(**row):
            rows.append(**row, **search(space, task, seed=seed, **recipe), device=device())


def device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'


def report() -> None:
    """Write shapes.md."""
    found = {(row['shape'], row['target'], row['seed'], row['warm']): row for row in rows.all() if not row.get('paced')}
    paced = {(row['shape'], row['target'], row['seed']): row for row in rows.all() if row.get('paced')}
    lines = [
        f'Warm starts across shapes (`python benchmarks/shapes/run.py --data DIR`); all runs have {claim.EPOCHS} epochs.',
        "Epochs: to the cold run's final validation accuracy, reached and held;",
        f'"not" where the warm run did not, which counts as {claim.EPOCHS}.',
        '',
        '| shape | task | seed | on | inherited | before training | cold | warm | cold epochs | warm epochs | ratio |',
        '|---' * 11 + '|',
    ]
    ratios: dict[str, dict[str, list[float]]] = {}
    for shape, target, seed, warm in sorted(found, key=lambda key: (list(SHAPES).index(key[0]), *key[1:])):
        hot = found.get((shape, target, seed, True))
        if warm or hot is None:
            continue
        cold = found[shape, target, seed, False]
        goal, epochs, ratio = compared(cold, hot)
        devices = ' and '.join(dict.fromkeys(row.get('device', 'CPU') for row in (cold, hot)))
        ratios.setdefault(shape, {}).setdefault(target, []).append(ratio)
        lines.append(
            f'| {shape} | {target} | {seed} | {devices} | {hot["inherited"]:.0%} | {hot["zero_shot"]:.3f} | {goal:.3f} | '
            f'{final_accuracy(hot["curve"]):.3f} | {epochs[0]} | {epochs[1] or "not"} | {ratio:.1f} |'
        )
    lines += [
        '',
        'Of each task the geometric mean over its runs:',
        '',
        '| shape | tasks | runs | median of tasks | smallest |',
        '|---|---|---|---|---|',
    ]
    every = {task: [ratio for tasks in ratios.values() for ratio in tasks.get(task, [])] for task in TARGETS}
    ratios['all'] = {task: each for task, each in every.items() if each}
    for shape, tasks in ratios.items():
        values = [statistics.geometric_mean(each) for each in tasks.values()]
        runs = sum(map(len, tasks.values()))
        lines.append(f'| {shape} | {len(values)} | {runs} | {statistics.median(values):.1f} | {min(values):.1f} |')
    if paced:
        lines += paced_table(found, paced)
    (HERE / 'shapes.md').write_text('\n'.join(lines) + '\n')


def compared(cold: dict[str, Any], hot: dict[str, Any]) -> tuple[float, tuple[int, int | None], float]:
    """The cold search's final accuracy, the epochs of both to it, and their ratio."""
    goal = final_accuracy(cold['curve'])
    epochs = epochs_to(cold['curve'], goal) or claim.EPOCHS, epochs_to(hot['curve'], goal)
    return goal, epochs, epochs[0] / (epochs[1] or claim.EPOCHS)


def paced_table(found: dict[Any, dict[str, Any]], paced: dict[Any, dict[str, Any]]) -> list[str]:
    """Searches with the package's own rate of the alphas, beside those of the same tasks and seeds with NNI's."""
    lines = [
        '',
        "With the package's own rate of the alphas (`--paced`), against the same cold searches; beside it NNI's rate on the",
        'same tasks and seeds. Accuracy: mean final validation accuracy.',
        '',
        "| shape | runs | median | smallest | accuracy | NNI's rate: median | smallest | accuracy |",
        '|---' * 8 + '|',
    ]
    for shape in (shape for shape in SHAPES if any(key[0] == shape for key in paced)):
        sides: list[str] = []
        keys = sorted(key for key in paced if key[0] == shape)
        for hot in ([paced[key] for key in keys], [found[(*key, True)] for key in keys]):
            ratios = [compared(found[(*key, False)], row)[2] for key, row in zip(keys, hot, strict=True)]
            accuracy = statistics.mean(final_accuracy(row['curve']) for row in hot)
            sides += [f'{statistics.median(ratios):.1f}', f'{min(ratios):.1f}', f'{accuracy:.3f}']
        lines.append(f'| {shape} | {len(keys)} | {" | ".join(sides)} |')
    return lines


if __name__ == '__main__':
    main()
