"""The claim, measured: cold and warm searches on every task of a folder, every second counted.

    python benchmarks/claim.py --data DIR                        # all tasks, three seeds, the shipped zoo
    python benchmarks/claim.py --data DIR --zoo ZOO --tasks mnist flowers5 --seeds 0 --sides cold warm
    python benchmarks/claim.py --report                          # tables and figures from the runs so far
    python benchmarks/claim.py --report --seeds 3 --out COPY     # of three seeds only, in a copy of the folder of results
    python benchmarks/claim.py --report --recipe 2a68403e33e8 --out COPY    # of searches with NNI's rate of the alphas

DIR holds NAME.npz with train_x (n, height, width, channels), train_y, and optionally test_x, test_y. Cold is NNI's DARTS at
the rate that serves it best on tasks that are not reported. Warm starts from what `source: auto` chooses among the supernets
of the zoo that have not seen the target's dataset, and strict among those that have seen nothing of its family. Killed, it
goes on where it was: one JSON line per run in OUT/claim.jsonl. One process per core. Seconds of runs with different
``series`` (--series) are not compared.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import claim_report
import torch
import yaml
from common import RESULTS, arguments_of, part
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning import seed_everything
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nni_warmstart import SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import quiet
from nni_warmstart.data import Splits, Task, split
from nni_warmstart.errors import WarmStartError, ZooError
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.model_spaces import create, input_of, resolve
from nni_warmstart.search import alpha_rate
from nni_warmstart.zoo.ranking import rank
from nni_warmstart.zoo.zoo import open_zoo

SPACE = {'name': 'nasbench201', 'width': 16, 'depth': 1, 'image_size': 32, 'stem_stride': 2}
PICTURES = 1000
EPOCHS = 20
"""Of every search, cold or warm."""
SETTINGS = {'batch_size': 32, 'learning_rate': 0.05, 'weight_decay': 3e-4, 'crop': 0.125}
CLIP = 5.0
"""Of every search, cold or warm: SGD, cosine rate and random crops as in DARTS."""
TUNING = ['kannada_digits', 'plant_seedlings', 'sign_digits', 'chest_xray3']
"""Tasks on which rates and recipes were tried; not reported unless they are named."""
FAMILIES = {
    'handwritten digits': ['mnist', 'usps', 'digits8x8', 'kannada_digits'],
    'Omniglot': ['omniglot_greek', 'omniglot_katakana', 'omniglot_korean', 'omniglot_latin', 'omniglot_sanskrit'],
    'CIFAR-10': ['cifar10', 'cifar10_16k'],
    'Tiny ImageNet': ['tinyimagenet_animals', 'tinyimagenet_things'],
    'clothing': ['fashion_mnist', 'clothing'],
    'blood cells': ['blood_cells', 'white_cells'],
}
"""Datasets that are kin; the strict table starts from sources without any of the target's."""
SAME = {'cifar10_16k': 'cifar10'}
"""Datasets of which another is a part."""


@dataclass(frozen=True)
class Run:
    """One search: ``side`` says from what, ``source`` what was chosen before."""

    task: str
    seed: int
    side: str
    source: str | None = None

    key: ClassVar = ('task', 'seed', 'side')


@dataclass(frozen=True)
class Setting:
    """What all runs share."""

    data: Path
    zoo: str | None
    space: dict[str, Any]
    pictures: int
    out: Path
    controls: str | None = None
    series: str | None = None

    @functools.cached_property
    def recipe(self) -> str:
        """Identity of what is measured; runs of another one are left alone."""
        zoo = sorted((entry.name, entry.key) for entry in open_zoo(self.zoo).entries())
        parts = (zoo, self.space, self.pictures, EPOCHS, SETTINGS, CLIP, alpha_rate.TRAVEL, alpha_rate.LARGEST)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


SIDES: dict[str, dict[str, Any]] = {
    'cold': {},
    'warm': {'source': 'auto'},
    'strict': {'source': 'auto'},
    'cold, no crops': {},
    'cold, averaged': {'average': 1.0},
    'not averaged': {'average': 0.0},
    'plain copy': {'keep': 1.0, 'head': 'random', 'average': 0.0, 'arc_learning_rate': alpha_rate.NNIS},
    'random source': {},
    'farthest source': {},
    'alphas only': {'keep': 0.0, 'head': 'random'},
    'weights only': {'alpha': 'reset'},
}
"""Arguments of the strategy. Without a source it is NNI's DARTS; the controls after the strict side take the source that the
warm side took, but for those named after theirs."""
OWN_SOURCE = ('random source', 'farthest source')
"""Controls that choose theirs among the zoo of the controls."""
CHANGES = {'cold, no crops': {'crop': 0.0}}
"""Of the settings of the evaluator: without crops some cold searches end higher."""
FIRST = list(SIDES)[:5]


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
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of claim.jsonl, tables and figures')
    parser.add_argument('--report', action='store_true', help='run nothing, write tables and figures')
    parser.add_argument('--recipe', help='of the runs of a report (default: that of the last line)')
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path, given = arguments.out / 'claim.jsonl', arguments.seeds or [3]
    seeds = list(range(given[0])) if len(given) == 1 and given[0] else given
    if arguments.report:
        rows = [row for row in read(path, arguments.recipe) if arguments.seeds is None or row['seed'] in seeds]
        claim_report.report(rows, arguments.out)
        return
    if arguments.data is None or not sorted(arguments.data.glob('*.npz')):
        parser.error(f'--data must be a folder with NAME.npz; {arguments.data} has none.')
    space = {'name': arguments.space} if isinstance(arguments.space, str) else dict(arguments.space)
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
    took = {(row['task'], row['seed']): row['source'] for row in read(path, recipe) if row['side'] == 'warm'}
    second = [
        Run(name, seed, side, took[name, seed])
        for seed in seeds for name in names for side in arguments.sides if side not in FIRST and (name, seed) in took
    ]  # fmt: skip
    perform(search, second, setting, path, arguments.processes)
    claim_report.report(read(path, recipe), arguments.out)


def read(path: Path, recipe: str | None = None) -> list[dict[str, Any]]:
    """Runs of a recipe, or of that of the last line."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    recipe = recipe or (rows[-1]['recipe'] if rows else None)
    return [row for row in rows if row['recipe'] == recipe]


def perform(function: Any, runs: Sequence[Any], setting: Setting, path: Path, processes: int) -> None:
    """Run what is not in the file yet: ``function(run, setting)`` gives a row."""
    done = {tuple(row[key] for key in runs[0].key) for row in read(path, setting.recipe)} if runs else set()
    todo = [run for run in runs if tuple(getattr(run, key) for key in run.key) not in done]
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn('left'), TimeRemainingColumn())  # fmt: skip
    context = multiprocessing.get_context('spawn')
    with (
        Progress(*columns, speed_estimate_period=3600) as progress,
        ProcessPoolExecutor(processes, context, initializer=quietly) as pool,
    ):
        bar = progress.add_task('runs', total=len(runs), completed=len(runs) - len(todo))
        waiting = {pool.submit(function, run, setting): run for run in todo}
        for future in as_completed(waiting):
            try:
                row = future.result()
            except WarmStartError as error:  # such as a class too small to be in both halves
                progress.console.print(f'{waiting[future].task}, {waiting[future].side}: left out, {error}')
                continue
            with path.open('a') as file:
                file.write(json.dumps({**row, 'recipe': setting.recipe}) + '\n')
            progress.update(bar, advance=1, description=f'{row["task"]}, {row["side"]}')


def quietly() -> None:
    quiet()
    torch.set_num_threads(1)


def search(run: Run, setting: Setting) -> dict[str, Any]:
    """One search; the row that goes into the file."""
    task = load(setting, run.task)
    seed_everything(run.seed, workers=True, verbose=False)
    space, splits = space_of(setting, task), split(task)
    row: dict[str, Any] = {**asdict(run), 'classes': task.num_classes, 'pictures': len(task.train_y)}
    if setting.series is not None:
        row['series'] = setting.series
    if run.side.startswith('cold'):
        strategy = WarmStartDARTS(gradient_clip_val=CLIP, **SIDES[run.side])
    else:
        of = replace(setting, zoo=setting.controls or setting.zoo) if run.side in OWN_SOURCE else setting
        zoo = zoo_of(of, sources(of, run.task, strict=run.side == 'strict'))
        arguments = {'source': chosen(run, zoo, splits.train), **SIDES[run.side]}
        strategy = WarmStartDARTS(gradient_clip_val=CLIP, zoo=zoo, **arguments)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        strategy(
            RawFormatModelSpace(space, evaluator(task, splits, out, **CHANGES.get(run.side, {}))),
            SequentialExecutionEngine(),
        )
    row |= {
        'curve': [round(figures['default'], 5) for figures in strategy.curve],
        'epoch_seconds': [round(figures['epoch_seconds'], 3) for figures in strategy.curve],
        'seconds': round(time.perf_counter() - start, 2),
        'test_accuracy': strategy.oneshot_module.final.get('test_accuracy'),
        'architecture': strategy.oneshot_module.samples[-1],
        'architecture_quarter': strategy.oneshot_module.samples[EPOCHS // 4 - 1],
    }
    if strategy.report is not None:
        row |= {
            'source': strategy.report.source,
            'zero_shot': strategy.report.zero_shot_accuracy,
            'start_seconds': {key: round(value, 3) for key, value in strategy.report.seconds.items()},
        }
    elif run.side == 'cold' and run.seed == 0 and run.task == min(p.stem for p in setting.data.glob('*.npz')):
        row['equals_upstream'] = equals_upstream(run, setting, strategy.supernet)
    return row


def equals_upstream(run: Run, setting: Setting, supernet: torch.nn.Module) -> bool:
    """Whether NNI's own, untouched DARTS ends with the same weights and alphas, to the bit."""
    task = load(setting, run.task)
    seed_everything(run.seed, workers=True, verbose=False)
    space = space_of(setting, task)
    theirs = DARTS(gradient_clip_val=CLIP)
    with tempfile.TemporaryDirectory() as out:
        theirs(RawFormatModelSpace(space, evaluator(task, split(task), out)), SequentialExecutionEngine())
    mine = supernet.state_dict()
    return all(torch.equal(tensor, mine[name]) for name, tensor in theirs.supernet.state_dict().items())


def space_of(setting: Setting, task: Task) -> Any:
    return create(setting.space['name'], arguments_of(setting.space), task.num_classes)


def evaluator(task: Task, splits: Splits, out: str, epochs: int = EPOCHS, **changes: Any) -> Any:
    trainer = make_trainer(epochs, out, progress=False)
    return classification(splits, task.num_classes, trainer, **{**SETTINGS, **changes})


def load(setting: Setting, name: str) -> Task:
    """A part of a task, in the form that the space takes."""
    form = input_of(resolve(setting.space['name']), arguments_of(setting.space))
    return part(setting.data, name, setting.pictures).adapted(*form)


def kin(name: str) -> set[str]:
    """Datasets of a name's family."""
    return {name}.union(*(members for members in FAMILIES.values() if name in members))


def sources(setting: Setting, target: str, *, strict: bool) -> list[str]:
    """Supernets of the zoo that have not seen the target's dataset, or, strictly, any of its family."""
    forbidden = kin(target) if strict else {target, *(name for name, part in SAME.items() if part == target)}
    return [name for name, seen in trained_on(setting.zoo, setting.space['name']).items() if not forbidden & seen]


@functools.cache
def trained_on(zoo: str | None, space: str) -> dict[str, set[str]]:
    """Supernets of a space -> the datasets that they were trained on."""
    entries = [entry for entry in open_zoo(zoo).entries() if entry.space.get('name') == space]
    return {entry.name: {*entry.datasets, entry.dataset or ''} for entry in entries}


def zoo_of(setting: Setting, names: list[str]) -> SupernetZoo:
    """A zoo of these entries only."""
    if not names:
        raise ZooError(f'{open_zoo(setting.zoo).root} has no supernet of {setting.space["name"]} that may be its source.')
    folder = setting.out / '.zoos' / hashlib.sha256(repr((setting.recipe, names)).encode()).hexdigest()[:12]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        copy = Path(tempfile.mkdtemp(dir=folder.parent))
        for name in names:
            shutil.copy(open_zoo(setting.zoo).path(name), copy)
        try:
            copy.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(copy)
    return SupernetZoo(folder)


def chosen(run: Run, zoo: SupernetZoo, pictures: Any) -> Any:
    """Source of a control."""
    if run.side == 'random source':
        return random.Random(run.seed).choice(zoo.names())
    if run.side == 'farthest source':
        return rank(list(zoo.entries()), pictures)[-1].name
    return run.source.split(' + ') if run.source else None


if __name__ == '__main__':
    main()
