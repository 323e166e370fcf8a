"""Metrics of a one-shot search inside an nnictl trial, shown on NNI's web page (microsoft/nni #5278, #5048)."""

from __future__ import annotations

import functools
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nni
import nni.trial
from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import ModelEventType
from nni.runtime.env_vars import trial_env_vars
from nni.runtime.trial_command_channel import TrialCommandChannel, get_default_trial_command_channel
from nni.typehint import ParameterRecord

from ..errors import ConfigError
from ..utils import distributed

_PATIENCE = 30
"""Seconds to wait until NNI has noted the parameters of a trial that it has just started."""

_PARAMETERS = 'NNI_WARMSTART_PARAMETERS'
"""Environment variable with NNI's parameters, for the processes that a trial starts for further devices."""


def in_trial() -> bool:
    """Check whether this process was started by NNI as a trial, and not by a trial for a further device."""
    return trial_env_vars.NNI_PLATFORM not in (None, 'unittest') and distributed.is_first()


def next_parameter() -> dict[str, Any]:
    """Return the hyper-parameters of this trial; empty outside an experiment.

    NNI 3.0 hands parameters out in the order in which trials ask (``training_service/v3/compat.js``), but shows them in the
    order in which trials were made: two that start together may get each other's, and after one that ended before it asked
    every trial gets those of another. Therefore a local trial asks, and takes those that the page shows.

    Raises
    ------
    ConfigError
        If NNI does not tell what it shows.
    """
    if not in_trial() and _PARAMETERS in os.environ:
        return json.loads(os.environ[_PARAMETERS])
    parameters = nni.get_next_parameter() or {}
    if in_trial():
        channel = trial_env_vars.NNI_TRIAL_COMMAND_CHANNEL
        if trial_env_vars.NNI_PLATFORM == 'local' and channel is not None:
            nni.trial._params = _shown(f'{channel.rpartition("/env/")[0]}/api/v1/nni/trial-jobs/{nni.get_trial_id()}')
            parameters = nni.trial._params['parameters']
        os.environ[_PARAMETERS] = json.dumps(parameters)
    return cast(dict[str, Any], parameters)


def _shown(url: str) -> ParameterRecord:
    """Read the parameters that NNI's page shows for a trial; they are noted there just after the trial has started."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
                return nni.load(json.load(answer)['hyperParameters'][0])
        except (OSError, ValueError, LookupError) as error:
            if time.monotonic() > deadline:
                raise ConfigError(f'NNI does not tell the parameters of this trial at {url}; start it again.') from error
        time.sleep(0.05)


def show_tensorboard() -> None:
    """Let the TensorBoard button of NNI's page find the folder ``tensorboard`` in the output of this trial.

    NNI 3.0 looks for it in ``trials/ID/output`` of the experiment (``training_service/v3/compat.js``), and the output of a
    local trial is in ``environments/local-env/trials/ID``; a link leads from there to here. Elsewhere nothing is done.
    """
    if trial_env_vars.NNI_PLATFORM != 'local' or not in_trial():
        return
    output = Path(trial_env_vars.NNI_OUTPUT_DIR or '.').resolve()
    if output.parent.parent.parent.name != 'environments':
        return
    target, link = output / 'tensorboard', output.parents[3] / 'trials' / output.name / 'output' / 'tensorboard'
    target.mkdir(exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and not link.is_symlink():
        link.rmdir()  # made by the button, which was pressed before
    if not link.is_symlink():
        link.symlink_to(target)


def forward_metrics(engine: ExecutionEngine, epoch: Callable[[], int]) -> None:
    """Forward the metrics of the engine's models to NNI as those of this trial.

    Points of the curve are numbered by their epoch, so that a resumed trial continues the curve that NNI has of it.

    While a model runs, ``SequentialExecutionEngine`` replaces the trial's command channel by its own, and reports end as
    events of the engine: the page stays empty although the trial succeeds. Therefore metrics are sent on the original
    channel.
    """
    channel, parameter_id = _own_channel()
    sequence = -1

    def intermediate(event: Any) -> None:
        nonlocal sequence
        sequence = max(sequence + 1, epoch())
        channel.send_metric('PERIODICAL', parameter_id, nni.get_trial_id(), sequence, event.metric)

    def final(event: Any) -> None:
        channel.send_metric('FINAL', parameter_id, nni.get_trial_id(), 0, event.metric)

    engine.register_model_event_callback(ModelEventType.IntermediateMetric, intermediate)
    engine.register_model_event_callback(ModelEventType.FinalMetric, final)


@contextmanager
def parameters_kept() -> Iterator[None]:
    """Put the parameters of this trial back at the end: a search leaves its own behind, and NNI's modules report by them."""
    before = nni.trial._params
    try:
        yield
    finally:
        nni.trial._params = before


@contextmanager
def reports_if_measured(module: Any) -> Iterator[None]:
    """Keep NNI's final report from failing in a run that is resumed after its last epoch, and measures nothing.

    Parameters
    ----------
    module
        Supervised learning of NNI that a trainer is about to fit.
    """
    report = module._final_report
    module._final_report = lambda: report() if module.trainer.callback_metrics else None
    try:
        yield
    finally:
        del module._final_report


@functools.cache
def _own_channel() -> tuple[TrialCommandChannel, int | None]:
    """Return the trial's channel and parameter id, cached because a finished search leaves its own parameters behind."""
    if nni.get_current_parameter() is None:
        next_parameter()
    return get_default_trial_command_channel(), trial_parameter_id()


def trial_parameter_id() -> int | None:
    """Return the identifier of the parameters that NNI's manager gave to this trial."""
    record = nni.trial._params
    return None if record is None else record['parameter_id']


def experiment_folder(name: str) -> Path | None:
    """Return the folder of an experiment in NNI's own list."""
    from nni.tools.nnictl import config_utils

    known = config_utils.Experiments().get_all_experiments().get(name)
    return None if known is None else Path(os.path.expanduser(known['logDir'])) / name
