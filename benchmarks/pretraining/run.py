"""Is one supernet from many datasets a better source than the best from one, what does it cost, and what makes it good?

    python benchmarks/pretraining/run.py targets  --data DIR    # warm starts on tasks that no source has seen
    python benchmarks/pretraining/run.py cost     --data DIR    # a joint step against steps on each dataset alone
    python benchmarks/pretraining/run.py ablation --data DIR    # sampling, batch norm, augmentation; three seeds
    python benchmarks/pretraining/run.py sequence --data DIR    # ten tasks, the zoo growing from empty
    python benchmarks/pretraining/run.py report                 # pretraining.md and .png

All steps are resumable, one JSON line per run; `--part I N` shares the work. Sources are the shipped supernets: the
joint one of 12 datasets, and eight of one dataset each (of the five Omniglot alphabets one). Two more, of all photographs of
clothing and groceries that the joint one has seen, are made first, into --more:

    python benchmarks/zoo/photographs.py --data DIR
    python benchmarks/rebuild_zoo.py --data DIR --zoo MORE nasbench201-w8-clothing_3k nasbench201-w8-grocery_3k
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import seed_everything
from pytorch_lightning.callbacks import Callback

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.searches import load, search
from benchmarks.pretraining.report import report
from benchmarks.pretraining.settings import (
    ABLATION,
    ABLATION_EPOCHS,
    COLD,
    DEVELOPMENT,
    JOINT,
    LONG,
    MORE,
    ORDERS,
    SOURCES,
    TARGETS,
    WARM,
    ablation,
    costs,
    sequence,
    targets,
)
from benchmarks.rebuild_zoo import RECIPE
from nni_warmstart import JointClassification, Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import quiet
from nni_warmstart.data import Task, split
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.zoo.ranking import rank
from nni_warmstart.zoo.zoo import open_zoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', choices=['targets', 'cost', 'ablation', 'sequence', 'report'])
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', help='zoo of the sources (default: the shipped one)')
    parser.add_argument('--more', type=Path, default=Path('.more-zoo'), help='zoo of the two that are not shipped')
    parser.add_argument('--growing', type=Path, default=Path('.growing-zoo'), help='folder for the zoos of `sequence`')
    seeds = "of the searches (default: 1); further ones with the joint and the single sources and 'auto' only"
    parser.add_argument('--seeds', type=int, nargs='+', default=[1], help=seeds)
    parser.add_argument('--part', type=int, nargs=2, default=(0, 1), metavar=('I', 'N'), help='every Nth run, from the Ith')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if arguments.step != 'report':
        {'targets': run_targets, 'cost': run_cost, 'ablation': run_ablation, 'sequence': run_sequence}[arguments.step](
            arguments
        )
    report()


def space(classes: int) -> Any:
    return create('nasbench201', {'width': 8, 'depth': 1, 'image_size': 16}, classes)


def run_targets(arguments: argparse.Namespace) -> None:
    part, parts = arguments.part
    zoo = open_zoo(arguments.zoo)
    singles = {name: zoo[f'nasbench201-w8-{name}'].renamed(name) for name in SOURCES}
    more = {name: SupernetZoo(arguments.more)[f'nasbench201-w8-{name}'].renamed(name) for name in MORE}
    for seed in arguments.seeds:
        for target in TARGETS[part::parts]:
            task = load(arguments.data, target)
            runs: list[tuple[str, int, Any]] = [('joint', WARM, 'joint')]
            runs += [*((name, WARM, each) for name, each in {**singles, **more}.items()), ('auto', WARM, 'auto')]
            if seed == arguments.seeds[0]:
                near = [singles[each.name] for each in rank(list(singles.values()), split(task).train)[:2]]
                runs += [('nearest', WARM, near[0]), ('fused', WARM, near)]
                runs += [('cold', COLD, None), ('cold', WARM, None)]
            for name, epochs, source in runs:
                row = {'target': target, 'source': name, 'epochs': epochs, 'seed': seed}
                if not targets.has(**row):
                    found = search(space, task, seed=seed, epochs=epochs, source=source, zoo=zoo)
                    targets.append(**row, taken=found.pop('source', None), **found)


def run_cost(arguments: argparse.Namespace) -> None:
    """Seconds per step, all datasets together and each alone, one after the other."""
    tasks = {name: load(arguments.data, name, 3000) for name in JOINT}
    for repeat in range(3):
        for names in [JOINT, *([name] for name in JOINT)]:
            row = {'datasets': '+'.join(names), 'repeat': repeat}
            if not costs.has(**row):
                clock = StepClock()
                trained({name: tasks[name] for name in names}, 1, repeat, callbacks=[clock], steps_per_epoch=36)
                costs.append(**row, seconds_per_step=statistics.mean(clock.seconds[2:]), steps=len(clock.seconds))


def run_ablation(arguments: argparse.Namespace) -> None:
    part, parts = arguments.part
    tasks = {name: load(arguments.data, name, 3000) for name in JOINT}
    runs = [(seed, variant) for seed in (0, 1, 2) for variant in ABLATION]
    for seed, variant in runs[part::parts]:
        if all(ablation.has(variant=variant, seed=seed, target=target) for target in DEVELOPMENT):
            continue
        start = time.perf_counter()
        strategy = trained(tasks, ABLATION_EPOCHS, seed, **ABLATION[variant])
        source = Supernet.from_strategy(strategy, name='ablation')
        seconds = time.perf_counter() - start
        for target in DEVELOPMENT:
            task = load(arguments.data, target)
            found = search(space, task, seed=seed + 1, epochs=WARM, source=source, average=0.0)
            ablation.append(
                variant=variant, seed=seed, target=target, **found, joint_accuracy=strategy.curve[-1]['default'],
                pretraining_seconds=seconds,
            )  # fmt: skip


class StepClock(Callback):
    """Seconds of every training step, weights and alphas, without validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def trained(
    tasks: dict[str, Task], epochs: int, seed: int, callbacks: list[Any] | None = None, **settings: Any
) -> WarmStartDARTS:
    """A strategy that has trained by the shipped recipe, changed by ``settings``."""
    seed_everything(seed, workers=True, verbose=False)
    recipe = {**RECIPE['evaluator'], **settings}
    del recipe['max_epochs']
    strategy = WarmStartDARTS(**{key: value for key, value in RECIPE['strategy'].items() if key != 'name'})
    with tempfile.TemporaryDirectory() as out:
        evaluator = JointClassification(tasks, make_trainer(epochs, out, progress=False, callbacks=callbacks), **recipe)
        strategy(RawFormatModelSpace(space(10), evaluator), SequentialExecutionEngine())
    return strategy


def run_sequence(arguments: argparse.Namespace) -> None:
    """Each task is searched from what the zoo remembers of the earlier ones, and remembered in its turn."""
    part, parts = arguments.part
    for order in list(ORDERS)[part::parts]:
        zoo = SupernetZoo(arguments.growing / order)
        for place, name in enumerate(ORDERS[order]):
            if sequence.has(order=order, place=place):
                continue
            task = load(arguments.data, name)
            row = {'target': name, 'source': 'cold', 'epochs': COLD, 'seed': 1}
            if not targets.has(**row):
                targets.append(**row, **search(space, task, seed=1, epochs=COLD))
            before = {entry: (Path(zoo.root) / f'{entry}.safetensors').read_bytes() for entry in zoo.names()}
            warm = {'source': 'auto', 'zoo': zoo} if before else {}
            epochs = LONG if before else COLD
            found = search(space, task, seed=1, epochs=epochs, save_to=zoo, **warm)
            after = {entry: (Path(zoo.root) / f'{entry}.safetensors').read_bytes() for entry in before}
            sequence.append(order=order, place=place, target=name, zoo=len(before), unchanged=before == after, **found)


if __name__ == '__main__':
    main()
