"""Run sidak/otfusion, untouched, on one pair of networks; started by run.py, with -O: some of its assertions refuse
what it can fuse.

    python -O benchmarks/otfusion/peer_otfusion.py CHECKOUT PEERS DATA NETWORK SOURCE TARGET METHOD

The settings are those that its README recommends, and its faster ground metric. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.otfusion.networks import SAMPLES, Bench, timed

ABSENT = ('train', 'vgg', 'hyperparameters', 'hyperparameters.vgg11_cifar10_baseline')
"""Modules that train and make networks for CIFAR-10, in another archive of the repository; fusing calls none of them."""
COMMON = [
    '--exact', '--correction', '--ground-metric', 'euclidean', '--ground-metric-normalize', 'none', '--ground-metric-eff',
    '--not-squared', '--past-correction', '--prelu-acts', '--weight-stats', '--activation-seed', '21', '--handle-skips',
    '--gpu-id', '-1', '--model-name', 'mlpnet',
]  # fmt: skip
REPEATS = 7
"""Runs with networks of one width, for the seconds."""
METHODS = {
    'pictures': ['--geom-ensemble-type', 'acts', '--activation-mode', 'raw', '--activation-histograms'],
    'weights': ['--geom-ensemble-type', 'wts'],
}


def main(checkout: str, peers: str, data: str, network: str, source: str, target: str, method: str) -> None:
    torch.set_num_threads(1)
    bench = Bench(Path(peers), Path(data))
    nets = [bench.load(network, which) for which in (source, target)]
    different = widths(nets)
    sys.modules.update({name: ModuleType(name) for name in ABSENT})
    sys.path.insert(0, checkout)
    fused: list[Any] = []
    try:
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            import compute_activations as acts  # type: ignore[import-not-found]
            import parameters  # type: ignore[import-not-found]
            import wasserstein_ensemble as ensemble  # type: ignore[import-not-found]

            args = parameters.get_parser().parse_args([*COMMON, *METHODS[method], *different])
            args.dataset, args.disable_bias = 'mnist' if network == 'mlp' else 'Cifar10', True
            loader = [(picture[None], torch.zeros(1)) for picture in bench.samples]  # one by one, as it does

            def fuse() -> None:
                if method == 'weights':
                    fused[:] = ensemble.get_wassersteinized_layers_modularized(args, nets)
                else:
                    args.act_num_samples = SAMPLES
                    seen = acts.compute_activations_across_models_v1(args, nets, loader, SAMPLES, mode='raw')
                    fused[:] = ensemble.get_acts_wassersteinized_layers_modularized(args, nets, seen)

            seconds = min(timed(fuse) for _ in range(1 if different else REPEATS))
    except RuntimeError as error:
        print(json.dumps({'failure': f'{type(error).__name__}: {error}'.split('\n')[0][:120]}))
        return
    state = nets[1].state_dict()
    state = {name: new.detach().view_as(old) for (name, old), new in zip(state.items(), fused, strict=True)}
    print(json.dumps({**bench.score(nets[1], state), 'seconds': seconds}))


def widths(nets: list[nn.Module]) -> list[str]:
    """Settings for networks of two widths."""
    first, second = (next(net.parameters()).shape[0] for net in nets)
    return [] if first == second else ['--width-ratio', str(first / second), '--proper-marginals']


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('checkout', 'peers', 'data', 'network', 'source', 'target', 'method'):
        parser.add_argument(name)
    main(**vars(parser.parse_args()))
