"""Dataset distances: agreement, laws, speed beside microsoft/otdd, and how the sliced one scales.

    python benchmarks/distance/run.py --data DIR --peers DIR                    # agreement, laws, sliced, ranking
    python benchmarks/distance/run.py --data DIR --peers DIR --otdd CHECKOUT --otdd-python PYTHON # and speed beside the peer
    python benchmarks/distance/run.py --report

DIR of --peers holds NAME.npz (x, y) and reference.json. One thread. Results are appended to distance.jsonl, one
line a measurement, and are not repeated; delete a line to measure it again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.rows import Rows
from benchmarks.distance.report import report
from benchmarks.distance.speed import Peer, memory, speed
from nni_warmstart import DatasetSketch, Supernet, dataset_distance
from nni_warmstart.data import from_npz
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.zoo import ranking

HERE = Path(__file__).resolve().parent
COMPONENTS = [('fashion_a', 'digits'), ('fashion_b', 'fashion_b_rotated')]
PIXELS = [('fashion_mnist', 'mnist'), ('mnist', 'usps')]
SPEED = [('64-d', pair, n) for pair in COMPONENTS for n in (500, 1000, 2000)]
SPEED += [(kind, pair, n) for kind in ('784-d', '1024-d') for pair in PIXELS for n in (1000, 2000)]

rows = Rows(HERE / 'distance.jsonl', ('name',))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of tasks, NAME.npz')
    parser.add_argument('--peers', type=Path, help="folder of the peer's inputs and reference.json")
    parser.add_argument('--otdd', type=Path, help='checkout of microsoft/otdd')
    parser.add_argument('--otdd-python', type=Path, help='interpreter that can import it')
    parser.add_argument('--report', action='store_true', help='write table and figure, run nothing')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        rows.measure({'name': 'agreement'}, agreement, arguments.peers)
        rows.measure({'name': 'laws'}, laws, arguments.data)
        for embedding in ('pixels', 'random_conv'):
            rows.measure({'name': f'sliced, {embedding}'}, sliced, arguments.data, embedding)
        rows.measure({'name': 'scaling'}, scaling)
        rows.measure({'name': 'ranking'}, rank_32, arguments.data)
        if arguments.otdd:
            peer = Peer(arguments.otdd, arguments.otdd_python, arguments.peers, arguments.data)
            for kind, pair, n in SPEED:
                for method in ('gaussian', 'exact'):
                    name = f'speed, {kind}, {pair[0]} to {pair[1]}, {n}, {method}'
                    rows.measure({'name': name}, speed, peer, kind, pair, n, method)
            for kind, pair in (('64-d', COMPONENTS[0]), ('1024-d', PIXELS[0])):
                for method in ('gaussian', 'exact'):
                    name = f'memory, {kind}, {pair[0]} to {pair[1]}, 2000, {method}'
                    rows.measure({'name': name}, memory, peer, kind, pair, method)
    report({row['name']: row for row in rows.all()})


def agreement(peers: Path) -> dict[str, Any]:
    """Errors against the brute-force values of reference.json (half the squared distance), and those of the peer."""
    errors, gaps = [], []
    reference = json.loads((peers / 'reference.json').read_text())
    for row in reference:
        if not row['method'].startswith('brute force'):
            continue
        method = row['method'].rpartition(' ')[2]
        a, b = ((file['x'][: row['n']], file['y'][: row['n']]) for file in (np.load(peers / f'{row[k]}.npz') for k in 'ab'))
        found = dataset_distance(a, b, method=method).value ** 2 / 2
        errors.append(abs(found / row['value'] - 1))
        for other in reference:
            if other['method'] == f'otdd inner {method}' and all(other[key] == row[key] for key in ('a', 'b', 'n')):
                gaps.append(other['value'] / row['value'] - 1)
    return {'cases': len(errors), 'largest_relative_error': max(errors), 'peer': [min(gaps), max(gaps)]}


def laws(folder: Path) -> dict[str, Any]:
    """Self-distance, symmetry and triangle inequality over 12 tasks, exact, on shared samples."""
    sketches = [
        DatasetSketch.from_dataset(from_npz(path), max_samples=120) for path in sorted(folder.glob('*.npz'))[::2][:12]
    ]
    d, back = np.zeros((12, 12)), np.zeros((12, 12))
    for i, j in itertools.product(range(12), repeat=2):
        value = dataset_distance(sketches[i], sketches[j], method='exact').value
        (d if i <= j else back)[min(i, j), max(i, j)] = value
    full = d + d.T
    typical = float(np.median(d[np.triu_indices(12, 1)]))
    excess = max(full[i, k] - full[i, j] - full[j, k] for i, j, k in itertools.permutations(range(12), 3))
    return {
        'tasks': [sketch.name for sketch in sketches],
        'self_distance': float(d.diagonal().max()) / typical,
        'asymmetry': float(np.abs(np.triu(d, 1) - np.triu(back, 1)).max()) / typical,
        'triangle_excess': excess / typical,
        'triples': 12 * 11 * 10,
    }


def sliced(folder: Path, embedding: str) -> dict[str, Any]:
    """Rank correlation of sliced and Gaussian distances with the exact one over all pairs of tasks; several seeds."""
    paths = sorted(folder.glob('*.npz'))
    sketches = [DatasetSketch.from_dataset(from_npz(path), embedding=embedding, max_samples=200) for path in paths]
    pairs = list(itertools.combinations(sketches, 2))
    exact = [dataset_distance(a, b, method='exact').value for a, b in pairs]
    by_seed = [[dataset_distance(a, b, method='sliced', seed=seed).value for a, b in pairs] for seed in range(3)]
    gaussian = [dataset_distance(a, b).value for a, b in pairs]
    spread = [statistics.stdev(values) / statistics.mean(values) for values in zip(*by_seed, strict=True)]
    return {
        'pairs': len(pairs),
        'spearman_sliced': [float(spearmanr(exact, values)[0]) for values in by_seed],
        'spearman_gaussian': float(spearmanr(exact, gaussian)[0]),
        'relative_spread_over_seeds': {'mean': statistics.mean(spread), 'largest': max(spread)},
    }


def scaling() -> dict[str, Any]:
    """Seconds of the sliced distance (from ready sketches) and of the linear programme for more and more samples."""
    values = {}
    for n in (1000, 2000, 4000, 10_000, 30_000, 100_000):
        generator = torch.Generator().manual_seed(0)
        sketches = [
            DatasetSketch.from_dataset(
                (torch.randn(n, 64, generator=generator) + shift, torch.arange(n) % 10), max_samples=None
            )
            for shift in (0.0, 0.5)
        ]
        seconds = {'sliced': min(dataset_distance(*sketches, method='sliced').seconds for _ in range(3))}
        if n <= 4000:
            seconds['gaussian'] = dataset_distance(*sketches).seconds
        values[n] = seconds
    return {'values': values}


def rank_32(folder: Path) -> dict[str, Any]:
    """Seconds to rank a zoo of 32 entries, sketching the new dataset included."""
    space = mutate(create('nasbench201', {'width': 8, 'depth': 1, 'image_size': 16}, 10), 'DARTS')
    bare = Supernet.from_model(space, name='bare')
    paths = sorted(folder.glob('*.npz'))
    names = [path.stem for path in paths]
    entries = [
        bare.renamed(path.stem).with_sketches([DatasetSketch.from_dataset(from_npz(path)).compact()]) for path in paths
    ] + [
        bare.renamed(f'{path.stem}-again').with_sketches([DatasetSketch.from_dataset(from_npz(path)).compact()])
        for path in paths
    ]
    seconds = {}
    for by in ('otdd', 'sliced'):
        start = time.perf_counter()
        ranking.rank(entries[:32], from_npz(folder / 'fashion_mnist.npz'), by=by)
        seconds[by] = time.perf_counter() - start
    return {'entries': len(entries[:32]), 'seconds': seconds, 'first': names[0]}


if __name__ == '__main__':
    main()
