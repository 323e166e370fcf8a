"""Does the weight mapper keep functions, and what does it cost?

    python benchmarks/mapper/run.py             # all; writes mapper.jsonl and mapper.md (a few minutes)
    python benchmarks/mapper/run.py --report    # the table from the results so far

Networks have random weights, statistics and alphas. Differences are of the logits, evaluation mode, float32, relative to
the largest logit, with keep=1 and noise=0. Time and memory are of one transfer on one thread, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nni.nas.hub.pytorch import DARTS, MobileNetV3Space, ProxylessNAS, ShuffleNetSpace
from nni.nas.hub.pytorch.nasnet import NDS
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.memory import Peak, resident
from benchmarks.common.rows import read
from nni_warmstart import Supernet, transfer
from nni_warmstart.cli import quiet
from nni_warmstart.nni_adapter.choices import choices
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import DartsSpace, NasBench201Space

HERE = Path(__file__).resolve().parent


class Shuffle(ShuffleNetSpace):
    """NNI's ShuffleNet, whose widths are fixed, at a multiple of them."""

    def __init__(self, factor: float) -> None:
        self.__dict__['factor'] = factor
        super().__init__(num_labels=10)

    @property
    def stage_out_channels(self) -> list[int]:
        return self.__dict__['widths']

    @stage_out_channels.setter
    def stage_out_channels(self, widths: list[int]) -> None:
        self.__dict__['widths'] = [width if width < 0 else int(width * self.__dict__['factor']) for width in widths]


def mobile(factor: float = 1.0, depth: tuple[int, int] = (1, 2)) -> ModelSpace:
    """MobileNetV3 with fewer choices (NNI takes minutes for all of them); its rounding to multiples of 8 is proportional."""
    widths = tuple(int(width * factor) for width in (32, 32, 32, 64, 64, 128, 128, 128, 256))
    return MobileNetV3Space(10, widths, (0.5, 1.0), (4.0, 8.0), depth_range=depth)


def nds(ops: tuple[str, ...]) -> ModelSpace:
    return NDS(list(ops), width=8, num_cells=3, num_nodes_per_cell=4, dataset='cifar')


WIDTHS: dict[str, tuple[Callable[[float], ModelSpace], int]] = {
    'nasbench201': (lambda factor: NasBench201Space(width=int(8 * factor)), 16),
    'darts': (lambda factor: DartsSpace(width=int(8 * factor)), 16),
    'MobileNetV3': (mobile, 64),
    'ProxylessNAS': (lambda factor: ProxylessNAS(10, width_mult=0.5 * factor), 64),
    'ShuffleNet': (Shuffle, 64),
}
OPS = ('skip_connect', 'max_pool_3x3', 'conv_1x1', 'sep_conv_3x3', 'dil_conv_3x3')
LARGER = ('dil_conv_5x5', 'conv_3x3', 'sep_conv_7x7', 'skip_connect', 'max_pool_3x3')
OTHERS: dict[str, tuple[Callable[[], ModelSpace], Callable[[], ModelSpace], int]] = {
    'candidates in another order': (lambda: nds(OPS), lambda: nds(OPS[::-1]), 16),
    'larger kernels: 1 to 3, 3 to 5, 3 to 7': (lambda: nds(OPS), lambda: nds(LARGER), 16),
    'MobileNetV3, stages of up to 2 onto up to 4 blocks': (mobile, lambda: mobile(depth=(1, 4)), 64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    path = HERE / 'mapper.jsonl'
    if not arguments.report:
        path.write_text(''.join(json.dumps(row) + '\n' for row in measured()))
    report(read(path))


def measured() -> list[dict[str, Any]]:
    """Measure everything anew."""
    quiet()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name, (make, side) in WIDTHS.items():
        for factor in (1, 1.5, 2, 4):
            row = {'check': f'{name}, width x {factor}', **difference(make(1), make(factor), side)}
            rows.append(row)
            print(row, flush=True)
    for name, (source, target, side) in OTHERS.items():
        rows.append({'check': name, **difference(source(), target(), side)})
        print(rows[-1], flush=True)
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        rows.append({'check': 'cost', **pool.apply(cost)})
    print(rows[-1], flush=True)
    return rows


def trained(space: ModelSpace, seed: int) -> ModelSpace:
    """A supernet whose every parameter, statistic and alpha counts."""
    torch.manual_seed(seed)
    model = mutate(space, 'DARTS')
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    for choice in choices(model).values():
        nn.init.normal_(choice.alpha)
    return model


def difference(source_space: ModelSpace, target_space: ModelSpace, side: int) -> dict[str, Any]:
    source, target = trained(source_space, 0), trained(target_space, 1)
    supernet = Supernet.from_model(source, name='source', history={'pictures': [3, side]})
    report = transfer(supernet, target, head='copy', keep=1, noise=0)
    x = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, mine = source.eval()(x), target.eval()(x)
    return {
        'difference': float((mine - theirs).abs().max() / theirs.abs().max()),
        'inherited': report.share_inherited,
        'seconds': report.seconds['mapping'],
    }


def cost() -> dict[str, Any]:
    """The hub's DARTS space, 8 cells of width 16 onto 20 cells of width 32."""
    quiet()
    torch.set_num_threads(1)
    transfer(small(), mutate(NasBench201Space(width=4), 'DARTS'), head='random')  # torch's first times
    empty = resident()
    source = Supernet.from_model(mutate(DARTS(width=16, num_cells=8, dataset='cifar'), 'DARTS'), name='source')
    target = mutate(DARTS(width=32, num_cells=20, dataset='cifar'), 'DARTS')
    numbers = source.num_parameters + sum(tensor.numel() for tensor in target.state_dict().values())
    models = resident() - empty
    with Peak() as peak:
        start = time.process_time()
        report = transfer(source, target, head='random')
        seconds = time.process_time() - start
    return {
        'seconds': seconds,
        'tensors_mb': 4 * numbers / 2**20,
        'models_mb': models,
        'peak_mb': peak.value - empty,
        'inherited': report.share_inherited,
    }


def small() -> Supernet:
    return Supernet.from_model(mutate(NasBench201Space(width=8), 'DARTS'), name='small')


def report(rows: list[dict[str, Any]]) -> None:
    """Write mapper.md."""
    lines = [
        'The weight mapper (`python benchmarks/mapper/run.py`): largest difference of a logit relative to '
        'the largest logit, in',
        'evaluation mode and float32, before noise; share of the parameters inherited; seconds of the mapping, one thread.',
        '',
        '| mapped | difference | inherited | seconds |',
        '|---|---|---|---|',
    ]
    for row in rows[:-1]:
        lines.append(f'| {row["check"]} | {row["difference"]:.1e} | {row["inherited"]:.1%} | {row["seconds"]:.2f} |')
    last = rows[-1]
    lines += [
        '',
        f"The hub's DARTS space, 8 cells of width 16 onto 20 cells of width 32: {last['seconds']:.1f} s of processor time, "
        f'peak memory {last["peak_mb"]:.0f} MB, the two models included, which take {last["models_mb"]:.0f} MB (tensors '
        f'{last["tensors_mb"]:.0f} MB, the rest are Python objects); {last["inherited"]:.1%} of the parameters inherited.',
    ]
    (HERE / 'mapper.md').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
