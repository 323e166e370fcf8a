"""Alignment and fusion of the networks that sidak/otfusion was measured on, beside its figures.

    python benchmarks/otfusion/run.py --peers DIR --data DIR [--otfusion CHECKOUT]
    python benchmarks/otfusion/run.py --report

DIR of --peers holds otfusion/NETWORK_{A,B,W}.safetensors, that of --data the idx files of Fashion-MNIST, gzipped (Debian
package dataset-fashion-mnist), CHECKOUT is github.com/sidak/otfusion, which is then run beside ours. One thread. Results are
appended to otfusion.jsonl, one line a measurement, and are not repeated; delete a line to measure it again. Accuracy
is that on the 10,000 official test pictures; samples and what is trained on are of the training set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.rows import Rows
from benchmarks.otfusion.networks import METHODS, NETWORKS, REPAIRS, STEPS, Bench, filled, timed
from benchmarks.otfusion.report import report
from nni_warmstart.mapping.alignment import align, fuse
from nni_warmstart.mapping.mapper import map_tensors
from nni_warmstart.mapping.repair import activations, carried, noise, repair
from nni_warmstart.tracing.structure import structure_of

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)
PAIRS = (('A', 'B'), ('W', 'B'), ('A', 'W'))
PEER_RUNS = (*((*pair, 'pictures') for pair in PAIRS), ('A', 'B', 'weights'))

rows = Rows(HERE / 'otfusion.jsonl', ('what', 'network', 'source', 'target', 'method', 'seed'))


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
                measure({'what': 'alone', 'network': network, 'source': which}, alone, bench, network, which)
            measure({'what': 'permuted', 'network': network}, permuted, bench, network)
            for method in METHODS:
                for source, target in PAIRS:
                    key = {'what': 'fused', 'network': network, 'source': source, 'target': target, 'method': method}
                    measure(key, fused, bench, network, source, target, method)
                for seed in SEEDS:
                    measure({'what': 'trained', 'network': network, 'seed': seed}, trained, bench, network, seed)
            measure({'what': 'seconds', 'network': network}, seconds, bench, network)
            for source, target, method in PEER_RUNS if arguments.otfusion else ():
                key = {'what': 'otfusion', 'network': network, 'source': source, 'target': target, 'method': method}
                folders = (arguments.otfusion, arguments.peers, arguments.data)
                measure(key, peer, folders, network, source, target, method)
    report(rows.all())


def measure(key: dict[str, Any], function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    """Add a row, its figures to four digits, if there is none of that key."""
    rows.measure(key, lambda: rounded(function(*arguments)))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return float(f'{value:.4g}') if isinstance(value, float) else value


def alone(bench: Bench, network: str, which: str) -> dict[str, float]:
    """A network as it is."""
    return bench.score(bench.load(network, which))


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


def peer(folders: tuple[Path, Path, Path], *run: str) -> dict[str, Any]:
    """What otfusion, in the first of the folders, makes of the same networks and pictures, in the others."""
    script = [sys.executable, '-W', 'ignore', '-O', str(Path(__file__).with_name('peer_otfusion.py'))]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([*script, *map(str, folders), *run], capture_output=True, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f'otfusion failed: {result.stderr[-500:]}')
    return json.loads(result.stdout.splitlines()[-1])


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


if __name__ == '__main__':
    main()
