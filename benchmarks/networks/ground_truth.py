"""Exported cells by ground truth: the accuracy that all 15,625 cells of NAS-Bench-201 have when they are trained in full.

    python benchmarks/networks/ground_truth.py --peers DIR [--zoo ZOO]  # looks up the cells of the claim's rows
    python benchmarks/networks/ground_truth.py --report                 # writes the tables from what was looked up

DIR has the table ``nb201/nb201.csv``, which is not shipped: test accuracies on CIFAR-10, CIFAR-100 and ImageNet16-120 after
200 epochs, mean over seeds (Dong et al., NATS-Bench, TPAMI 2021). It is about photographs, and no measure for handwriting.
ZOO is that of the claim. Controls that need no search are a cell drawn at random, and the cells of the claim's sources, as
a warm search exports them whose alphas do not move: without zeros, and at most two operations without parameters. What
was looked up is in ground_truth.jsonl, one cell a line.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.claim.report import rounded
from benchmarks.common.rows import read
from nni_warmstart import SupernetZoo
from nni_warmstart.nni_adapter.architectures import best_sample
from nni_warmstart.search.collapse import CAP, capped, without_zeros
from nni_warmstart.utils.files import write_json
from nni_warmstart.zoo.zoo import open_zoo

HERE = Path(__file__).resolve().parent
CLAIM = HERE.parent / 'claim'
ROWS = HERE / 'ground_truth.jsonl'
TRUTHS = ('cifar10', 'cifar100', 'imagenet16_120')
PHOTOGRAPHS = (
    'cifar10', 'clothing', 'dog_cat', 'flowers5', 'grocery', 'gtsrb', 'house_rooms', 'tinyimagenet_animals',
    'tinyimagenet_things',
)  # fmt: skip
"""Tasks of the claim that are photographs of things, for which the table speaks."""
NAMES = {'conv_1x1': 'nor_conv_1x1', 'conv_3x3': 'nor_conv_3x3'}
"""Operations that NATS-Bench names otherwise."""
SOURCES = ('joint-nasbench201-w16', 'joint-others-w16')
NNIS_RATE, PACED = '2a68403e33e8', 'f5f55426c58f'
"""Recipes of the claim: alphas at NNI's learning rate, and at the rate that a warm start has by default."""
SEARCHES: tuple[tuple[str, str, str, str, str], ...] = (
    ('cold', 'claim', PACED, 'cold', 'architecture'),
    ('cold, without crops', 'claim', PACED, 'cold, no crops', 'architecture'),
    ('cold, a quarter of the epochs', 'claim', PACED, 'cold', 'architecture_quarter'),
    ('warm', 'claim', PACED, 'warm', 'architecture'),
    ('warm, a quarter of the epochs', 'claim', PACED, 'warm', 'architecture_quarter'),
    ('warm, a quarter, at most two free operations', 'claim_networks', PACED, 'warm', 'architecture'),
    ("warm, alphas at NNI's rate", 'claim', NNIS_RATE, 'warm', 'architecture'),
    ('alphas of the source only', 'claim', PACED, 'alphas only', 'architecture'),
    ('weights of the source only', 'claim', PACED, 'weights only', 'architecture'),
    ('warm, a quarter, alphas reset', 'claim_networks', '7b3cc200e2c7', 'warm, alphas reset', 'architecture'),
)
"""Kinds of searches: name, file of rows, recipe, side, and key of the cell in a row."""
MANY_IMAGES = HERE.parent / 'budgets' / 'budgets.jsonl', 'cifar10_16k'
"""Rows and task of warm searches on 16,000 photographs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', type=Path, help='folder with nb201/nb201.csv')
    parser.add_argument('--zoo', help='with the sources of the claim (default: the shipped one)')
    parser.add_argument('--report', action='store_true', help='look up nothing, write the tables')
    arguments = parser.parse_args()
    if arguments.peers is not None:
        look_up(arguments.peers / 'nb201' / 'nb201.csv', open_zoo(arguments.zoo))
    elif not arguments.report:
        parser.error('--peers is missing.')
    report(read(ROWS))


def known_cells(table: Path) -> dict[str, list[float]]:
    """Return cell -> its accuracies (:data:`TRUTHS`) in a table of NATS-Bench."""
    with table.open() as file:
        return {row['arch']: [float(row[key]) for key in TRUTHS] for row in csv.DictReader(file)}


def look_up(table: Path, zoo: SupernetZoo) -> None:
    """Write ground_truth.jsonl: all cells together, those of the sources, and every cell that a search exported.

    A source that the zoo lacks keeps its row.
    """
    known = known_cells(table)
    columns = list(zip(*known.values(), strict=True))
    rows: list[dict[str, Any]] = [
        {'name': 'a random cell', 'cells': len(known), 'accuracy': list(map(statistics.fmean, columns)),
         'deviation': list(map(statistics.pstdev, columns)), 'below_80': sum(value < 80 for value in columns[0])},
        {'name': 'skip connections only', 'accuracy': known[cell_string(defaultdict(lambda: 'skip_connect'))]},
        {'name': 'the best cell on CIFAR-10', 'accuracy': max(known.values())},
    ]  # fmt: skip
    before = {row['source']: row for row in read(ROWS) if 'source' in row}
    for name in SOURCES:
        if name not in zoo.names():
            rows += [before[name]] if name in before else []
        else:
            model = zoo[name].build()
            cell = cell_string(capped(model, without_zeros(model, best_sample(model)), CAP))
            rows.append({'name': f'the cell of {name}', 'source': name, 'cell': cell, 'accuracy': known[cell]})
    cells = {cell_string(row[key]) for _, path, recipe, side, key in SEARCHES for row in searches(path, recipe, side)}
    cells |= {cell_string(row['architecture']) for each in on_many_images().values() for row in each}
    rows += [{'cell': cell, 'accuracy': known[cell]} for cell in sorted(cells)]
    ROWS.write_text(''.join(json.dumps(rounded(row)) + '\n' for row in rows))


def searches(file: str, recipe: str, side: str) -> list[dict[str, Any]]:
    """Return the committed rows of one kind of searches."""
    return [row for row in read(CLAIM / f'{file}.jsonl') if row['recipe'] == recipe and row['side'] == side]


def on_many_images() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the warm searches on many images, by a name with the number of epochs."""
    path, task = MANY_IMAGES
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read(path):
        if row['task'] == task and row['side'] == 'warm':
            found[f'warm, {row["pictures"]:,} images of CIFAR-10, {len(row["curve"])} epochs'].append(row)
    return found


def cell_string(sample: Any) -> str:
    """Return the cell of an architecture of the space ``nasbench201`` as NATS-Bench writes it."""
    nodes = [[(sample[f'cell/{source}_{node}'], source) for source in range(node)] for node in (1, 2, 3)]
    return '+'.join('|' + ''.join(f'{NAMES.get(op, op)}~{source}|' for op, source in edges) for edges in nodes)


def architecture_of(cell: str) -> dict[str, str]:
    """Return the architecture of the space ``nasbench201`` whose cell NATS-Bench writes as ``cell``."""
    ours = {name: op for op, name in NAMES.items()}
    edges = [(*edge.split('~'), node) for node, part in enumerate(cell.split('+'), 1) for edge in part.strip('|').split('|')]
    return {f'cell/{source}_{node}': ours.get(op, op) for op, source, node in edges}


def report(looked_up: list[dict[str, Any]]) -> None:
    """Write ground_truth.json and ground_truth.md."""
    truths = {row['cell']: row['accuracy'] for row in looked_up if 'cell' in row}
    controls = [row for row in looked_up if 'name' in row]
    sources = {row['source']: row['accuracy'] for row in controls if 'source' in row}
    found: dict[str, Any] = {'controls': [{k: v for k, v in row.items() if k != 'cell'} for row in controls]}
    for group, tasks in (('all tasks', None), ('photographs', PHOTOGRAPHS)):
        found[group] = {}
        for name, path, recipe, side, key in SEARCHES:
            rows = [row for row in searches(path, recipe, side) if tasks is None or row['task'] in tasks]
            if rows:
                cells = [(row, truths[cell_string(row[key])]) for row in rows]
                found[group][name] = summary(cells, sources)
    found['many images'] = {
        name: summary([(row, truths[cell_string(row['architecture'])]) for row in rows], sources)
        for name, rows in on_many_images().items()
    }
    found = rounded(found)
    write_json(HERE / 'ground_truth.json', found)
    (HERE / 'ground_truth.md').write_text('\n'.join(document(found)) + '\n')


def summary(cells: list[tuple[dict[str, Any], list[float]]], sources: dict[str, list[float]]) -> dict[str, Any]:
    """Return the figures of searches, given their rows and the accuracies of their cells."""
    tasks: dict[str, list[list[float]]] = defaultdict(list)
    for row, accuracy in cells:
        tasks[row['task']].append(accuracy)
    by_task = [[statistics.fmean(column) for column in zip(*each, strict=True)] for each in tasks.values()]
    spread = [statistics.stdev(accuracy[0] for accuracy in each) for each in tasks.values() if len(each) > 1]
    first = [accuracy[0] for _, accuracy in cells]
    paired = [accuracy[0] - sources[row['source']][0] for row, accuracy in cells if row.get('source') in sources]
    return {
        'searches': len(cells),
        'tasks': len(tasks),
        'seeds': sorted({row['seed'] for row, _ in cells}),
        'accuracy': [statistics.fmean(column) for column in zip(*(accuracy for _, accuracy in cells), strict=True)],
        'error': statistics.stdev(each[0] for each in by_task) / len(by_task) ** 0.5 if len(by_task) > 1 else None,
        'deviation_over_seeds': statistics.fmean(spread) if spread else None,
        'worst': min(first),
        'below_80': sum(value < 80 for value in first),
        'share_at_least_source': statistics.fmean(gap >= 0 for gap in paired) if paired else None,
        'mean_above_source': statistics.fmean(paired) if paired else None,
    }


def document(found: dict[str, Any]) -> list[str]:
    """Lines of ground_truth.md."""
    lines = [
        '# Exported cells by ground truth',
        '',
        'Made by `python benchmarks/networks/ground_truth.py --peers DIR --zoo ZOO` from the rows of the',
        '[claim](../claim/claim.md). Test accuracies (%) that the cells have in NATS-Bench: 16 channels, five cells a',
        'stack, 200 epochs, mean over seeds, on CIFAR-10 / CIFAR-100 / ImageNet16-120. They say what a cell is worth on',
        'photographs, not on handwriting.',
        '',
        '## Controls that need no search',
        '',
        'The cells of sources are as a warm search would export them whose alphas do not move.',
        '',
        '| cell | CIFAR-10 / CIFAR-100 / ImageNet16-120 | |',
        '|---|---|---|',
    ]
    for row in found['controls']:
        cells, below = row.get('cells'), row.get('below_80')
        note = f'mean of {cells:,}; {below / cells:.0%} below 80 on CIFAR-10' if cells else ''
        lines.append(f'| {row["name"]} | {accuracies(row["accuracy"])} | {note} |')
    texts = {
        'all tasks': [
            'Error: standard error over tasks. Seeds: standard deviation over seeds, mean over tasks. These, the worst,',
            'those below 80 and the comparison with the cell of the source (searches from one source) are on CIFAR-10.',
        ],
        'photographs': [f'Those of the tasks {", ".join(PHOTOGRAPHS)}.'],
        'many images': [
            'From `joint-nasbench201-w16`, which has not seen them, by `python benchmarks/budgets/run.py`. With so many',
            'images cells are residual by default. Required: 93.9 on CIFAR-10, 45.0 on ImageNet16-120, none below 92.',
        ],
    }  # fmt: skip
    for group, text in texts.items():
        if not found[group]:
            continue
        lines += ['', f'## Searches on {group}', '', *text, '']
        lines += [
            '| search | tasks | searches | CIFAR-10 / CIFAR-100 / ImageNet16-120 | error | seeds | worst | below 80 % '
            "| at least the source's cell | above it, points |",
            '|---' * 10 + '|',
        ]
        for name, each in found[group].items():
            lines.append(
                f'| {name} | {each["tasks"]} | {each["searches"]} | {accuracies(each["accuracy"])} | '
                f'{shown(each["error"], ".2f")} | {shown(each["deviation_over_seeds"], ".2f")} | {each["worst"]:.1f} | '
                f'{each["below_80"]} | '
                f'{shown(each["share_at_least_source"], ".0%")} | {shown(each["mean_above_source"], "+.2f")} |'
            )
    return lines


def shown(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form).replace('-0.00', '+0.00')


def accuracies(values: list[float]) -> str:
    return ' / '.join(f'{value:.2f}' for value in values)


if __name__ == '__main__':
    main()
