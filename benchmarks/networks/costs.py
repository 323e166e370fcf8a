"""Targets for the cost of the found network: are they kept, what do they cost, and are the costs of candidates right?

    python benchmarks/networks/costs.py --peers DIR   # one thread; measures only what costs.jsonl lacks
    python benchmarks/networks/costs.py --report      # writes the tables from the rows

Searches on scikit-learn's digits, without a penalty and with one, each with a target between what all networks cost and
what the free search found; the found networks are trained from scratch. Costs by candidate are compared with those of whole
networks, and with the milliseconds of all cells on a Raspberry Pi 5 in DIR/nb201/nb201.csv, which is not shipped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.rows import Rows
from benchmarks.networks.ground_truth import cell_string
from nni_warmstart.cli.common import quiet
from nni_warmstart.nni_adapter.cost_profiler import KINDS, CostProfiler
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.nni_adapter.model_spaces import create
from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.retrain import retrain
from nni_warmstart.runs.search import run_search
from nni_warmstart.utils import costs

HERE = Path(__file__).resolve().parent
CELLS = {'name': 'nasbench201', 'width': 16, 'depth': 1, 'image_size': 32}
EDGES = [f'cell/{source}_{node}' for node in (1, 2, 3) for source in range(node)]
OPS = ('none', 'skip_connect', 'conv_1x1', 'conv_3x3', 'avg_pool_3x3')
SPACES: dict[str, dict[str, Any]] = {
    'nasbench201': {'width': 8, 'depth': 1, 'image_size': 16},
    'darts': {'width': 4, 'num_cells': 3, 'image_size': 16},
}
SOURCES = {'nasbench201': 'joint-nasbench201-w8', 'darts': 'joint-darts-w4'}
EPOCHS, RETRAINED = 5, 10
SEARCHES = [
    (space, kind, share, seed)
    for seed in (0, 1)
    for space, kind, share in (
        ('nasbench201', 'multiply_adds', 0.6),
        ('nasbench201', 'multiply_adds', 0.3),
        ('nasbench201', 'latency', 0.5),
        ('darts', 'multiply_adds', 0.5),
        ('darts', 'latency', 0.5),
    )
]
"""Space, cost, share of what the free search's choices cost, and seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', type=Path, help='folder with nb201/nb201.csv')
    parser.add_argument('--report', action='store_true', help='measure nothing, write the tables')
    arguments = parser.parse_args()
    rows = Rows(HERE / 'costs.jsonl', ('what', 'space', 'kind', 'share', 'seed'))
    if not arguments.report:
        quiet()
        torch.set_num_threads(1)
        if arguments.peers is not None:
            for kind in KINDS:
                rows.measure({'what': 'ranking', 'kind': kind}, ranking, arguments.peers / 'nb201' / 'nb201.csv', kind)
        rows.measure({'what': 'whole networks'}, whole_networks)
        for space, kind, share, seed in SEARCHES:
            free = {'what': 'search', 'space': space, 'kind': None, 'share': None, 'seed': seed}
            rows.measure(free, searched, space, seed, None)
            limited = {'what': 'search', 'space': space, 'kind': kind, 'share': share, 'seed': seed}
            if not rows.has(**limited):
                (row,) = [row for row in rows.all() if all(row.get(key) == free[key] for key in rows.key)]
                penalty = {'cost': kind, 'target': target_of(space, kind, share, row['architecture']), 'weight': 2.0}
                rows.measure(limited, searched, space, seed, penalty)
    report(rows.all())


def profiler_of(space: dict[str, Any], kind: str) -> CostProfiler:
    arguments = {key: value for key, value in space.items() if key != 'name'}
    size = space['image_size']
    return CostProfiler(create(space['name'], arguments, 10), torch.zeros(1, 3, size, size), kind)


def ranking(path: Path, kind: str) -> dict[str, Any]:
    """Compare costs by candidate with the milliseconds of a peer's device, by rank, over all cells of NAS-Bench-201."""
    with path.open() as file:
        known = {row['arch']: float(row['pi5_litert_cifar100_ms']) for row in csv.DictReader(file)}
    cells = [dict(zip(EDGES, ops, strict=True)) for ops in itertools.product(OPS, repeat=len(EDGES))]
    profiler = profiler_of(CELLS, kind)
    pairs = [(profiler.profile(cell), known[cell_string(cell)], 'none' in cell.values()) for cell in cells]
    without = [pair for pair in pairs if not pair[2]]
    return {
        'cells': len(pairs),
        'spearman': correlation(pairs),
        'without_none': correlation(without),
    }


def whole_networks(count: int = 60) -> dict[str, Any]:
    """Compare the latency that the candidates sum up to with that of whole networks, on cells drawn at random."""
    profiler, generator = profiler_of(CELLS, 'latency'), random.Random(0)
    sums, wholes = [], []
    for _ in range(count):
        cell = {edge: generator.choice(OPS) for edge in EDGES}
        network = freeze(create('nasbench201', {'width': 16, 'depth': 1}, 10), dict(cell))
        sums.append(profiler.profile(cell))
        wholes.append(costs.latency(network, torch.zeros(1, 3, 32, 32), seconds=0.3).median)
    errors = sorted(abs(a / b - 1) for a, b in zip(sums, wholes, strict=True))
    return {
        'cells': count,
        'spearman': correlation(list(zip(sums, wholes, strict=True))),
        'median_error': round(statistics.median(errors), 4),
        'error_90': round(errors[int(0.9 * count)], 4),
    }


def correlation(pairs: list[Any]) -> float:
    """Return the rank correlation (Spearman) of the first two values of tuples."""
    return round(float(spearmanr([pair[0] for pair in pairs], [pair[1] for pair in pairs]).statistic), 4)


def target_of(space: str, kind: str, share: float, architecture: dict[str, Any]) -> float:
    """Return a target between what all networks of a space cost and what an architecture costs."""
    profiler = profiler_of({'name': space, **SPACES[space]}, kind)
    return profiler.shared + share * (profiler.profile(architecture) - profiler.shared)


def searched(space: str, seed: int, penalty: dict[str, Any] | None) -> dict[str, Any]:
    """Search on the digits, and train what was found from scratch."""
    document = {
        'data': {'name': 'digits'},
        'space': {'name': space, **SPACES[space]},
        'evaluator': {'max_epochs': EPOCHS, 'batch_size': 64, 'learning_rate': 0.05},
        'strategy': {'name': 'WarmStartDARTS', 'source': SOURCES[space], **({'penalty': penalty} if penalty else {})},
    }
    with tempfile.TemporaryDirectory() as folder:
        run, net = Path(folder) / 'run', Path(folder) / 'net'
        result = run_search(parse_search(document, HERE), seed=seed, out=run, progress=False)
        document['evaluator']['max_epochs'] = RETRAINED
        trained = retrain(parse_search(document, HERE), run, out=net, seed=seed, progress=False)
    return {
        'target': penalty and penalty['target'],
        'costs': result['costs'],
        'supernet': round(result['final']['test_accuracy'], 4),
        'accuracy': round(trained['final'], 4),
        'architecture': result['architecture'],
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Write costs.md."""
    lines = [
        '# Costs of found networks',
        '',
        'Made by `python benchmarks/networks/costs.py --peers DIR`.',
        '',
        '## Are targets kept?',
        '',
        f'Searches of {EPOCHS} epochs on the digits from the shipped sources, weight 2. Target: the cost that all networks',
        'share, and a share of what the candidates of the free search cost more. Found: the cost of the found network over',
        f'the target. Accuracy: of the found network, {RETRAINED} epochs from scratch, on the test images; lost: that of',
        'the free search less that of the search with the target. Means over seeds, with the standard deviation.',
        '',
        '| space | cost | share | seeds | found / target | worst | accuracy | lost, points |',
        '|---' * 8 + '|',
    ]
    found = [row for row in rows if row['what'] == 'search']
    free = {(row['space'], row['seed']): row for row in found if row['kind'] is None}
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        if row['kind'] is not None:
            groups[row['space'], row['kind'], row['share']].append(row)
    for (space, kind, share), each in groups.items():
        key = 'latency_ms' if kind == 'latency' else kind
        ratios = [row['costs'][key] / row['target'] for row in each]
        lost = [100 * (free[space, row['seed']]['accuracy'] - row['accuracy']) for row in each]
        worst = max(ratios, key=lambda ratio: abs(ratio - 1))
        lines.append(
            f'| {space} | {kind} | {share} | {len(each)} | {spread(ratios, ".3f")} | {worst:.3f} '
            f'| {statistics.fmean(row["accuracy"] for row in each):.3f} | {spread(lost, "+.2f")} |'
        )
    lines += ['', '## Are the costs of candidates right?', '']
    for row in rows:
        if row['what'] == 'whole networks':
            lines += [
                f'Latency: of {row["cells"]} cells of `nasbench201` (width 16), drawn at random, the sums of the candidates',
                f'differ from the whole networks by {row["median_error"]:.1%} (median; 90 % of them by at most '
                f'{row["error_90"]:.0%}); rank',
                f'correlation {row["spearman"]:.2f}. Parameters and multiply-adds are equal.',
                '',
            ]
    lines += [
        'Rank correlation (Spearman) with the milliseconds of the 15,625 cells of NAS-Bench-201 on a Raspberry Pi 5. Its',
        'engine (LiteRT) leaves out what `none` cuts off; PyTorch does not, and its pooling takes longer:',
        '',
        '| cost | all cells | cells without `none` |',
        '|---|---|---|',
        *(
            f'| {row["kind"]} | {row["spearman"]:.2f} | {row["without_none"]:.2f} |'
            for row in rows
            if row['what'] == 'ranking'
        ),
    ]
    (HERE / 'costs.md').write_text('\n'.join(lines) + '\n')


def spread(values: list[float], form: str) -> str:
    mean = format(statistics.fmean(values), form)
    return mean if len(values) < 2 else mean + ' ± ' + format(statistics.stdev(values), form.lstrip('+'))


if __name__ == '__main__':
    main()
