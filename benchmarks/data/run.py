"""What do large data cost: memory, time to the first step, images per second, and reads by a warm search?

    python benchmarks/data/run.py             # all; writes data.jsonl and data.md (half an hour on two cores, 3 GB of disk)
    python benchmarks/data/run.py --report    # the table from the results so far

Images are generated (images.py): JPEGs of 224 x 224 pixels in ten classes, of 2,000 distinct images, each file with a
comment of its own, and CIFAR-10's own files with generated images. Each measurement runs in a process of its own; memory is
the proportional set size of it and its workers, above that after the imports.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for `benchmarks`

from benchmarks.common.rows import Rows
from benchmarks.data.images import CLASSES, DISTINCT, cifar10, jpeg_folder, made_by

HERE = Path(__file__).resolve().parent
MIDDLE = 50_000
"""Number of images from which a set counts as large."""
ROUNDS = 3
"""Rounds in which two loaders take turns."""


class FirstStep(Exception):
    """Ends a search before its first training step."""


class Memory:
    """Highest memory of this process and its workers together, in MB above that at the beginning."""

    def __enter__(self) -> Memory:
        self._process, self._stop = psutil.Process(), threading.Event()
        self._start, self.peak = self._now(), 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.peak = max(self.peak, self._now() - self._start)

    def _now(self) -> float:
        """Return the proportional set size of all processes, or 0 where one began or ended meanwhile.

        Pages that two processes share count half in each, so that a process that is forked between two readings would be
        counted twice.
        """
        processes, total = self._all(), 0
        for process in processes:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has ended
                return 0.0
        return total / 1e6 if self._all() == processes else 0.0

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


def search_config(data: dict[str, Any], space: dict[str, Any], **evaluator: Any) -> Any:
    from nni_warmstart.runs.config import parse_search

    settings = {'max_epochs': 1, 'batch_size': 64, 'learning_rate': 0.05, **evaluator}
    strategy = {'name': 'WarmStartDARTS', 'source': 'auto', 'save_to': 'zoo'}
    return parse_search({'data': data, 'space': space, 'evaluator': settings, 'strategy': strategy}, Path.cwd())


def begin(folder: str, image_size: int, stem_stride: int) -> dict[str, Any]:
    """From the command to the first step of a search of 100,000 images, then the reading of one epoch of both halves."""
    began = psutil.Process().create_time()
    from nni_warmstart.runs import search as command
    from nni_warmstart.search.oneshot_module import DartsSearchModule

    space = {'name': 'nasbench201', 'width': 8, 'depth': 1, 'image_size': image_size, 'stem_stride': stem_stride}
    config = search_config({'folder': {'path': folder}}, space, num_workers=2)

    def stop(self: Any, *arguments: Any) -> None:
        raise FirstStep(self)

    DartsSearchModule.on_train_batch_start = stop  # type: ignore[method-assign]
    with Memory() as memory:
        try:
            command.run_search(config, seed=0, out='run', progress=False)
        except FirstStep as reached:
            module = reached.args[0]
            reached.__traceback__ = None  # whose frames hold the workers of the training
        found = {'seconds': time.time() - began, 'processor': time.process_time(), 'peak_mb': memory.peak}
        data, start, images = module.trainer.datamodule, time.perf_counter(), 0
        for loader in (type(data).train_dataloader(data), data.arc_dataloader()):
            for batch in loader:
                images += len(data.on_after_batch_transfer(batch, 0)[1])
        found |= {'epoch_images': images, 'epoch_per_second': images / (time.perf_counter() - start)}
        found['epoch_peak_mb'] = memory.peak
    return found


def processor_seconds() -> float:
    """Seconds of the processor that this process and its workers that have ended took, which others do not change."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def throughput(folder: str, image_size: int) -> dict[str, Any]:
    """Images per second by two workers, against torchvision's own loader of the same images with the same transforms.

    Loaders take turns. Once their batches are only taken, and once all pixels of a batch are read, as by a model: batches of
    torchvision's loader lie in memory that the process has not touched yet.
    """
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from nni_warmstart.data import from_folder, split
    from nni_warmstart.data.lazy import LazyImages
    from nni_warmstart.evaluators.datamodule import TaskData
    from nni_warmstart.evaluators.workers import Workers

    torch.set_num_threads(1)
    splits = split(from_folder(folder, side=image_size, cache_mb=1))
    assert isinstance(splits.train.x, LazyImages)
    data = TaskData(splits, 64, workers=Workers(2))
    mean, std = ((each / 255).flatten().tolist() for each in (splits.train.mean, splits.train.std))
    steps = [v2.PILToTensor(), v2.Resize(image_size, antialias=True), v2.CenterCrop(image_size)]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    images = Subset(ImageFolder(folder, transform), splits.train.x.positions.tolist())
    loaders = {
        'ours': data.train_dataloader(),
        'torchvision': DataLoader(images, 64, shuffle=True, num_workers=2, drop_last=True),
    }

    def speed(name: str, *, is_read: bool) -> tuple[float, float]:
        start, wall, count = processor_seconds(), time.perf_counter(), 0
        for batch in loaders[name]:
            x, y = data.on_after_batch_transfer(batch, 0) if name == 'ours' else batch
            count += len(y)
            if is_read:
                x.sum()
        return count / (processor_seconds() - start), count / (time.perf_counter() - wall)

    found: dict[str, Any] = {}
    for what, is_read in (('taken', False), ('read', True)):
        rounds = [[speed(name, is_read=is_read) for name in loaders] for _ in range(ROUNDS)]
        for place, unit in enumerate(('processor', 'wall')):
            for number, name in enumerate(loaders):
                found[f'{name}_{what}_{unit}'] = statistics.median(each[number][place] for each in rounds)
            found[f'ratio_{what}_{unit}'] = statistics.median(ours[place] / theirs[place] for ours, theirs in rounds)
    return found


def reads(folder: str, image_size: int, stem_stride: int, cache_mb: float) -> dict[str, Any]:
    """Files that a warm search of one epoch decodes, against those that its loaders give to the training."""
    from nni_warmstart.data.encoded import EncodedImages
    from nni_warmstart.runs.search import run_search

    counted, read = [0], EncodedImages.read

    def counting(self: Any, position: int) -> Any:
        counted[0] += 1
        return read(self, position)

    EncodedImages.read = counting  # type: ignore[method-assign]
    space = {'name': 'nasbench201', 'width': 4, 'depth': 1, 'image_size': image_size, 'stem_stride': stem_stride}
    data = {'folder': {'path': folder}, 'cache_mb': cache_mb}
    with Memory() as memory:
        result = run_search(search_config(data, space), seed=0, out='run', progress=False)
    images = len(list(Path(folder).rglob('*.jpg')))
    return {
        'decoded': counted[0],
        'by_the_epoch': images * 3 // 2,  # weights, alphas, and validation on the images of the alphas
        'seconds': result['seconds'],
        'peak_mb': memory.peak,
    }


def cifar(root: str, image_size: int) -> dict[str, Any]:
    """One warm epoch on CIFAR-10 in torchvision's own format."""
    from torchvision.datasets import CIFAR10

    from nni_warmstart.runs.search import run_search

    for key, value in made_by(Path(root)).items():
        setattr(CIFAR10, key, value)
    space = {'name': 'nasbench201', 'width': 4, 'depth': 1, 'image_size': image_size, 'stem_stride': 2}
    with Memory() as memory:
        config = search_config({'torchvision': {'name': 'CIFAR10', 'root': root}}, space)
        result = run_search(config, seed=0, out='run', progress=False)
    return {'seconds': result['seconds'], 'peak_mb': memory.peak, 'accuracy': result['final']['default']}


def measured(name: str, *arguments: Any) -> dict[str, Any]:
    """Run a measurement in a fresh process, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context('spawn')) as pool:
        found = pool.submit(inside, folder, name, arguments).result()
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


def inside(folder: str, name: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Begin a process, which has imported nothing of ours yet."""
    from nni_warmstart.cli import quiet

    quiet()
    os.chdir(folder)
    set_start_method('fork', force=True)  # of workers, as in a command on Linux: here they would import everything anew
    return globals()[name](*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, help='folder for the generated images (default: a temporary one)')
    parser.add_argument('--only', nargs='+', default=list(MEASUREMENTS), choices=MEASUREMENTS, help='which (default: all)')
    parser.add_argument('--report', action='store_true', help='write the table, run nothing')
    arguments = parser.parse_args()
    rows = Rows(HERE / 'data.jsonl', ('what', 'images', 'image_size'))
    if not arguments.report:
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.folder or Path(temporary)
            for what in arguments.only:
                for count, image_size, *others in MEASUREMENTS[what]:
                    if not rows.has(what=what, images=count, image_size=image_size):
                        path = cifar10(folder) if what == 'cifar' else jpeg_folder(folder / str(count), count)
                        found = measured(what, str(path), image_size, *others)
                        rows.append(what=what, images=count, image_size=image_size, **found)
    report(rows.all())


def report(rows: list[dict[str, Any]]) -> None:
    """Write data.md."""
    lines = [
        '# Large data',
        '',
        'Made by `python benchmarks/data/run.py` on two cores without a GPU; but for 100,000 images of 224 pixels, others',
        'used the cores as well. Seconds of the processor, imports included, are those that one free core takes. Images are',
        f'generated: JPEGs of 224 x 224 pixels, {DISTINCT:,} distinct ones and copies with another comment, in {CLASSES}',
        'classes. Memory is',
        'that of the process and its workers above the imports. "Pixels" is the size at which the model gets the images.',
        '',
        '| what | images | pixels | measured | required |',
        '|---|---|---|---|---|',
    ]
    for row in sorted(rows, key=lambda row: list(MEASUREMENTS).index(row['what'])):
        for text, value, required in TEXTS[row['what']](row):
            lines.append(f'| {text} | {row["images"]:,} | {row["image_size"]} | {value} | {required} |')
    (HERE / 'data.md').write_text('\n'.join(lines) + '\n')


def _of_begin(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            'peak memory up to the first step of a warm search by `auto`',
            f'{row["peak_mb"]:.0f} MB',
            '1,000 MB',
        ),
        ('peak memory with the reading of one epoch by two workers', f'{row["epoch_peak_mb"]:.0f} MB', '1,000 MB'),
        (
            'time from the command to the first training step',
            f'{row["processor"]:.0f} s of the processor ({row["seconds"]:.0f} s)',
            '60 s',
        ),
        ('reading of one epoch by two workers', f'{row["epoch_per_second"]:.0f} images/s', ''),
    ]


def _of_throughput(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    lines = []
    for what, how in (('taken', 'batches only taken'), ('read', 'batches read once')):
        for unit, per in (('processor', 'images per second of the processor'), ('wall', 'images/s')):
            ours, theirs, ratio = (row[f'{name}_{what}_{unit}'] for name in ('ours', 'torchvision', 'ratio'))
            speeds = f'{ours:.0f} {per}, torchvision {theirs:.0f}: {ratio:.2f}'
            lines.append((f"two workers against torchvision's own loader with the same transforms, {how}", speeds, '0.9'))
    return lines


def _of_reads(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    ratio = row['decoded'] / row['by_the_epoch']
    required = '1.05' if row['images'] >= MIDDLE else '1.3'
    what = 'files decoded by a warm search of one epoch with `auto` and `save_to`'
    return [
        (f'{what}, to images that the epoch uses for weights, alphas and validation',
         f'{row["decoded"]:,} to {row["by_the_epoch"]:,}: {ratio:.3f}', required),
        (f'{what}, to images of the training set, of which validation reads half again',
         f'{row["decoded"] / row["images"]:.3f}', ''),
        ('the same search: peak memory', f'{row["peak_mb"]:.0f} MB, {row["seconds"]:.0f} s', ''),
    ]  # fmt: skip


def _of_cifar(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    what = "one warm epoch on CIFAR-10 in torchvision's own format"
    return [(f'{what}: peak memory', f'{row["peak_mb"]:.0f} MB, {row["seconds"]:.0f} s', '2,000 MB')]


MEASUREMENTS: dict[str, list[tuple[Any, ...]]] = {
    'begin': [(100_000, 64, 4), (100_000, 224, 8)],
    'throughput': [(8_000, 224), (8_000, 64)],
    'reads': [(8_000, 64, 4, 64.0), (MIDDLE, 64, 8, 512.0)],
    'cifar': [(50_000, 32)],
}
"""Measurement -> number of images, pixels, and its other arguments."""

TEXTS = {'begin': _of_begin, 'throughput': _of_throughput, 'reads': _of_reads, 'cifar': _of_cifar}

if __name__ == '__main__':
    main()
