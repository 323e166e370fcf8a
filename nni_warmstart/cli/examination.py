"""Examination by doctor: problems that keep searches from working on this machine, and their remedies."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..errors import WarmStartError, reason
from ..utils.files import unwritable

PYTHON = ((3, 10), (3, 13))
"""First and last supported version of Python."""

OTHER_NAMES = {'ot': 'POT', 'sklearn': 'scikit-learn', 'yaml': 'pyyaml'}
"""Modules whose name differs from that of their package."""

LITTLE_SPACE = 1e9
"""Free bytes below which a disk counts as nearly full."""


class Finding(NamedTuple):
    """Result of one check.

    Attributes
    ----------
    subject
        Subject of the check.
    status
        'good', 'note' (works, but is worth knowing) or 'bad' (something will not work).
    text
        Result of the check.
    remedy
        Advice; empty if all is well.
    """

    subject: str
    status: str
    text: str
    remedy: str = ''


def examine(*, zoo: str | None = None, port: int = 8080) -> Iterator[Finding]:
    """Run all checks, one after the other.

    Parameters
    ----------
    zoo
        Folder or URL of the zoo to read; None for the shipped zoo.
    port
        Port for NNI's web page.
    """
    yield python()
    yield from packages()
    yield pkg_resources()
    yield nnictl()
    yield port_free(port)
    yield listening()
    yield from disk()
    yield accelerator()
    yield from entries(zoo)


def python() -> Finding:
    low, high = ('.'.join(map(str, version)) for version in PYTHON)
    found = '.'.join(map(str, sys.version_info[:3]))
    if PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]:
        return Finding('Python', 'good', found)
    return Finding(
        'Python', 'bad', f'{found}, and {low} to {high} are supported', f'make an environment of Python {low} to {high}'
    )


def packages() -> Iterator[Finding]:
    """Check whether the required packages are installed, in supported versions."""
    good = []
    for line in importlib.metadata.requires('nni-warmstart') or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({'extra': ''}):
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(requirement.name, 'bad', 'not installed', f"pip install '{line}'")
            continue
        if requirement.specifier.contains(found, prereleases=True):
            good.append(f'{requirement.name} {found}')
        else:
            yield Finding(
                requirement.name, 'bad', f'{found}, but {requirement.specifier} is needed', f"pip install '{line}'"
            )
    yield Finding('packages', 'good', ', '.join(good))


def pkg_resources() -> Finding:
    try:
        importlib.import_module('pkg_resources')
    except ImportError as error:
        return Finding(
            'pkg_resources', 'bad', f'nnictl imports it, and it is missing ({error})', "pip install 'setuptools<81'"
        )
    return Finding('pkg_resources', 'good', 'there, as nnictl needs it')


def nnictl() -> Finding:
    path = shutil.which('nnictl')
    if path is None:
        return Finding('nnictl', 'bad', 'not on PATH', f'activate the environment: PATH={Path(sys.executable).parent}:$PATH')
    return Finding('nnictl', 'good', path)


def port_free(port: int) -> Finding:
    """Check whether the port is free, of which `nnictl create` says no more than a traceback."""
    trouble = _cannot_listen(port)
    if trouble is None:
        return Finding(f'port {port}', 'good', "free for NNI's web page")
    free = next((other for other in range(port + 1, min(port + 101, 65536)) if _cannot_listen(other) is None), 'PORT')
    return Finding(f'port {port}', 'bad', f'cannot be used: {trouble}', f'nnictl create --port {free} ...')


def _cannot_listen(port: int) -> str | None:
    """Return why a port is not free on all interfaces, since NNI's server listens on all of them; None if it is."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(('', port))
        except OSError as error:
            return error.strerror
    return None


def listening() -> Finding:
    return Finding(
        'web page', 'note', "NNI's server listens on every network interface, without a login",
        'close the port by a firewall, run in a container, or reach it through ssh -L only',
    )  # fmt: skip


def disk() -> Iterator[Finding]:
    """Check the space and the permissions of the folders for experiments and temporary files."""
    for subject, folder in (
        ('experiments', Path.home() / 'nni-experiments'),
        ('temporary files', Path(tempfile.gettempdir())),
    ):
        trouble = unwritable(folder)
        if trouble:
            yield Finding(subject, 'bad', trouble, 'make it writable, or choose experimentWorkingDirectory and TMPDIR')
            continue
        free = shutil.disk_usage(folder).free
        text = f'{free / 1e9:.1f} GB free in {folder}'
        if free < LITTLE_SPACE:
            yield Finding(subject, 'bad', text, 'make room: a search keeps a checkpoint and a supernet')
        else:
            yield Finding(subject, 'good', text)


def not_importable(subject: str, error: Exception) -> Finding:
    """Return the finding about a subject that needs a package that cannot be imported."""
    module = (getattr(error, 'name', None) or 'torch').partition('.')[0]  # OSErrors come from torch, which loads libraries
    package = OTHER_NAMES.get(module, module)
    required = (Requirement(line) for line in importlib.metadata.requires('nni-warmstart') or [])
    same = (str(each) for each in required if canonicalize_name(each.name) == canonicalize_name(package))
    remedy = f"pip install --force-reinstall '{next(same, package)}'"
    return Finding(subject, 'bad', f'{module} cannot be imported: {reason(error)}', remedy)


def accelerator() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return not_importable('GPU', error)
    if torch.cuda.is_available():
        return Finding('GPU', 'good', ', '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    text = f'none that torch {torch.__version__} sees; searches run on {cores} cores'
    return Finding('GPU', 'note', text, 'where there is one: install the torch that fits its driver')


def entries(zoo: str | None) -> Iterator[Finding]:
    """Check whether every entry of the zoo can be read."""
    try:
        from ..zoo.zoo import open_zoo
    except (ImportError, OSError) as error:
        yield not_importable('zoo', error)
        return
    try:
        opened = open_zoo(zoo)
        names = opened.names()
    except WarmStartError as error:
        yield Finding('zoo', 'bad', str(error), 'give the right --zoo')
        return
    broken = 0
    for name in names:
        try:
            opened[name]
        except WarmStartError as error:
            broken += 1
            remedy = f'copy it again, or nni-warmstart zoo remove {name} --zoo {opened.root}'
            is_folder = os.path.isdir(opened.path(name))
            yield Finding('zoo', 'bad', str(error), 'move that folder elsewhere' if is_folder else remedy)
    if not names:
        yield Finding('zoo', 'note', f'no entries in {opened.root}', 'give another --zoo, or fill it (pretrain, zoo add)')
    elif not broken:
        yield Finding('zoo', 'good', f'{len(names)} entries in {opened.root}, all readable')
