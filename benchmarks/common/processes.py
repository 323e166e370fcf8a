"""Runs in several processes, each of which adds a row to a file."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.common.rows import of_recipe
from nni_warmstart.cli import quiet
from nni_warmstart.errors import WarmStartError


def perform(
    function: Callable[[Any, Any], dict[str, Any]], runs: Sequence[Any], setting: Any, path: Path, processes: int
) -> None:
    """Run what is not in the file yet.

    Parameters
    ----------
    function
        Takes a run and ``setting``, returns the row; it is called in another process.
    runs
        Objects of one class, whose ``key`` names the attributes that tell one from another.
    setting
        What all runs share; its ``recipe`` is the identity of what is measured, and rows of another one are left alone.
    path
        File of the rows.
    processes
        How many run at once.
    """
    done = {tuple(row[key] for key in runs[0].key) for row in of_recipe(path, setting.recipe)} if runs else set()
    todo = [run for run in runs if tuple(getattr(run, key) for key in run.key) not in done]
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn('left'), TimeRemainingColumn())  # fmt: skip
    context = multiprocessing.get_context('spawn')
    with (
        Progress(*columns, speed_estimate_period=3600) as progress,
        ProcessPoolExecutor(processes, context, initializer=quietly) as pool,
    ):
        bar = progress.add_task('runs', total=len(runs), completed=len(runs) - len(todo))
        waiting = {pool.submit(function, run, setting): run for run in todo}
        for future in as_completed(waiting):
            try:
                row = future.result()
            except WarmStartError as error:  # such as a class too small to be in both halves
                progress.console.print(f'{waiting[future].task}, {waiting[future].side}: left out, {error}')
                continue
            with path.open('a') as file:
                file.write(json.dumps({**row, 'recipe': setting.recipe}) + '\n')
            progress.update(bar, advance=1, description=f'{row["task"]}, {row["side"]}')


def quietly() -> None:
    """Begin a process: one thread, and nothing of NNI's on the terminal."""
    quiet()
    torch.set_num_threads(1)
