"""Killed at points other than training, and while it is resumed: a run ends at the same bits, and leaves nothing behind."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.killed import Point, killed, point_of, processes
from helpers.tiny import SMALL, make_task, run, save_npz

from nni_warmstart import Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import main
from nni_warmstart.supernets.network import Network

START = ('zoo', 'distance', 'tracing', 'mapping', 'warm_start', 'nni_adapter')
"""Folders whose functions choose, sketch and map."""

REST = ('search', 'evaluators', 'supernets', 'runs')
"""Folders whose functions train, validate, save, export and test."""

WRITE = ('utils/files.py', 'write_atomic')


def watched(command: list[str], seen: Any) -> None:
    """Run a command, and tell the functions that it calls, each with the number of its calls."""
    calls: dict[Point, int] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == 'call':
            point = point_of(frame)
            if point is not None:
                calls[point] = calls.get(point, 0) + 1

    sys.setprofile(watch)
    status = main(command)
    sys.setprofile(None)
    seen.put((status, calls))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_npz(tmp_path / 'shapes.npz', n=36)
    zoo = SupernetZoo(tmp_path / 'zoo')
    for seed in range(2):
        torch.manual_seed(seed)
        source = run(WarmStartDARTS(), tmp_path / 'source', epochs=1)
        zoo.add(Supernet.from_strategy(source, name=f'source{seed}', dataset=make_task(seed=seed)))
    strategy, evaluator = (
        {'name': 'WarmStartDARTS', 'source': 'fused', 'zoo': 'zoo'},
        {**SMALL['evaluator'], 'max_epochs': 5},
    )
    (tmp_path / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': evaluator, 'strategy': strategy}))
    return tmp_path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / 'logs' / 'metrics.csv').open(newline='') as file:
        return [{key: value for key, value in row.items() if key != 'search/epoch_seconds'} for row in csv.DictReader(file)]


def result(out: Path) -> dict[str, Any]:
    found = json.loads((out / 'result.json').read_text())
    for figures in (*found['curve'], found['final']):
        figures.pop('epoch_seconds')
    found['warm_start'].pop('seconds')
    return {key: found[key] for key in ('curve', 'final', 'architecture', 'alphas', 'warm_start')}


def equal(one: Path, other: Path) -> None:
    """Check that two runs have ended at the same bits."""
    supernets = [Supernet.load(each / 'supernet.safetensors') for each in (one, other)]
    assert all(torch.equal(tensor, supernets[1].tensors[name]) for name, tensor in supernets[0].tensors.items())
    assert result(one) == result(other)
    assert rows(one) == rows(other)
    assert same_files(one, other)


def same_files(one: Path, other: Path) -> bool:
    files = [sorted(str(path.relative_to(each)) for path in each.rglob('*')) for each in (one, other)]
    return files[0] == files[1]


def spread(points: list[Point], number: int) -> list[Point]:
    return [points[len(points) * index // number] for index in range(number)]


def kills(calls: dict[Point, int], start: int, rest: int, writes: int) -> list[tuple[Point, str, int]]:
    """Choose functions, in the order of their first calls; of some that every epoch calls, the second call."""
    points = [point for point in calls if point[1] != 'training_step' and point[1][0] != '<']
    first = [point for point in points if point[0].startswith(START)] if start else []
    later = [point for point in points if point[0].startswith(REST)]
    chosen = [*spread(first, start), *spread(later, rest)]
    found = [
        (point, ('call', 'return')[number % 2], 2 if number % 6 == 0 and calls[point] > 1 else 1)
        for number, point in enumerate(sorted(chosen, key=points.index))
    ]
    return found + [(WRITE, moment, call) for call in range(1, 1 + writes) for moment in ('call', 'return')]


def killed_again_and_again(command: list[str], folder: Path, **numbers: int) -> tuple[Path, Path]:
    """Run a command, once without interruption, and once killed and resumed; returns the folders of both."""
    whole, resumed = folder / 'whole', folder / 'killed'
    seen = processes.Queue()
    process = processes.Process(target=watched, args=([*command, '--out', str(whole)], seen))
    process.start()
    status, calls = seen.get(timeout=300)
    process.join()
    assert status == 0
    chosen, command, resume, ended = kills(calls, **numbers), [*command, '--out', str(resumed)], [], 0
    for kill in chosen:
        process = processes.Process(target=killed, args=([*command, *resume], *kill))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), kill
        resume = ['--resume']
        if process.exitcode == 0:  # a run that goes on did not come by there: the next points are for another run
            ended, resume = ended + 1, []
            assert same_files(whole, resumed)
            shutil.rmtree(resumed)
    assert ended < len(chosen) / 5  # where a search that goes on does not come by there
    assert main([*command, *resume]) == 0
    return whole, resumed


@pytest.mark.slow
def test_fifty_kills_at_points_other_than_training(folder):
    command = ['search', '--config', str(folder / 'search.yml'), '--seed', '5']
    equal(*killed_again_and_again(command, folder, start=10, rest=34, writes=4))


@pytest.mark.slow
def test_a_retraining_that_is_killed(folder):
    search = ['search', '--config', str(folder / 'search.yml'), '--set', 'evaluator.max_epochs=1']
    assert main([*search, '--out', str(folder / 'found')]) == 0
    command = ['retrain', '--config', str(folder / 'search.yml'), '--run', str(folder / 'found'), '--export', 'pt2']
    whole, resumed = killed_again_and_again(command, folder, start=0, rest=6, writes=4)
    networks = [Network.load(each / 'network.safetensors').tensors for each in (whole, resumed)]
    assert all(torch.equal(tensor, networks[1][name]) for name, tensor in networks[0].items())
    results = [json.loads((each / 'result.json').read_text()) for each in (whole, resumed)]
    assert all(results[0][key] == results[1][key] for key in ('curve', 'final', 'architecture', 'files'))
    assert rows(whole) == rows(resumed)
    assert same_files(whole, resumed)
