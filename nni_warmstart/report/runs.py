"""Reading of the folders of searches, finished or not."""

from __future__ import annotations

import json
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from ..nni_adapter.trial import experiment_folder
from ..runs.folder import RunFolder
from ..runs.settings import flat
from ..search.record import recorded_curve
from ..utils.files import plain

SECTIONS = ('data', 'space', 'evaluator', 'strategy')
"""Sections of the settings of a search."""


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


def find(where: str) -> list[Path]:
    """Return the folders of the searches in or below ``where``, a folder or the id of an experiment of NNI.

    Raises
    ------
    ConfigError
        If there are no searches.
    """
    root = Path(os.path.expanduser(where))
    if not root.is_dir():
        root = experiment_folder(where) or root
    if not root.is_dir():
        raise ConfigError(
            f'{where} is neither a folder nor an experiment that NNI knows (`nnictl experiment list --all`); give the '
            '--out of `nni-warmstart search`, a folder above several, or the id of an experiment.'
        )
    root = root.resolve()
    found = {path.parent for name in ('result.json', 'settings.json') for path in root.rglob(name)}
    searches = sorted((folder for folder in found if _is_search(folder)), key=lambda folder: natural(str(folder)))
    if not searches:
        raise ConfigError(
            f'{root} holds no search: neither result.json nor settings.json of one is in it or below; give the --out of '
            '`nni-warmstart search`, or a folder above several.'
        )
    return searches


def _is_search(folder: Path) -> bool:
    """Check whether ``folder`` is that of a search; pretraining has a list of data, retraining has weights."""
    try:
        settings, result = (_json(folder / name) for name in ('settings.json', 'result.json'))
    except ConfigError:
        if any((folder / name).exists() for name in ('checkpoints/last.ckpt', 'supernet.safetensors', 'architecture.json')):
            raise
        return False  # another program's file of that name
    if 'evaluator' in settings:
        return all(isinstance(settings.get(section), dict) for section in SECTIONS) and 'weights' not in settings
    return {'strategy', 'curve', 'architecture'} <= result.keys()


def read_search(folder: Path, name: str) -> Search:
    """Read the results of the search in ``folder``; those of an unfinished one are in its last checkpoint.

    Raises
    ------
    ConfigError
        If a file is damaged.
    """
    settings, result = (_json(folder / name) for name in ('settings.json', 'result.json'))
    if result:
        _check(folder / 'result.json', result)
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


def _check(path: Path, result: dict[str, Any]) -> None:
    """Raise an error for a result that no search has written."""
    lists = [result.get('curve'), result.get('alphas', [])]
    if not isinstance(result.get('architecture'), dict) or not all(
        isinstance(each, list) and all(isinstance(item, dict) for item in each) for each in lists
    ):
        raise ConfigError(f'{path} is damaged: no curve, alphas and architecture of a search; delete it to report the rest.')


def _kept(path: Path) -> dict[str, Any]:
    """Read the record of a search in its checkpoint, without tensors; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        kept = recorded_curve(torch.load(str(path), map_location='cpu', weights_only=True, mmap=True))
        return {**kept, 'curve': plain(kept['curve'])}
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'checkpoint {path} is damaged or of another kind; delete it to report the rest.') from error


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty if it is missing or not a mapping."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{path} is damaged; delete it to report the rest.') from error
    return content if isinstance(content, dict) else {}


def natural(text: str) -> list[Any]:
    """Return a key for natural sorting, in which 10 comes after 9."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r'(\d+)', text))]
