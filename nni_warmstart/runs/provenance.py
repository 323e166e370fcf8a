"""Provenance of a run: its identity, settings and data, which tie its files together."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pytorch_lightning import Callback

from ..data.sources import title_of
from ..errors import ConfigError
from .config import DataConfig, EvaluatorConfig, JointConfig, SourceDataConfig
from .settings import as_written, flat

MAY_CHANGE = (
    'evaluator.max_epochs', 'evaluator.max_seconds', 'evaluator.stop_at', 'evaluator.logger', 'strategy.arguments.save_to',
)  # fmt: skip
"""Settings that may change when a run is resumed."""

SUPERNET = 'supernet'
"""Setting of a retraining with inherited weights: the identifier of the supernet that they are from."""

LOADING = ('evaluator.num_workers', 'evaluator.prefetch')
"""Settings that may change as well, unless the run is a pretraining, whose batches are drawn while they are read ahead."""


@dataclass(frozen=True)
class Provenance:
    """Provenance of a run, written into ``run.json``, its checkpoints and its results.

    Attributes
    ----------
    settings
        All settings, as plain data.
    data
        Part of the data -> its :mod:`fingerprint <nni_warmstart.data.fingerprint>`.
    run
        Unique name of the run, which a resumed run keeps.
    """

    settings: dict[str, Any]
    data: dict[str, str]
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, settings: Mapping[str, Any], data: Mapping[str, str]) -> Provenance:
        """Return the provenance of a new run; ``base``, the folder of the YAML file, is left out."""
        kept = {key: value for key, value in settings.items() if key != 'base'}
        return cls(json.loads(json.dumps(kept, default=str)), dict(data))

    def to_dict(self) -> dict[str, Any]:
        """Return identity, data and a hash of the settings, for the results."""
        text = json.dumps(self.settings, sort_keys=True).encode()
        return {'id': self.run, 'data': self.data, 'settings': hashlib.blake2b(text, digest_size=6).hexdigest()}

    def state(self) -> dict[str, str]:
        """Return everything as text, for checkpoints."""
        return {'run': self.run, 'settings': json.dumps(self.settings), 'data': json.dumps(self.data)}

    @classmethod
    def from_state(cls, state: Mapping[str, str]) -> Provenance:
        """Return what :meth:`state` held.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it holds something else.
        """
        return cls(dict(json.loads(state['settings'])), dict(json.loads(state['data'])), str(state['run']))

    def check_goes_on(self, earlier: Provenance, where: str, otherwise: str = 'choose another --out') -> None:
        """Raise an error unless a run with ``earlier`` provenance can go on with this one.

        Raises
        ------
        ConfigError
            If settings other than :data:`MAY_CHANGE` and :data:`LOADING`, or data differ; the message names the first
            difference.
        """
        now, before = completed(self.settings), completed(earlier.settings)
        now, before = _by_name(now, before), _by_name(before, now)
        may_change = MAY_CHANGE if isinstance(self.settings.get('data'), list) else MAY_CHANGE + LOADING
        if SUPERNET not in before.keys() & now.keys():  # of an older version, or other weights
            may_change += (SUPERNET,)
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key) and key not in may_change:
                raise ConfigError(
                    f'the run in {where} has {as_written(key)} = {before.get(key)!r} and should go on with '
                    f'{now.get(key)!r}; put it back, or {otherwise}.'
                )
        if not (self.data and earlier.data):  # of an older version
            return
        for part in sorted(earlier.data.keys() | self.data.keys()):
            if earlier.data.get(part) != self.data.get(part):
                raise ConfigError(
                    f'the run in {where} began with other data: {part} were {earlier.data.get(part, "not there")} and are '
                    f'{self.data.get(part, "not there")} (type, shape, hash); put them back, or {otherwise}.'
                )


def _by_name(settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted name; of a list of datasets its length, those that are not in ``other``, and each one."""
    data, others = settings.get('data'), other.get('data')
    if not (isinstance(data, list) and isinstance(others, list)):
        return flat(settings)
    further = [f', {title_of(item)}' for item in data if isinstance(item, dict) and item not in others]
    numbered = {f'data[{number}]': item for number, item in enumerate(data)}
    return flat({**settings, 'data': f'{len(data)} dataset{"s" * (len(data) > 1)}{"".join(further)}', **numbered})


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults of settings that an older version did not have."""
    data, evaluator = settings.get('data'), settings.get('evaluator')
    found, training = dict(settings), JointConfig if isinstance(data, list) else EvaluatorConfig
    if isinstance(data, dict):
        found['data'] = {**asdict(DataConfig()), **data}
    elif isinstance(data, list):
        found['data'] = [{**asdict(SourceDataConfig()), **item} if isinstance(item, dict) else item for item in data]
    if isinstance(evaluator, dict):
        found['evaluator'] = {**asdict(training()), **evaluator}
    return found


class Marked(Callback):
    """Writes the provenance of a run into its checkpoints."""

    KEY = 'nni_warmstart.run'

    @property
    def state_key(self) -> str:
        return self.KEY

    def __init__(self, provenance: Provenance) -> None:
        self.provenance = provenance

    def state_dict(self) -> dict[str, Any]:
        return dict(self.provenance.state())
