"""Start the NNI experiment of warmstart.yml, show its progress, and say how much sooner the warm trial was as good."""

from __future__ import annotations

import argparse
import json
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

from nni.experiment import Experiment
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.settings import read
from nni_warmstart.utils.files import write_json
from nni_warmstart.utils.metrics import epochs_to

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent.parent / '.demo' / 'result.json'
NAMES = ('cold', 'warm')
ENDED = {'SUCCEEDED', 'FAILED', 'USER_CANCELED', 'SYS_CANCELED', 'EARLY_STOPPED'}

console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--port', type=int, default=8080, help='first port to try for the web page (default: 8080)')
    parser.add_argument('--no-wait', action='store_true', help='stop the experiment at the end instead of waiting for Enter')
    arguments = parser.parse_args()
    port = free_port(arguments.port)
    logging.getLogger('nni').setLevel(logging.WARNING)
    experiment = create(port)
    try:
        console.print(f'Web page: http://localhost:{port}  (experiment {experiment.id})')
        if not watch(experiment):
            return 1
        compare(experiment)
        console.print(f'Web page: http://localhost:{port}    figures: {RESULT}')
        if not arguments.no_wait:
            console.print('Press Enter to stop the experiment.')
            wait_for_enter()
    finally:
        subprocess.run(['nnictl', 'stop', experiment.id], check=False, stdout=subprocess.DEVNULL)
    return 0


def free_port(port: int) -> int:
    """``port``, or the next one that nothing listens on."""
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)) != 0:
                return port
        console.print(f'Port {port} is busy, trying {port + 1}.')
        port += 1


def create(port: int) -> Experiment:
    command = ['nnictl', 'create', '--config', str(HERE / 'warmstart.yml'), '--port', str(port)]
    output = subprocess.run(command, check=False, capture_output=True, text=True)
    if output.returncode != 0:
        sys.exit(f'nnictl could not start the experiment:\n{output.stdout}{output.stderr}')
    return Experiment.connect(port)


def watch(experiment: Experiment) -> bool:
    """Show both trials until they end; False, and the end of its log, if one failed."""
    epochs = parse_search(read(HERE / 'search.yml'), HERE).evaluator.max_epochs
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('epoch {task.completed}/{task.total}'),
               TextColumn('{task.fields[accuracy]}'), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bars = {name: progress.add_task(name, total=epochs, accuracy='', start=False) for name in NAMES}
        while True:
            trials = experiment.list_trial_jobs()
            for trial in trials:
                curve = curve_of(experiment, trial)
                progress.start_task(bars[name_of(trial)])
                accuracy = f'accuracy {curve[-1]["default"]:.3f}' if curve else ''
                total = len(curve) if trial.status == 'SUCCEEDED' else epochs  # the warm one ends early
                progress.update(bars[name_of(trial)], completed=len(curve), total=total, accuracy=accuracy)
                if trial.status in ENDED:
                    progress.stop_task(bars[name_of(trial)])
            if len(trials) == len(NAMES) and all(trial.status in ENDED for trial in trials):
                break
            if any(trial.status == 'FAILED' for trial in trials) or experiment.get_status() == 'ERROR':
                break
            time.sleep(1)
    failed = [trial for trial in trials if trial.status in ENDED - {'SUCCEEDED'}]
    for trial in failed:
        log = folder_of(trial) / 'trial.stderr'
        lines = log.read_text().splitlines()[-20:] if log.is_file() else ['(no log)']
        console.print(f'Trial {trial.trialJobId} ended as {trial.status}; the end of {log}:', *lines, sep='\n')
    return not failed and bool(trials)


def compare(experiment: Experiment) -> None:
    """Print one table and write the figures."""
    runs = {}
    for trial in experiment.list_trial_jobs():
        result = json.loads((folder_of(trial) / 'result.json').read_text())
        runs[name_of(trial)] = {'trial': trial.trialJobId, **result}
    target = runs['cold']['final']['default']
    summary = {}
    for name in NAMES:
        run = runs[name]
        accuracies = [figures['default'] for figures in run['curve']]
        epochs = epochs_to(accuracies, target)
        before = sum(run['warm_start']['seconds'].values()) if run['warm_start'] else 0.0
        seconds = None if epochs is None else before + sum(figures['epoch_seconds'] for figures in run['curve'][:epochs])
        summary[name] = {
            'epochs_to_target': epochs,
            'seconds_to_target': seconds,
            'final_accuracy': accuracies[-1],
            'curve': accuracies,
            'architecture': run['architecture'],
            'test_accuracy': run['final'].get('test_accuracy'),
            'accuracy_before_training': run['warm_start'] and run['warm_start']['zero_shot_accuracy'],
            'trial': run['trial'],
        }
    table = Table(title=f"To reach the cold search's validation accuracy, {target:.4f}")
    for column in ('search', 'epochs', 'seconds', 'final accuracy', 'test accuracy'):
        table.add_column(column)
    table.add_column('architecture', no_wrap=True)
    for name, row in summary.items():
        epochs, seconds = row['epochs_to_target'], row['seconds_to_target']
        table.add_row(
            name,
            'not reached' if epochs is None else str(epochs),
            '-' if seconds is None else f'{seconds:.1f}',
            f'{row["final_accuracy"]:.4f}',
            f'{row["test_accuracy"]:.4f}',
            '\n'.join(f'{label}\N{NO-BREAK SPACE}{op}' for label, op in row['architecture'].items()),
        )
    console.print(table)
    console.print(verdict(summary['cold'], summary['warm']), style='bold')
    write_json(RESULT, {'target': target, **summary})


def verdict(cold: dict, warm: dict) -> str:
    """Say in one sentence how much sooner the warm search was as good."""
    if warm['epochs_to_target'] is None:
        return 'The warm search did not become as accurate as the cold one.'
    fewer, less = (cold[f'{unit}_to_target'] / warm[f'{unit}_to_target'] for unit in ('epochs', 'seconds'))
    return f'To become as accurate, the warm search took {fewer:.1f} times fewer epochs, {less:.1f} times less time.'


def name_of(trial: object) -> str:
    return trial.hyperParameters[0].parameters['start']['_name']  # type: ignore[attr-defined]


def curve_of(experiment: Experiment, trial: object) -> list[dict[str, float]]:
    """Intermediate results, in order."""
    metrics = experiment.get_job_metrics(trial.trialJobId).get(trial.trialJobId, [])  # type: ignore[attr-defined]
    points = [metric for metric in metrics if metric.type == 'PERIODICAL']
    return [point.data for point in sorted(points, key=lambda point: int(point.sequence))]


def folder_of(trial: object) -> Path:
    """Where a trial of the local training service wrote its output."""
    return Path(urlparse(trial.logPath).path.lstrip(':'))  # type: ignore[attr-defined]


def wait_for_enter() -> None:
    """Return at Enter or Ctrl-C; without a terminal, stay until stopped."""
    try:
        if sys.stdin.isatty():
            console.input()
        else:
            while True:
                time.sleep(60)
    except (KeyboardInterrupt, EOFError):
        console.print('stopping')


if __name__ == '__main__':
    sys.exit(main())
