"""Dataset distances: agreement, laws, speed beside microsoft/otdd, and how the sliced one scales.

    python benchmarks/distance.py --data DIR --peers DIR                    # agreement, laws, sliced, ranking
    python benchmarks/distance.py --data DIR --peers DIR --otdd CHECKOUT --otdd-python PYTHON   # and speed beside the peer
    python benchmarks/distance.py --report

DIR of --peers holds NAME.npz (x, y) and reference.json. One thread. Results are appended to results/distance.jsonl, one
line a measurement, and are not repeated; delete a line to measure it again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ot
import torch
from scipy.stats import spearmanr

from nni_warmstart import DatasetSketch, Supernet, dataset_distance
from nni_warmstart.data import from_npz
from nni_warmstart.distance.label_distances import squared_distances
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.zoo import ranking

HERE = Path(__file__).resolve()
RESULTS = HERE.parent / 'results'
PATH = RESULTS / 'distance.jsonl'
COMPONENTS = [('fashion_a', 'digits'), ('fashion_b', 'fashion_b_rotated')]
PIXELS = [('fashion_mnist', 'mnist'), ('mnist', 'usps')]
SPEED = [('64-d', pair, n) for pair in COMPONENTS for n in (500, 1000, 2000)]
SPEED += [(kind, pair, n) for kind in ('784-d', '1024-d') for pair in PIXELS for n in (1000, 2000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='folder of tasks, NAME.npz')
    parser.add_argument('--peers', type=Path, help="folder of the peer's inputs and reference.json")
    parser.add_argument('--otdd', type=Path, help='checkout of microsoft/otdd')
    parser.add_argument('--otdd-python', type=Path, help='interpreter that can import it')
    parser.add_argument('--report', action='store_true', help='write table and figure, run nothing')
    parser.add_argument('--worker', nargs=3, metavar=('PAIR', 'METHOD', 'REPEATS'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.worker:
        worker(*arguments.worker)
        return
    if not arguments.report:
        measure('agreement', lambda: agreement(arguments.peers))
        measure('laws', lambda: laws(arguments.data))
        for embedding in ('pixels', 'random_conv'):
            measure(f'sliced, {embedding}', lambda embedding=embedding: sliced(arguments.data, embedding))
        measure('scaling', scaling)
        measure('ranking', lambda: rank_32(arguments.data))
        if arguments.otdd:
            for kind, pair, n in SPEED:
                for method in ('gaussian', 'exact'):
                    name = f'speed, {kind}, {pair[0]} to {pair[1]}, {n}, {method}'
                    measure(name, lambda kind=kind, pair=pair, n=n, method=method: speed(arguments, kind, pair, n, method))
            for kind, pair in (('64-d', COMPONENTS[0]), ('1024-d', PIXELS[0])):
                for method in ('gaussian', 'exact'):
                    name = f'memory, {kind}, {pair[0]} to {pair[1]}, 2000, {method}'
                    measure(name, lambda kind=kind, pair=pair, method=method: memory(arguments, kind, pair, method))
    report({row['name']: row for row in rows()})


def measure(name: str, function: Callable[[], dict[str, Any]]) -> None:
    if any(row['name'] == name for row in rows()):
        return
    row = {'name': name, **function()}
    with PATH.open('a') as file:
        file.write(json.dumps(row) + '\n')
    print({key: value for key, value in row.items() if key != 'values'}, flush=True)


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PATH.read_text().splitlines()] if PATH.exists() else []


def agreement(peers: Path) -> dict[str, Any]:
    """With the brute-force values of reference.json, which are half the squared distance; and how far the peer is."""
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


def speed(arguments: argparse.Namespace, kind: str, pair: tuple[str, str], n: int, method: str) -> dict[str, Any]:
    """Ours and the peer's, in turns, each in its own process; the linear programme alone; peak memory above the start's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'pair.npz'
        sets = [inputs(arguments, kind, name, n) for name in pair]
        np.savez(path, x=sets[0][0], y=sets[0][1], u=sets[1][0], v=sets[1][1])
        repeats = '3' if kind == '64-d' else '2'
        peer = [str(arguments.otdd_python), str(HERE.parent / 'peer_otdd.py'), str(arguments.otdd), str(path), method]
        ours = [sys.executable, str(HERE), '--worker', str(path), method, '3']
        found: dict[str, Any] = {'ours': call(ours)}
        found['peer'] = call([*peer, 'single', repeats])
        if kind != '64-d' and method == 'gaussian':
            found['peer, double'] = call([*peer, 'double', '1'])
        again = call(ours)
        found['ours']['seconds'] += again['seconds']
        found['ours']['bare_emd'] += again['bare_emd']
    return {'values': found, **{side: statistics.median(each['seconds'] or [0]) for side, each in found.items()}}


def memory(arguments: argparse.Namespace, kind: str, pair: tuple[str, str], method: str) -> dict[str, Any]:
    """Peak above the start in MB, ours and the peer's, at 2000 samples; an n x n matrix of doubles has 32 MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'pair.npz'
        sets = [inputs(arguments, kind, name, 2000) for name in pair]
        np.savez(path, x=sets[0][0], y=sets[0][1], u=sets[1][0], v=sets[1][1])
        peer = [str(arguments.otdd_python), str(HERE.parent / 'peer_otdd.py'), str(arguments.otdd), str(path), method]
        ours = [sys.executable, str(HERE), '--worker', str(path), method, '1']
        return {'ours': call(ours)['peak_mb'], 'peer': call([*peer, 'single', '1'])['peak_mb']}


def call(command: list[str]) -> dict[str, Any]:
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def inputs(arguments: argparse.Namespace, kind: str, name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n samples: the peer's own 64 principal components, or raw pixels."""
    if kind == '64-d':
        file = np.load(arguments.peers / f'{name}.npz')
        return file['x'][:n], file['y'][:n]
    task = from_npz(arguments.data / f'{name}.npz')
    x = task.train_x[:n, 0].float() / 255
    if kind == '784-d':
        x = x[:, 2:30, 2:30]
    return x.flatten(1).numpy(), task.train_y[:n].numpy()


def worker(pair: str, method: str, repeats: str) -> None:
    """Measure ours in this process, and print one JSON line."""
    arrays = np.load(pair)
    a, b = (arrays['x'], arrays['y']), (arrays['u'], arrays['v'])
    small = (a[0][:40], a[1][:40])
    dataset_distance(small, small, method=method)  # imports
    before = resident(reset=True)
    seconds, value = [], 0.0
    for _ in range(int(repeats)):
        start = time.perf_counter()
        value = dataset_distance(a, b, method=method).value
        seconds.append(time.perf_counter() - start)
    peak = resident('VmHWM') - before
    cost = ready_cost(a, b, method)
    bare = []
    for _ in range(int(repeats)):
        start = time.perf_counter()
        ot.emd([], [], cost, numItermax=10_000_000)
        bare.append(time.perf_counter() - start)
    print(json.dumps({'value': value**2 / 2, 'seconds': seconds, 'peak_mb': peak, 'bare_emd': bare}))


def resident(field: str = 'VmRSS', *, reset: bool = False) -> float:
    """Resident memory of this process in MB (VmHWM: its peak); ``reset`` starts the peak anew. Linux only."""
    if reset:
        Path('/proc/self/clear_refs').write_text('5')
    status = Path('/proc/self/status').read_text()
    return int(status.split(f'{field}:')[1].split()[0]) / 1024


def ready_cost(a: Any, b: Any, method: str) -> np.ndarray:
    """The full ground cost that the linear programme gets."""
    from nni_warmstart.distance.label_distances import exact_label_distances
    from nni_warmstart.distance.otdd import label_distances

    first, second = (DatasetSketch.from_dataset(each, max_samples=None) for each in (a, b))
    cost = squared_distances(first.samples, second.samples)
    shape = (first.num_classes, second.num_classes)
    labels = (
        exact_label_distances(cost, first.labels, second.labels, shape)
        if method == 'exact'
        else label_distances(first, second)
    )
    return (cost + labels[first.labels][:, second.labels]).numpy()


def report(found: dict[str, dict[str, Any]]) -> None:
    """Write results/distance.md and results/sliced.png."""
    lines = ['| measured | found |', '|---|---|']
    if 'agreement' in found:
        row = found['agreement']
        low, high = row['peer']
        lines += [
            f'| largest relative error against brute force, {row["cases"]} cases | {row["largest_relative_error"]:.1e} |',
            f"| microsoft/otdd's values against brute force | {low:+.1%} to {high:+.1%} |",
        ]
    if 'laws' in found:
        row = found['laws']
        lines += [
            f'| self-distance, in typical distances (exact, 12 tasks) | {row["self_distance"]:.1e} |',
            f'| asymmetry, in typical distances | {row["asymmetry"]:.1e} |',
            f'| largest excess over the triangle inequality, {row["triples"]} triples | {row["triangle_excess"]:.3f} '
            '(none: below 0) |',
        ]
    for embedding in ('pixels', 'random_conv'):
        if f'sliced, {embedding}' in found:
            row = found[f'sliced, {embedding}']
            spearman = ', '.join(f'{value:.3f}' for value in row['spearman_sliced'])
            spread = row['relative_spread_over_seeds']
            lines += [
                f'| sliced with exact, Spearman over {row["pairs"]} pairs of tasks, {embedding}, 3 seeds | {spearman} |',
                f'| gaussian with exact, the same pairs | {row["spearman_gaussian"]:.3f} |',
                f'| spread of a sliced value over seeds, {embedding} | {spread["mean"]:.1%} on average, '
                f'{spread["largest"]:.1%} at most |',
            ]
    if 'ranking' in found:
        row = found['ranking']
        cells = ', '.join(f'{by} {value:.1f} s' for by, value in row['seconds'].items())
        lines.append(f'| ranking {row["entries"]} entries, the new dataset sketched | {cells} |')
    lines += ['', *speed_table(found)]
    text = '\n'.join(lines) + '\n'
    (RESULTS / 'distance.md').write_text(text)
    print(text)
    if 'scaling' in found:
        draw(found['scaling']['values'])


def speed_table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        'Seconds on one thread, medians; the peer in single precision, its default, and in double precision where single '
        'fails on some pairs.',
        '',
        '| features, pair, samples, method | ours | otdd | ratio | otdd, double | ratio | ours / emd |',
        '|---' * 7 + '|',
    ]
    for name, row in found.items():
        if not name.startswith('speed'):
            continue
        values = row['values']
        failure = values['peer']['failure']
        peer = 'fails' if failure else f'{row["peer"]:.2f}'
        ratio = '-' if failure else f'{row["peer"] / row["ours"]:.1f}'
        double = row.get('peer, double')
        bare = row['ours'] / statistics.median(values['ours']['bare_emd'])
        lines.append(
            f'| {name.removeprefix("speed, ")} | {row["ours"]:.2f} | {peer} | {ratio} | '
            + (f'{double:.1f} | {double / row["ours"]:.0f}' if double else '- | -')
            + f' | {bare:.2f} |'
        )
    if len(lines) == 4:
        return []
    lines += ['', '| peak memory above the start, MB | ours | otdd |', '|---|---|---|']
    for name, row in found.items():
        if name.startswith('memory'):
            lines.append(f'| {name.removeprefix("memory, ")} | {row["ours"]:.0f} | {row["peer"]:.0f} |')
    return lines


def draw(values: dict[str, dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    sizes = np.array([int(n) for n in values])
    for method in ('sliced', 'gaussian'):
        mine = [(int(n), seconds[method]) for n, seconds in values.items() if method in seconds]
        axes.loglog(
            *zip(*mine, strict=True), marker='o', label=f'{method}{" (linear programme)" if method == "gaussian" else ""}'
        )
    first = values[next(iter(values))]['sliced']
    guide = first * sizes * np.log(sizes) / (sizes[0] * np.log(sizes[0]))
    axes.loglog(sizes, guide, linestyle=':', color='grey', label='n log n')
    axes.set(xlabel='samples on each side', ylabel='seconds (one thread)', title='Dataset distance, 64 dimensions')
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / 'sliced.png', dpi=120)


if __name__ == '__main__':
    main()
