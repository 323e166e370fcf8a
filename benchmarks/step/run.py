"""What does a step of a search cost, beside the untouched strategy of NNI?

    python benchmarks/step/run.py               # what step.jsonl lacks, and step.md (half an hour)
    python benchmarks/step/run.py --only NAME   # one space
    python benchmarks/step/run.py --gpu         # the same on a GPU
    python benchmarks/step/run.py --report      # the table from the results so far

A step is one of the alphas and one of the weights, with Lightning's part, on one thread; median over steps of the processor
time, or, on a GPU, of the time that passes. NNI, a cold search and one by plans take turns in one process. Peak memory is
that of one search in a process of its own; on a GPU it is the memory of its tensors. The difference is that of logits and
gradients between plans and NNI's forward, in float64, relative to the largest.
"""

from __future__ import annotations

import argparse
import copy
import logging
import multiprocessing
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch import DARTS, MobileNetV3Space, ProxylessNAS
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS as NniDARTS
from nni.nas.strategy import GumbelDARTS, Proxyless
from pytorch_lightning import Callback
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.memory import Peak, resident
from benchmarks.common.rows import Rows
from nni_warmstart import WarmStartDARTS, WarmStartGumbelDARTS, WarmStartProxyless
from nni_warmstart.cli import quiet
from nni_warmstart.fast_forward.forward import FastForward
from nni_warmstart.nni_adapter.choices import arch_parameters
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.search_spaces import NasBench201Space

HERE = Path(__file__).resolve().parent
STEPS, ROUNDS = 3, 3

SPACES: dict[str, tuple[Callable[[], ModelSpace], int, int, str]] = {
    'nasbench201, width 16': (lambda: NasBench201Space(width=16), 32, 32, 'DARTS'),
    'DARTS, width 8, 5 cells': (lambda: DARTS(width=8, num_cells=5, dataset='cifar'), 32, 32, 'DARTS'),
    'DARTS, width 16, 8 cells': (lambda: DARTS(width=16, num_cells=8, dataset='cifar'), 32, 32, 'DARTS'),
    'ProxylessNAS': (lambda: ProxylessNAS(10), 64, 8, 'DARTS'),
    'MobileNetV3': (lambda: MobileNetV3Space(10, width_multipliers=(1.0,), expand_ratios=(4.0, 6.0)), 64, 8, 'DARTS'),
    'nasbench201, width 16, by GumbelDARTS': (lambda: NasBench201Space(width=16), 32, 32, 'GumbelDARTS'),
    'nasbench201, width 16, by Proxyless': (lambda: NasBench201Space(width=16), 32, 32, 'Proxyless'),
}
"""Name -> space, size of an image in pixels, images of a batch, strategy."""

STRATEGIES = {
    'DARTS': (NniDARTS, WarmStartDARTS),
    'GumbelDARTS': (GumbelDARTS, WarmStartGumbelDARTS),
    'Proxyless': (Proxyless, WarmStartProxyless),
}
VARIANTS = ('nni', 'cold', 'fast')
FILES = {'cpu': 'step', 'gpu': 'step_gpu'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', choices=SPACES, help='measure this space only')
    parser.add_argument('--gpu', action='store_true', help='measure on a GPU (default: on the processor)')
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    device = 'gpu' if arguments.gpu else 'cpu'
    rows = Rows(HERE / f'{FILES[device]}.jsonl', ('space',))
    if not arguments.report:
        quietly()
        for name in [arguments.only] if arguments.only else SPACES:
            rows.measure({'space': name}, measured, name, device)
    report(rows.all(), device)


def measured(name: str, device: str) -> dict[str, Any]:
    """Measure everything about one space."""
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant in VARIANTS:
            seconds[variant] += search(name, variant, device)
    medians = {variant: statistics.median(found) for variant, found in seconds.items()}
    context = multiprocessing.get_context('spawn')
    peaks = {}
    for variant in VARIANTS:
        with context.Pool(1, quietly) as pool:
            peaks[variant] = pool.apply(peak, (name, variant, device))
    on = torch.cuda.get_device_name() if device == 'gpu' else processor()
    return {'processor': on, 'torch': torch.__version__, 'seconds': medians, 'peak_mb': peaks, **difference(name)}


class Clock(Callback):
    """Seconds of every step but the first."""

    def __init__(self, device: str) -> None:
        self.seconds: list[float] = []
        self.begun, self.device = 0.0, device

    def on_train_batch_start(self, *_: Any) -> None:
        self.begun = self.now()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            self.seconds.append(self.now() - self.begun)

    def now(self) -> float:
        if self.device == 'cpu':
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def search(name: str, variant: str, device: str) -> list[float]:
    """Search for some steps, and return the seconds of each."""
    make, side, batch, kind = SPACES[name]
    torch.manual_seed(0)
    nnis, ours = STRATEGIES[kind]
    strategy = nnis() if variant == 'nni' else ours(fast=variant == 'fast')
    images = torch.randn(2 * batch, 3, side, side)
    data = TensorDataset(images, torch.arange(len(images)) % 10)
    loader = DataLoader(torch.utils.data.ConcatDataset([data] * (STEPS + 1)), batch)
    clock = Clock(device)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=STEPS + 1, limit_val_batches=0, callbacks=[clock], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator=device,
    )  # fmt: skip
    module = ClassificationModule(num_classes=10, learning_rate=0.01, optimizer=torch.optim.SGD)
    evaluator = Lightning(module, trainer, loader, loader)
    strategy(RawFormatModelSpace(make(), evaluator), SequentialExecutionEngine())
    return clock.seconds


def peak(name: str, variant: str, device: str) -> float:
    """Peak memory of a search in MiB, beyond what the imports take."""
    before = resident()
    with Peak() as found:
        search(name, variant, device)
    return torch.cuda.max_memory_allocated() / 2**20 if device == 'gpu' else found.value - before


def difference(name: str) -> dict[str, float]:
    """Compare plans with NNI's forward in float64."""
    make, side, _, kind = SPACES[name]
    torch.manual_seed(0)
    theirs = mutate(make(), kind).double()
    for alpha in arch_parameters(theirs):
        torch.nn.init.normal_(alpha)
    ours = copy.deepcopy(theirs)
    forward = FastForward(ours)
    if not forward.fits:
        return {}
    images = torch.randn(4, 3, side, side, dtype=torch.float64)
    torch.manual_seed(1)
    expected = theirs(images)
    torch.manual_seed(1)
    with forward.applied():
        found = ours(images)
    for logits in (expected, found):
        logits.logsumexp(1).sum().backward()
    gradients = [(a.grad, b.grad) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True) if a.grad is not None]
    largest = max(float(a.abs().max()) for a, _ in gradients)
    return {
        'logits': float((found - expected).abs().max() / expected.abs().max()),
        'gradients': max(float((a - b).abs().max()) for a, b in gradients) / largest,
    }


def processor() -> str:
    """Name of the processor."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(': ')[2] for line in lines if line.startswith('model name')), platform.processor())


def quietly() -> None:
    quiet()
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def report(rows: list[dict[str, Any]], device: str) -> None:
    """Write step.md, or step_gpu.md."""
    command, clock, digits = ('run.py --gpu', 'time', 3) if device == 'gpu' else ('run.py', 'processor time', 2)
    lines = [
        f"A step of a search beside NNI's untouched strategy (`python benchmarks/step/{command}`): {clock} of one step",
        'of the alphas and one of the weights, one thread, variants in turns, medians; peak memory of a search; largest',
        'difference of logits and gradients in float64, relative to the largest.',
        '',
        '| space | NNI, s | cold, equal to the bit | by plans | peak memory, cold / by plans | difference |',
        '|---|---|---|---|---|---|',
    ]
    for row in rows:
        seconds, peaks = row['seconds'], row['peak_mb']
        cold, fast = (seconds[variant] / seconds['nni'] for variant in ('cold', 'fast'))
        memory = ' / '.join(f'{peaks[variant] / peaks["nni"]:.2f}' for variant in ('cold', 'fast'))
        differs = f'{max(row["logits"], row["gradients"]):.0e}' if 'logits' in row else 'no plan'
        lines.append(f'| {row["space"]} | {seconds["nni"]:.{digits}f} | {cold:.2f} | {fast:.2f} | {memory} | {differs} |')
    write(HERE / f'{FILES[device]}.md', lines, rows)


def write(path: Path, lines: list[str], rows: list[dict[str, Any]]) -> None:
    """Write a table, and on which processors its rows were measured."""
    found = sorted({f'{row["processor"]}, torch {row["torch"]}' for row in rows})
    path.write_text('\n'.join([*lines, '', f'Processor: {"; ".join(found)}.']) + '\n')


if __name__ == '__main__':
    main()
