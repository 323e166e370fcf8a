"""Run microsoft/otdd, untouched, on one pair of datasets; started by run.py with the peer's own interpreter.

    PEER_PYTHON benchmarks/distance/peer_otdd.py CHECKOUT PAIR.npz METHOD PRECISION REPEATS

It needs torch, POT, geomloss 0.2 and the packages the checkout imports. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

METHODS = {'exact': 'exact', 'gaussian': 'gaussian_approx'}


def main(checkout: str, pair: str, method: str, precision: str, repeats: str) -> None:
    torch.set_num_threads(1)

    def eigh(matrix: Any, eigenvectors: bool = False, upper: bool = True) -> Any:
        return torch.linalg.eigh(matrix, UPLO='U' if upper else 'L')

    torch.symeig = torch.Tensor.symeig = eigh  # type: ignore[attr-defined]  # torch has dropped it
    sys.path.insert(0, checkout)
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        from otdd.pytorch.distance import DatasetDistance  # type: ignore[import-not-found]

        arrays = np.load(pair)
        dtype = torch.float64 if precision == 'double' else torch.float32
        sets = [dataset(arrays[x], arrays[y], dtype) for x, y in (('x', 'y'), ('u', 'v'))]
        Path('/proc/self/clear_refs').write_text('5')
        before = resident('VmRSS')
        seconds, value, failure = [], None, None
        try:
            for _ in range(int(repeats)):
                start = time.perf_counter()
                distance = DatasetDistance(
                    *sets,
                    inner_ot_method=METHODS[method],
                    debiased_loss=True,
                    p=2,
                    entreg=0.1,
                    device='cpu',
                    precision=precision,
                )
                value = float(distance.distance(maxsamples=None))
                seconds.append(time.perf_counter() - start)
        except (RuntimeError, ValueError) as error:  # torch's eigensolver in single precision, for one
            failure = f'{type(error).__name__}: {error}'.split('\n')[0][:120]
        peak = resident('VmHWM') - before
    print(json.dumps({'value': value, 'seconds': seconds, 'peak_mb': peak, 'failure': failure}))


def resident(field: str) -> float:
    """Resident memory in MB, as Linux counts it."""
    return int(Path('/proc/self/status').read_text().split(f'{field}:')[1].split()[0]) / 1024


def dataset(x: np.ndarray, y: np.ndarray, dtype: torch.dtype) -> Any:
    result: Any = torch.utils.data.TensorDataset(torch.from_numpy(x).to(dtype), torch.from_numpy(y))
    result.targets, result.classes = result.tensors[1], list(range(int(y.max()) + 1))
    return result


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('checkout', 'pair', 'method', 'precision', 'repeats'):
        parser.add_argument(name)
    main(**vars(parser.parse_args()))
