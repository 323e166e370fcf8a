"""Tables of fusion: otfusion.md."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.otfusion.networks import METHODS, NETWORKS, REPAIRS, STEPS

HERE = Path(__file__).resolve().parent
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


def report(lines: list[dict[str, Any]]) -> None:
    """Write otfusion.md."""
    (HERE / 'otfusion.md').write_text('\n'.join([*fusion_table(lines), *training_table(lines), *checks(lines)]) + '\n')


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
