"""Measure our distance on one pair of datasets; started by run.py in a process of its own, as peer_otdd.py is.

    python benchmarks/distance/ours_otdd.py PAIR.npz METHOD REPEATS

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import ot
import torch

from nni_warmstart import DatasetSketch, dataset_distance
from nni_warmstart.distance.label_distances import exact_label_distances, squared_distances
from nni_warmstart.distance.otdd import label_distances


def main(pair: str, method: str, repeats: str) -> None:
    torch.set_num_threads(1)
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
    first, second = (DatasetSketch.from_dataset(each, max_samples=None) for each in (a, b))
    cost = squared_distances(first.samples, second.samples)
    shape = (first.num_classes, second.num_classes)
    labels = (
        exact_label_distances(cost, first.labels, second.labels, shape)
        if method == 'exact'
        else label_distances(first, second)
    )
    return (cost + labels[first.labels][:, second.labels]).numpy()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('pair', 'method', 'repeats'):
        parser.add_argument(name)
    main(**vars(parser.parse_args()))
