"""Accuracy of a pretrained network's features by the normalisation of its images.

Needs the packages of features.py, and the data folder of the benchmarks::

    python benchmarks/networks/images.py --data DIR

EfficientNet-Lite0 was trained on pixels in [-1, 1]. Its features of such images are compared with those of images
standardised by the task's own mean and deviation, as the evaluators give them, before and after the network was changed to
take these (:func:`nni_warmstart.supernets.pretrained.images.take_standardised`). A ridge classifier is fitted on the
features of 500 training images at 64 pixels, and measured on up to 500 test images. ``--report`` prints the means.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from statistics import mean

from features import TASKS, accuracy, images, network

from nni_warmstart.supernets.pretrained.images import take_standardised

OTHERS = ('clothing', 'plant_seedlings', 'blood_cells', 'chest_xray3', 'gtsrb', 'emoji_category', 'mnist')
ROWS = Path(__file__).with_name('images.jsonl')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, help='folder of the npz files')
    parser.add_argument('--tasks', nargs='*', default=[*TASKS, *OTHERS])
    parser.add_argument('--report', action='store_true', help='print the means of the rows, and measure nothing')
    options = parser.parse_args()
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    if options.report:
        print({key: round(mean(row[key] for row in rows), 3) for key in ('trained', 'standardised', 'changed')}, len(rows))
        return
    trained = network()
    changed = copy.deepcopy(trained)
    take_standardised(changed, {'mean': [0.5] * 3, 'std': [0.5] * 3})
    for task in options.tasks:
        if task in [row['task'] for row in rows]:
            continue
        train, test = (images(options.data / f'{task}.npz', part, 500) for part in ('train', 'test'))
        centre, deviation = train[0].mean((0, 2, 3), keepdim=True), train[0].std((0, 2, 3), keepdim=True)
        own = [((x - centre) / deviation, y) for x, y in (train, test)]
        row = {
            'task': task,
            'trained': accuracy(trained, '_fc', train, test),
            'standardised': accuracy(trained, '_fc', *own),
            'changed': accuracy(changed, '_fc', *own),
        }
        with ROWS.open('a') as file:
            file.write(json.dumps(row) + '\n')
        print(row, flush=True)


if __name__ == '__main__':
    main()
