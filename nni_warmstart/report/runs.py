"""Reading of the folders of searches, finished or not."""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, reason
from ..evaluators.checkpoints import pickled_bytes
from ..nni_adapter.trial import experiment_folder
from ..runs.folder import RunFolder, network_of
from ..runs.settings import check_values, flat
from ..search.record import recorded_curve
from ..utils.files import plain
from ..utils.json_files import read_json
from ..utils.limits import Budget
from ..utils.text import visible
from .forms import RECORD, RESULT, RETRAINED, SETTINGS, misfit

_DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, RuntimeError, LookupError, TypeError, ValueError,
    AttributeError, AssertionError, MemoryError, OverflowError,
)  # fmt: skip
"""Exceptions of torch for a damaged checkpoint."""

_PER_BYTE = 60
"""Bytes in memory that a byte of pickled text becomes at most."""

_MOST_EPOCHS = 10_000
"""Largest number of epochs that are drawn."""

SECTIONS = ('data', 'space', 'evaluator', 'strategy')
"""Sections of the settings of a search."""


_FURTHER = ('checkpoints/last.ckpt', 'supernet.safetensors', 'architecture.json')
"""Files of a search by which one with damaged results and settings is known."""


@dataclass(frozen=True)
class Search:
    """Content of the folder of a search.

    Attributes
    ----------
    folder
        Path of the folder.
    name
        Name that distinguishes the search from the others on the page.
    settings
        Content of ``settings.json``.
    result
        Content of ``result.json``; of an unfinished search, those entries of an earlier result that still hold.
    curve
        Figures by epoch.
    alphas
        Label of a choice -> candidate -> probability, by epoch; may be empty.
    architecture
        Label of a choice -> chosen candidate or value.
    note
        Reason why the search is unfinished; '' for a finished one.
    """

    folder: Path
    name: str
    settings: dict[str, Any]
    result: dict[str, Any]
    curve: list[dict[str, Any]]
    alphas: list[dict[str, dict[str, Any]]]
    architecture: dict[str, Any]
    note: str


@dataclass(frozen=True)
class Retrained:
    """Content of the folder of a retraining.

    Attributes
    ----------
    folder, name
        As those of a :class:`Search`.
    result
        Content of ``result.json``.
    """

    folder: Path
    name: str
    result: dict[str, Any]

    @property
    def accuracy(self) -> Any:
        """Accuracy of the network that was written; of an earlier version, the mean of its last epochs."""
        return self.result.get('accuracy', self.result['final'])

    def is_of(self, search: Search) -> bool:
        """Check whether its network is what a search found; of an earlier version, by architecture and data."""
        own, run = (each.result.get('run') for each in (self, search))
        if isinstance(own, dict) and own.get('search') is not None:
            return isinstance(run, dict) and run.get('id') == own['search']
        return self.result['architecture'] == search.architecture and self.result.get('data') == search.result.get('data')


def find(where: str) -> tuple[list[Path], list[Path]]:
    """Return the folders of searches, and of retrainings, in or below ``where``: a folder or the id of an NNI experiment.

    Raises
    ------
    ConfigError
        If there are neither.
    """
    root = Path(os.path.expanduser(where))
    if not root.is_dir():
        root = experiment_folder(where) or root
    if not root.is_dir():
        raise ConfigError(
            f'{where} is neither a folder nor an experiment that NNI knows (`nnictl experiment list --all`); give the '
            '--out of `nni-warmstart search` or `run`, a folder above several, or the id of an experiment.'
        )
    root = root.resolve()
    found = {path.parent for name in ('result.json', 'settings.json') for path in root.rglob(name)}
    beside = network_of(root)
    if beside is not None:
        found.add(beside)
    folders = sorted(found, key=lambda folder: natural(str(folder)))
    searches, retrained = (list(filter(is_one, folders)) for is_one in (_is_search, _is_retrained))
    if not (searches or retrained):
        raise ConfigError(
            f'{root} holds no search: neither result.json nor settings.json of one is in it or below; give the --out of '
            '`nni-warmstart search`, or a folder above several.'
        )
    return searches, retrained


def _is_retrained(folder: Path) -> bool:
    """Check whether ``folder`` is that of a finished retraining."""
    try:
        return {'weights', 'parameters', 'architecture', 'measured_on'} <= _json(folder / 'result.json').keys()
    except ConfigError:
        return False


def _is_search(folder: Path) -> bool:
    """Check whether ``folder`` is that of a search; pretraining has a list of data, retraining has weights."""
    try:
        settings, result = (_json(folder / name) for name in ('settings.json', 'result.json'))
    except ConfigError:  # another program's file of that name, unless there are other files of a search
        return any((folder / name).exists() for name in _FURTHER)
    if 'evaluator' in settings:
        return all(isinstance(settings.get(section), dict) for section in SECTIONS) and 'weights' not in settings
    return {'strategy', 'curve', 'architecture'} <= result.keys()


def read_search(folder: Path, name: str) -> Search:
    """Read the results of the search in ``folder``; those of an unfinished one are in its last checkpoint.

    Raises
    ------
    ConfigError
        If a file is damaged, of another form, or takes more memory than the limit of a file allows.
    """
    settings, result = (_json(folder / name) for name in ('settings.json', 'result.json'))
    _check(folder / 'settings.json', settings, SETTINGS)
    try:
        check_values(settings)
    except ConfigError as error:
        raise ConfigError(f'{folder / "settings.json"} is damaged: {error}') from error
    if result:
        _check(folder / 'result.json', result, RESULT)
    kept = _kept(RunFolder(folder).checkpoint)
    if result and (not kept or kept['curve'] == result['curve']):
        return Search(folder, name, settings, result, result['curve'], result.get('alphas', []), result['architecture'], '')
    curve, samples = kept.get('curve', []), kept.get('samples', [])
    epochs = flat(settings).get('evaluator.max_epochs', '?')
    note = f'Unfinished: {len(curve)} of {epochs} epochs. It was killed, failed, or still runs; --resume goes on.'
    lasting = ('data', 'source', 'warm_start', 'versions')
    goes_on = result and curve[: len(result['curve'])] == result['curve']
    result = {key: result[key] for key in lasting if key in result} if goes_on else {}
    return Search(folder, name, settings, result, curve, kept.get('alphas', []), samples[-1] if samples else {}, note)


def read_retrained(folder: Path, name: str) -> Retrained:
    """Read the results of the retraining in ``folder``.

    Raises
    ------
    ConfigError
        If they are damaged, of another form, or take more memory than the limit of a file allows.
    """
    result = _json(folder / 'result.json')
    _check(folder / 'result.json', result, RETRAINED)
    return Retrained(folder, name, result)


def _check(path: Path, content: dict[str, Any], form: Any) -> None:
    """Raise an error for content that no search has written."""
    wrong = misfit(content, form)
    if wrong is not None:
        raise ConfigError(
            f'{path} is damaged: {visible(wrong, keep="")} is not what a search writes; repair or delete the file.'
        )
    epochs = max((len(content.get(key, ())) for key in ('curve', 'alphas', 'samples')), default=0)
    if epochs > _MOST_EPOCHS:
        raise ConfigError(f'{path} has {epochs} epochs, and at most {_MOST_EPOCHS} are drawn.')


def _kept(path: Path) -> dict[str, Any]:
    """Read the record of a search in its checkpoint, without tensors; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        Budget(f'checkpoint {path}', ConfigError).check(_PER_BYTE * pickled_bytes(path))
        kept = recorded_curve(torch.load(str(path), map_location='cpu', weights_only=True, mmap=True))
        kept = {**kept, 'curve': plain(kept['curve'])}
    except OSError as error:
        raise ConfigError(f'checkpoint {path} cannot be read: {error.strerror or reason(error)}.') from error
    except ConfigError:
        raise
    except _DAMAGED as error:
        raise ConfigError(f'checkpoint {path} is damaged or of another kind; repair or delete it.') from error
    _check(path, kept, RECORD)
    return kept


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty if it is missing.

    Raises
    ------
    ConfigError
        If it cannot be read, is no JSON with keys, or takes more memory than the limit of a file allows.
    """
    try:
        content = read_json(path, ConfigError)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error.strerror}.') from error
    if not isinstance(content, dict):
        raise ConfigError(f'{path} is damaged: it holds no keys; repair or delete the file.')
    return content


def natural(text: str) -> list[Any]:
    """Return a key for natural sorting, in which 10 comes after 9."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r'(\d{1,18})', text))]
