"""Lets a one-shot search inside an nnictl trial be seen: its metrics on NNI's web page."""

from __future__ import annotations

import functools
from typing import Any

import nni
from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import ModelEventType
from nni.runtime.env_vars import trial_env_vars
from nni.runtime.trial_command_channel import TrialCommandChannel, get_default_trial_command_channel

from . import introspect


def in_trial() -> bool:
    """Whether this process was started by NNI as a trial."""
    return trial_env_vars.NNI_PLATFORM not in (None, 'unittest')


def forward_metrics(engine: ExecutionEngine) -> None:
    """Send what the engine's models report on to the trial that this process is.

    While a model runs, ``SequentialExecutionEngine`` replaces the trial's command channel by its own, and reports end as
    events of the engine: the page stays empty although the trial succeeds. So the channel from before is kept.
    """
    channel, parameter_id = _own_channel()
    sequence = 0

    def intermediate(event: Any) -> None:
        nonlocal sequence
        channel.send_metric('PERIODICAL', parameter_id, nni.get_trial_id(), sequence, event.metric)
        sequence += 1

    def final(event: Any) -> None:
        channel.send_metric('FINAL', parameter_id, nni.get_trial_id(), 0, event.metric)

    engine.register_model_event_callback(ModelEventType.IntermediateMetric, intermediate)
    engine.register_model_event_callback(ModelEventType.FinalMetric, final)


@functools.cache
def _own_channel() -> tuple[TrialCommandChannel, int | None]:
    """The trial's channel and parameter id, remembered: a finished search leaves its own parameters behind."""
    if nni.get_current_parameter() is None:
        nni.get_next_parameter()
    return get_default_trial_command_channel(), introspect.trial_parameter_id()
