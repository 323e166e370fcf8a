"""Alignment and fusion of the networks that sidak/otfusion was measured on, beside its figures.

    python benchmarks/otfusion.py --peers DIR --data DIR [--otfusion CHECKOUT]
    python benchmarks/otfusion.py --report

DIR of --peers holds otfusion/NETWORK_{A,B,W}.safetensors, that of --data the idx files of Fashion-MNIST, gzipped (Debian
package dataset-fashion-mnist), CHECKOUT is github.com/sidak/otfusion, which is then run beside ours. One thread. Results are
appended to results/otfusion.jsonl, one line a measurement, and are not repeated; delete a line to measure it again. Accuracy
is that on the 10,000 official test pictures; samples and what is trained on are of the training set.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from nni_warmstart.mapping.alignment import align, fuse
from nni_warmstart.mapping.mapper import map_tensors
from nni_warmstart.mapping.repair import activations, carried, noise, repair
from nni_warmstart.tracing.structure import structure_of

RESULTS = Path(__file__).resolve().parent / 'results'
PATH = RESULTS / 'otfusion.jsonl'
SAMPLES = 200
SEEDS = (0, 1, 2)
STEPS = 50
PAIRS = (('A', 'B'), ('W', 'B'), ('A', 'W'))
PEER_RUNS = (*((*pair, 'pictures') for pair in PAIRS), ('A', 'B', 'weights'))
METHODS = ('pictures', 'weights', 'pictures and weights', 'noise', 'noise and weights')
REPAIRS = ('none', 'rescaled', 'regression')
CITED = {  # otfusion's test accuracy / loss: 200 activation samples; by weights the better of its two settings
    ('mlp', 'A', 'B'): {'pictures': '82.19', 'weights': '81.05 (weight matching 80.79)'},
    ('vgg', 'A', 'B'): {'pictures': '71.65', 'weights': '39.86 (weight matching 48.92)'},
    ('resnet', 'A', 'B'): {'pictures': '19.40', 'weights': 'error'},
    ('mlp', 'W', 'B'): {'pictures': '84.37 / 0.81', 'weights': 'error'},
    ('mlp', 'A', 'W'): {'pictures': '85.94 / 0.49', 'weights': 'error'},
    ('vgg', 'W', 'B'): {'pictures': '77.45 / 1.62', 'weights': 'error'},
    ('vgg', 'A', 'W'): {'pictures': '66.25 / 1.22', 'weights': 'error'},
    ('resnet', 'W', 'B'): {'pictures': '18.94 / 2.15', 'weights': 'error'},
}


class MLP(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 400 * k, bias=False), nn.Linear(400 * k, 200 * k, bias=False)
        self.fc3, self.fc4 = nn.Linear(200 * k, 100 * k, bias=False), nn.Linear(100 * k, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc4(F.relu(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))))


def conv(channels: int, made: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, made, kernel, stride, kernel // 2, bias=False)


class VGG(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        first = [conv(1, 16 * k), nn.ReLU(), nn.MaxPool2d(2), conv(16 * k, 32 * k), nn.ReLU(), nn.MaxPool2d(2)]
        then = [conv(32 * k, 64 * k), nn.ReLU(), conv(64 * k, 64 * k), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*first, *then)
        self.classifier = nn.Linear(576 * k, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Block(nn.Module):
    def __init__(self, channels: int, made: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, made, 3, stride), conv(made, made)
        self.shortcut = nn.Sequential(*([conv(channels, made, 1, stride)] if channels != made else []))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.conv1, self.layer1 = conv(1, 16 * k), nn.Sequential(Block(16 * k, 16 * k, 1))
        self.layer2 = nn.Sequential(Block(16 * k, 32 * k, 2))
        self.layer3 = nn.Sequential(Block(32 * k, 64 * k, 2))
        self.linear = nn.Linear(64 * k, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layer3(self.layer2(self.layer1(F.relu(self.conv1(x))))).mean((2, 3)))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {'mlp': MLP, 'vgg': VGG, 'resnet': ResNet}


class Bench:
    """Pictures and networks, each read once."""

    def __init__(self, peers: Path, data: Path) -> None:
        self.peers = peers / 'otfusion'
        self.test, self.train = pictures(data, 't10k'), pictures(data, 'train')
        chosen = torch.randperm(len(self.train[0]), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        self.samples = self.train[0][chosen]
        self.known: dict[tuple[str, str], dict[str, float]] = {}  # scores of what does not depend on a seed

    def load(self, network: str, which: str) -> nn.Module:
        model = NETWORKS[network](2 if which == 'W' else 1)
        model.load_state_dict(load_file(self.peers / f'{network}_{which}.safetensors'))
        return model.eval()

    def score(self, model: nn.Module, state: dict[str, Tensor] | None = None) -> dict[str, float]:
        model = filled(model, state)
        x, y = self.test
        with torch.no_grad():
            logits = torch.cat([model(part) for part in x.split(500)])
        return {'accuracy': 100 * float((logits.argmax(1) == y).float().mean()), 'loss': float(F.cross_entropy(logits, y))}

    def after_training(self, model: nn.Module, state: dict[str, Tensor], seed: int) -> dict[str, float]:
        model = filled(model, state).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        x, y = self.train
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(100 + seed))
        for batch in order[: 64 * STEPS].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        return self.score(model.eval())


def filled(model: nn.Module, state: dict[str, Tensor] | None) -> nn.Module:
    model = deepcopy(model)
    if state is not None:
        model.load_state_dict(state)
    return model


def pictures(data: Path, part: str) -> tuple[Tensor, Tensor]:
    x, y = (
        np.frombuffer(gzip.decompress(next(data.rglob(f'{part}-{kind}*.gz')).read_bytes()), np.uint8, offset=offset)
        for kind, offset in (('images', 16), ('labels', 8))
    )
    return (torch.from_numpy(x.reshape(-1, 1, 28, 28) / np.float32(255)) - 0.1307) / 0.3081, torch.from_numpy(y).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', type=Path, help='folder with otfusion/*.safetensors')
    parser.add_argument('--data', type=Path, help='folder with the gzipped idx files of Fashion-MNIST')
    parser.add_argument('--otfusion', type=Path, help='checkout of sidak/otfusion, to run it too')
    parser.add_argument('--only', choices=NETWORKS, help='measure one network')
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        bench = Bench(arguments.peers, arguments.data)
        for network in [arguments.only] if arguments.only else NETWORKS:
            for which in 'ABW':
                key = {'what': 'alone', 'network': network, 'source': which}
                measure(key, lambda n=network, w=which: bench.score(bench.load(n, w)))
            measure({'what': 'permuted', 'network': network}, lambda n=network: permuted(bench, n))
            for method in METHODS:
                for source, target in PAIRS:
                    key = {'what': 'fused', 'network': network, 'source': source, 'target': target, 'method': method}
                    measure(key, lambda n=network, s=source, t=target, m=method: fused(bench, n, s, t, m))
                for seed in SEEDS:
                    key = {'what': 'trained', 'network': network, 'seed': seed}
                    measure(key, lambda n=network, s=seed: trained(bench, n, s))
            measure({'what': 'seconds', 'network': network}, lambda n=network: seconds(bench, n))
            for source, target, method in PEER_RUNS if arguments.otfusion else ():
                key = {'what': 'otfusion', 'network': network, 'source': source, 'target': target, 'method': method}
                measure(key, lambda n=network, r=(source, target, method): peer(arguments, n, *r))
    report()


def measure(key: dict[str, Any], run: Callable[[], dict[str, Any]]) -> None:
    if not any(key.items() <= each.items() for each in results()):
        line = {**key, **run()}
        with PATH.open('a') as file:
            file.write(json.dumps(rounded(line)) + '\n')
        print(json.dumps(rounded(line)), flush=True)


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PATH.read_text().splitlines()] if PATH.exists() else []


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return float(f'{value:.4g}') if isinstance(value, float) else value


def permuted(bench: Bench, network: str) -> dict[str, Any]:
    """A network fused with itself in another order of channels."""
    model = bench.load(network, 'A')
    state, structure = model.state_dict(), structure_of(model, (2, 1, 28, 28))
    generator = torch.Generator().manual_seed(0)

    def shuffle(theirs: Any, mine: Any) -> Tensor:
        ends = np.concatenate([structure.channels.inputs, structure.channels.outputs])
        eye = torch.eye(len(mine), dtype=torch.float64)
        return eye if np.isin(mine.channels, ends).any() else eye[torch.randperm(len(mine), generator=generator)]

    other = map_tensors(state, structure, structure, couple=shuffle)
    sides = activations(filled(model, other.tensors), bench.samples), activations(model, bench.samples)
    result = {}
    for method, given in (('weights', None), ('pictures', sides)):
        back = align(other.tensors, structure, structure, state, activations=given)
        fused = fuse([back.tensors, state], [0.5, 0.5])
        result[method] = max(float((fused[n] - state[n]).abs().max() / state[n].abs().max()) for n in state)
    return {'error': result}


def sides(bench: Bench, network: str, source: str, target: str) -> tuple[nn.Module, nn.Module, Any, Any]:
    a, b = bench.load(network, source), bench.load(network, target)
    return a, b, structure_of(a, (2, 1, 28, 28)), structure_of(b, (2, 1, 28, 28))


def fused(bench: Bench, network: str, source: str, target: str, method: str) -> dict[str, Any]:
    """Half and half, without labels and without training."""
    a, b, of_a, of_b = sides(bench, network, source, target)
    x = noise(tuple(bench.samples.shape)) if 'noise' in method else bench.samples
    acts = activations(a, x), activations(b, x)
    given = None if method == 'weights' else acts
    mapping = align(a.state_dict(), of_a, of_b, b.state_dict(), activations=given, weights='weights' in method)
    plain = fuse([mapping.tensors, b.state_dict()], [0.5, 0.5])
    scores = {'none': bench.score(b, plain)}
    if given is not None:
        parents = [carried(acts[0], mapping, of_a, of_b), acts[1]]
        for kind in REPAIRS[1:]:
            scores[kind] = bench.score(b, repair(b, plain, x, parents, [0.5, 0.5], regress=kind == 'regression'))
    with torch.no_grad():
        before, after = a(bench.test[0][:1000]), filled(b, mapping.tensors)(bench.test[0][:1000])
    error = float((after - before).abs().max() / before.abs().max())
    return {'fused': scores, 'error': error}


def seconds(bench: Bench, network: str) -> dict[str, Any]:
    """Best of 7 runs of each step, A with B."""
    a, b, of_a, of_b = sides(bench, network, 'A', 'B')
    x, state, reference = bench.samples, a.state_dict(), b.state_dict()
    acts = activations(a, x), activations(b, x)
    mapping = align(state, of_a, of_b, reference, activations=acts)
    plain, parents = fuse([mapping.tensors, reference], [0.5, 0.5]), [carried(acts[0], mapping, of_a, of_b), acts[1]]

    def aligned() -> Any:
        structures = structure_of(a, (2, 1, 28, 28)), structure_of(b, (2, 1, 28, 28))
        seen = activations(a, x), activations(b, x)
        return align(a.state_dict(), *structures, reference, activations=seen), structures, seen

    def whole() -> None:
        mine, structures, seen = aligned()
        average = fuse([mine.tensors, reference], [0.5, 0.5])
        repair(b, average, x, [carried(seen[0], mine, *structures), seen[1]], [0.5, 0.5])

    steps: dict[str, Callable[[], Any]] = {
        'tracing both': lambda: (structure_of(a, (2, 1, 28, 28)), structure_of(b, (2, 1, 28, 28))),
        'activations of both': lambda: (activations(a, x), activations(b, x)),
        'align by pictures': lambda: align(state, of_a, of_b, reference, activations=acts),
        'align by weights': lambda: align(state, of_a, of_b, reference),
        'regression': lambda: repair(b, plain, x, parents, [0.5, 0.5]),
        'all of it by pictures': aligned,
        'with regression': whole,
    }
    return {'seconds': {name: min(timed(step) for _ in range(7)) for name, step in steps.items()}}


def peer(arguments: argparse.Namespace, *run: str) -> dict[str, Any]:
    """What otfusion makes of the same networks and pictures."""
    script = [sys.executable, '-W', 'ignore', '-O', str(Path(__file__).with_name('peer_otfusion.py'))]
    folders = [str(folder) for folder in (arguments.otfusion, arguments.peers, arguments.data)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([*script, *folders, *run], capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f'otfusion failed: {result.stderr[-500:]}')
    return json.loads(result.stdout.splitlines()[-1])


def timed(step: Callable[[], Any]) -> float:
    """Processor time, which on one thread is the wall-clock time of a machine that does nothing else."""
    start = time.process_time()
    step()
    return time.process_time() - start


def trained(bench: Bench, network: str, seed: int) -> dict[str, Any]:
    """Accuracy and loss at once and after some steps of training, of networks of B's width."""
    result: dict[str, Any] = {}
    a, b, of_a, of_b = sides(bench, network, 'A', 'B')
    w = bench.load(network, 'W')
    of_w, x, state = structure_of(w, (2, 1, 28, 28)), bench.samples, b.state_dict()
    made = {'A': activations(a, x), 'B': activations(b, x), 'W': activations(w, x)}
    starts = {'A itself': a.state_dict()}
    for name, model, structure, narrow in (('A', a, of_a, 'merge'), ('W', w, of_w, 'merge'), ('W', w, of_w, 'select')):
        mapping = align(model.state_dict(), structure, of_b, state, activations=(made[name], made['B']), narrow=narrow)
        carry = carried(made[name], mapping, structure, of_b)
        plain = fuse([mapping.tensors, state], [0.5, 0.5])
        if name == 'A':
            starts['A + B'] = plain
        if narrow == 'merge':
            starts[f'{name} + B, regression'] = repair(b, plain, x, [carry, made['B']], [0.5, 0.5])
        if name == 'W':
            starts[f'W narrowed, {narrow}, regression'] = repair(b, mapping.tensors, x, [carry], [1.0])
    for name, generator in (('first', None), ('random', torch.Generator().manual_seed(seed))):
        starts[f'W, {name} channels'] = map_tensors(w.state_dict(), of_w, of_b, couple=part_of(generator)).tensors
    starts['fresh'] = fresh(network, seed)
    for name, start in starts.items():
        if (network, name) not in bench.known or name in ('W, random channels', 'fresh'):
            bench.known[network, name] = bench.score(b, start)
        result[name] = {'before': bench.known[network, name], 'after': bench.after_training(b, start, seed)}
    return {'steps': STEPS, 'starts': result}


def part_of(generator: torch.Generator | None) -> Callable[[Any, Any], Tensor]:
    """Couplings that take some of a space's channels, the first ones or drawn at random, and drop the others."""

    def couple(theirs: Any, mine: Any) -> Tensor:
        order = torch.arange(len(theirs)) if generator is None else torch.randperm(len(theirs), generator=generator)
        if len(theirs) == len(mine):
            order = torch.arange(len(theirs))
        return torch.eye(len(theirs), dtype=torch.float64)[:, order[: len(mine)]]

    return couple


def fresh(network: str, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return NETWORKS[network](1).state_dict()


def report() -> None:
    lines = results()
    (RESULTS / 'otfusion.md').write_text('\n'.join([*fusion_table(lines), *training_table(lines), *checks(lines)]) + '\n')


def of(lines: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [line for line in lines if line['what'] == what]


def cell(score: dict[str, float] | None) -> str:
    return '' if score is None else f'{score["accuracy"]:.2f} / {score["loss"]:.3f}'


def fusion_table(lines: list[dict[str, Any]]) -> list[str]:
    alone = {(line['network'], line['source']): line['accuracy'] for line in of(lines, 'alone')}
    rows = [
        '# Fusion beside sidak/otfusion',
        '',
        'Test accuracy in % / cross-entropy on the 10,000 test pictures of Fashion-MNIST; each network has weight 1/2,',
        'no labels, no training. Matched by activations of 200 training *pictures*, by *weights*, by both, or, without',
        'data, by activations of 200 pictures of 1/f *noise*, alone or with the weights (what the package does).',
        'Then nothing, layers *rescaled* (REPAIR), or a *regression* of each layer, on the same 200 pictures.',
        "otfusion: run beside ours, on the same pictures, in the settings of its README; cited: the peers' README. One pair",
        'of networks each: differences of 1 to 3 points establish nothing.',
        '',
        '| network | fused | matched by | no repair | rescaled | regression | otfusion | cited | parents |',
        '|---' * 9 + '|',
    ]
    peers = {tuple(line[key] for key in ('network', 'source', 'target', 'method')): line for line in of(lines, 'otfusion')}
    for line in sorted(of(lines, 'fused'), key=lambda line: list(NETWORKS).index(line['network'])):
        network, source, target, method = (line[key] for key in ('network', 'source', 'target', 'method'))
        parents = ', '.join(f'{alone[network, which]:.2f}' for which in (source, target) if (network, which) in alone)
        shown = ' | '.join(cell(line['fused'].get(kind)) for kind in REPAIRS)
        theirs = result_of(peers.get((network, source, target, method)))
        cited = CITED.get((network, source, target), {}).get(method, '')
        rows.append(f'| {network} | {source} + {target} | {method} | {shown} | {theirs} | {cited} | {parents} |')
    rows += ['', '# Seconds of processor time, A with B, one thread, best of 7 runs', '']
    timings = of(lines, 'seconds')
    steps = list(timings[0]['seconds']) if timings else []
    rows += [f'| network | {" | ".join(steps)} | otfusion by pictures, by weights |', '|---|' + '---|' * (len(steps) + 1)]
    for line in timings:
        found = [peers.get((line['network'], 'A', 'B', method), {}).get('seconds') for method in METHODS[:2]]
        own = ' | '.join(f'{line["seconds"][step]:.3f}' for step in steps)
        rows.append(f'| {line["network"]} | {own} | {", ".join("-" if each is None else f"{each:.3f}" for each in found)} |')
    return rows


def result_of(line: dict[str, Any] | None) -> str:
    return '' if line is None else 'error' if 'failure' in line else cell(line)


def training_table(lines: list[dict[str, Any]]) -> list[str]:
    rows = [
        '',
        f'# After {STEPS} steps of training',
        '',
        "Networks of B's width: test accuracy in % at once -> after the steps (Adam 1e-3, batches of 64), loss after them;",
        'mean and standard deviation over 3 orders of the data. Matched by 200 pictures.',
        '',
    ]
    trained = of(lines, 'trained')
    networks = list(dict.fromkeys(line['network'] for line in trained))
    rows += ['| start | ' + ' | '.join(networks) + ' |', '|---|' + '---|' * len(networks)]
    for start in dict.fromkeys(name for line in trained for name in line['starts']):
        cells = []
        for network in networks:
            found = [line['starts'][start] for line in trained if line['network'] == network and start in line['starts']]
            if not found:
                cells.append('')
                continue
            after, loss = ([each['after'][key] for each in found] for key in ('accuracy', 'loss'))
            before = statistics.mean(each['before']['accuracy'] for each in found)
            spread = f'{statistics.mean(after):.2f} ± {statistics.stdev(after) if len(after) > 1 else 0:.2f}'
            cells.append(f'{before:.1f} -> {spread}, {statistics.mean(loss):.3f}')
        rows.append(f'| {start} | {" | ".join(cells)} |')
    return rows


def checks(lines: list[dict[str, Any]]) -> list[str]:
    rows = [
        '',
        '# Function kept',
        '',
        'Largest difference of a logit relative to the largest logit; of a network fused with itself in another order of',
        'its channels, the largest difference of a weight relative to the largest of its tensor.',
        '',
        '| network | carried over | error |',
        '|---|---|---|',
    ]
    for line in of(lines, 'fused'):
        if line['source'] == 'A':
            rows.append(
                f'| {line["network"]} | A in the order of {line["target"]}, by {line["method"]} | {line["error"]:.1e} |'
            )
    for line in of(lines, 'permuted'):
        worst = ', '.join(f'{name} {value:.1e}' for name, value in line['error'].items())
        rows.append(f'| {line["network"]} | A fused with A in another order | {worst} |')
    return rows


if __name__ == '__main__':
    main()
