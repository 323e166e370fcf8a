"""How much of a trained supernet is left at half its width, without training?

    python benchmarks/narrowing/run.py --data DIR --zoo DIR               # resumable, one JSON line per run
    python benchmarks/narrowing/run.py --data DIR --zoo DIR --tasks NAME --report

Entries of the zoo are supernets of the space 'nasbench201' named after their dataset. Each is narrowed to half its width on
512 training pictures (the seed says which), by `narrow`, by its version without data, and by the usual ways to take a subset
of the weights; all get their batch-norm statistics from the same pictures. Accuracies are those on the test pictures, once
with the classifier mapped (no labels are used) and once with a ridge classifier on the features.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.rows import Rows
from nni_warmstart import SupernetZoo
from nni_warmstart.cli import quiet
from nni_warmstart.data import Images, from_npz, split
from nni_warmstart.mapping.mapper import evenly, map_tensors
from nni_warmstart.mapping.narrowing import narrow, regressing, selecting, weight_covariances
from nni_warmstart.nni_adapter.batchnorm import reestimate
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.classifier import features_of, find_head
from nni_warmstart.nni_adapter.model_spaces import resolve
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.tracing.axes import IN
from nni_warmstart.tracing.channel_spaces import ChannelSpace, Couple
from nni_warmstart.tracing.structure import Structure, structure_of
from nni_warmstart.warm_start.heads.ridge import ridge

HERE = Path(__file__).resolve().parent
TASKS = ['fashion_mnist', 'mnist', 'kannada_digits', 'spoken_digits', 'clothing']
DEVELOPMENT = ['cifar10', 'notmnist', 'plant_seedlings', 'emoji_category', 'sign_digits']
"""Tasks that were looked at while the method was made."""
PICTURES = 512
METHODS = ['narrow', 'without data', 'uniform', 'magnitude', 'weight selection', 'first']
OURS = METHODS[:2]

rows = Rows(HERE / 'narrowing.jsonl', ('task', 'seed', 'method'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of NAME.npz')
    parser.add_argument('--zoo', type=Path, help='folder of the supernets')
    parser.add_argument('--tasks', nargs='+', default=TASKS, help=f'default: {" ".join(TASKS)}')
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3], help='which pictures are used (default: 1 2 3)')
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if not arguments.report:
        for name in arguments.tasks:
            case = None
            for seed in arguments.seeds:
                for method in METHODS:
                    row = {'task': name, 'seed': seed, 'method': method}
                    if not rows.has(**row):
                        case = case or Case(SupernetZoo(arguments.zoo)[name], arguments.data)
                        rows.append(**row, **case.run(method, seed))
    report(rows.all())


class Case:
    """One supernet and its dataset."""

    def __init__(self, supernet: Any, folder: Path) -> None:
        channels, side = supernet.pictures
        task = from_npz(folder / f'{supernet.name}.npz').adapted(channels, side)
        train = split(task).train
        self.model = supernet.build().eval()
        self.classes = task.num_classes
        self.train, self.test = scaled(task.train_x, train), scaled(task.test_x, train)
        self.train_y, self.test_y = task.train_y, task.test_y
        arguments = supernet.space['arguments']
        self.make = lambda: mutate(
            resolve(supernet.space['name'])(**{**arguments, 'width': arguments['width'] // 2}), supernet.strategy
        )
        shape = (2, channels, side, side)
        self.structure, self.target = structure_of(self.model, shape), structure_of(self.make(), shape)
        self.accuracy = accuracy(self.model, self.test, self.test_y)

    def run(self, method: str, seed: int) -> dict[str, Any]:
        index = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))[:PICTURES]
        x, y = self.train[index], self.train_y[index]
        model = self.make()
        alphas = choices(self.model)
        for label, choice in choices(model).items():
            choice.alpha.data.copy_(alphas[label].alpha.data)
        start = time.process_time()
        model.load_state_dict(self.narrowed(method, model, x), strict=False)
        seconds = time.process_time() - start
        reestimate(model, x.split(128))
        return {
            'source': self.accuracy,
            'mapped': accuracy(model, self.test, self.test_y),
            'ridge': self.ridge(model, x, y),
            'seconds': seconds,
        }

    def narrowed(self, method: str, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        state = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        if method == 'narrow':
            return narrow(self.model, self.structure, model, self.target, x).tensors
        if method == 'weight selection':
            return weight_selection(state, model.state_dict())
        share = None
        if method == 'without data':
            covariances = weight_covariances(state, self.structure)
            couple, share = selecting(state, self.structure, covariances), regressing(covariances)
        else:
            couple = subset(method, state, self.structure)
        return map_tensors(state, self.structure, self.target, couple=couple, share=share).tensors

    def ridge(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        """Accuracy of a ridge classifier on the features of the pictures used."""
        name = find_head(model)
        features, labels = features_of(model, name, [(x, y)], 'cpu')
        head = ridge(features, labels, self.classes)
        features, labels = features_of(model, name, [(self.test, self.test_y)], 'cpu')
        return float(((features @ head.weight.T + head.bias).argmax(1) == labels).float().mean())


def scaled(x: Tensor, images: Images) -> Tensor:
    return (x.float() - images.mean) / images.std


def subset(method: str, state: dict[str, Tensor], source: Structure) -> Couple:
    """Baselines that keep some channels of each space and drop the rest."""
    even = evenly(source)

    def couple(theirs: ChannelSpace, mine: ChannelSpace) -> Tensor:
        if len(mine) >= len(theirs):
            return even(theirs, mine)
        if method == 'first':
            chosen = torch.arange(len(mine))
        elif method == 'uniform':
            chosen = torch.linspace(0, len(theirs) - 1, len(mine)).round().long()
        else:  # magnitude: the largest L1 norm of the weights that make a channel, over all layers that make it
            norm = torch.zeros(len(theirs))
            for name, axis, _ in theirs.places:
                axes = source.channels.tensors[name]
                made = axes.channels[axis]
                if axis == 0 and IN in axes.roles and made is not None:
                    _, here, there = np.intersect1d(theirs.channels, made, return_indices=True)
                    norm[here] += state[name][there].abs().flatten(1).sum(1)
            chosen = norm.argsort(descending=True, stable=True)[: len(mine)].sort().values
        return nn.functional.one_hot(chosen, len(theirs)).T.double()

    return couple


def weight_selection(state: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Evenly spaced elements along each dimension (Xu et al., *Initializing Models with Larger Ones*, ICLR 2024)."""
    selected = {}
    for name, tensor in target.items():
        if name in state and state[name].dim() == tensor.dim():
            value = state[name]
            for dim, size in enumerate(tensor.shape):
                if value.shape[dim] != size:
                    value = value.index_select(dim, torch.linspace(0, value.shape[dim] - 1, size).round().long())
            selected[name] = value
    return selected


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    return float((torch.cat([model(part) for part in x.split(256)]).argmax(1) == y).float().mean())


def report(results: list[dict[str, Any]]) -> None:
    """Write narrowing.md."""
    lines = ["Accuracy left at half the width, as a share of the source's: mean (smallest) over seeds.", '']
    for part, tasks in (('New tasks', TASKS), ('Tasks that were looked at while the method was made', DEVELOPMENT)):
        for head in ('mapped', 'ridge'):
            lines += table(part, head, tasks, results)
    text = '\n'.join(lines).rstrip() + '\n'
    (HERE / 'narrowing.md').write_text(text)
    print(text)


def table(part: str, head: str, tasks: list[str], results: list[dict[str, Any]]) -> list[str]:
    shares: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    seconds: dict[str, list[float]] = defaultdict(list)
    source = {}
    for row in results:
        if row['task'] in tasks:
            shares[row['method']][row['task']][row['seed']] = row[head] / row['source']
            seconds[row['method']].append(row['seconds'])
            source[row['task']] = row['source']
    tasks = [task for task in tasks if task in source]
    if not tasks:
        return []
    named = 'the classifier mapped' if head == 'mapped' else 'a ridge classifier on the features'
    titles = ' | '.join(f'{task} ({source[task]:.3f})' for task in tasks)
    lines = [f'{part}, {named}:', '', f'| method | {titles} | median | CPU seconds |', '|---' * (len(tasks) + 3) + '|']
    for method in (each for each in METHODS if each in shares):
        means = [statistics.mean(shares[method][task].values()) for task in tasks]
        lows = [min(shares[method][task].values()) for task in tasks]
        cells = ' | '.join(f'{mean:.2f} ({low:.2f})' for mean, low in zip(means, lows, strict=True))
        spent = statistics.median(seconds[method])
        lines.append(f'| {method} | {cells} | {statistics.median(means):.2f} | {spent:.1f} |')
    pairs = [(task, seed) for task in tasks for seed in shares['narrow'][task]]
    for ours in (each for each in OURS if each in shares):
        others = [shares[each] for each in METHODS if each not in OURS]
        wins = sum(all(shares[ours][task][seed] > other[task].get(seed, 0.0) for other in others) for task, seed in pairs)
        lines.append(f'\n`{ours}` is better than every baseline on {wins} of {len(pairs)} pairs of task and seed.')
    return [*lines, '']


if __name__ == '__main__':
    main()
