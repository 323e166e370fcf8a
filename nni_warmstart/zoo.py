"""SupernetZoo: a folder of supernet files, one per entry."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from .errors import SupernetFileError, ZooError
from .storage import unwritable
from .supernet import Supernet

_logger = logging.getLogger(__name__)

SUFFIX = '.safetensors'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')


class SupernetZoo:
    """Remembered supernets by name.

    Parameters
    ----------
    root
        A folder; it is made when the first entry is added.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser()

    @classmethod
    def shipped(cls) -> SupernetZoo:
        """The zoo inside the package."""
        return cls(Path(str(files('nni_warmstart') / 'zoo_data')))

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(path.name[: -len(SUFFIX)] for path in self.root.glob(f'*{SUFFIX}') if not path.name.startswith('.'))

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __len__(self) -> int:
        return len(self.names())

    def __getitem__(self, name: str) -> Supernet:
        """Load one entry.

        Raises
        ------
        ZooError
            If there is no such entry.
        SupernetFileError
            If its file is damaged.
        """
        return Supernet.load(self._existing(name))

    def entries(self) -> Iterator[Supernet]:
        """Every readable entry; damaged ones are skipped with a warning that names them."""
        for name in self.names():
            try:
                yield self[name]
            except SupernetFileError as error:
                _logger.warning('Skipping zoo entry %s: %s', name, error)

    def add(self, supernet: Supernet) -> Path:
        """Write an entry under the supernet's name, replacing one of that name.

        Raises
        ------
        ZooError
            If the name cannot be a file name.
        """
        self.check_can_add(supernet.name)
        supernet.save(self.path(supernet.name))
        return self.path(supernet.name)

    def check_can_add(self, name: str) -> None:
        """Refuse a name or a folder that :meth:`add` could not write, before hours of training.

        Raises
        ------
        ZooError
            If the name cannot be a file name, or the folder cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ZooError(f'zoo entry name {name!r} may hold letters, digits, ".", "_" and "-" only.')
        trouble = unwritable(self.root)
        if trouble:
            raise ZooError(f'zoo folder {trouble}')

    def remove(self, name: str) -> None:
        """Delete an entry."""
        self._existing(name).unlink()

    def path(self, name: str) -> Path:
        """File of an entry."""
        return self.root / f'{name}{SUFFIX}'

    def _existing(self, name: str) -> Path:
        if name not in self:
            raise ZooError(f'zoo {self.root} has no entry {name!r}; it has {", ".join(self.names()) or "none"}.')
        return self.path(name)

    def free_name(self, stem: str) -> str:
        """``stem`` with the first number that no entry has: ``stem-1``, ``stem-2``, ..."""
        taken = set(self.names())
        number = 1
        while f'{stem}-{number}' in taken:
            number += 1
        return f'{stem}-{number}'

    def __repr__(self) -> str:
        return f'SupernetZoo({str(self.root)!r})'


def open_zoo(zoo: SupernetZoo | str | os.PathLike[str] | None) -> SupernetZoo:
    """The zoo meant by an argument ``zoo``: itself, a folder, or None for the shipped one."""
    if zoo is None:
        return SupernetZoo.shipped()
    return zoo if isinstance(zoo, SupernetZoo) else SupernetZoo(zoo)


def resolve_source(source: Supernet | str | os.PathLike[str], zoo: SupernetZoo | str | os.PathLike[str] | None) -> Supernet:
    """The supernet meant by an argument ``source``: itself, a zoo entry's name, or a file.

    Raises
    ------
    ZooError
        If it is none of these.
    SupernetFileError
        If the file is damaged or of another kind.
    """
    if isinstance(source, Supernet):
        return source
    if not isinstance(source, str | os.PathLike):
        raise ZooError(f'source is a {type(source).__name__}; give a Supernet, a file, or the name of a zoo entry.')
    entries = open_zoo(zoo)
    if isinstance(source, str) and source in entries:
        return entries[source]
    if Path(source).expanduser().is_file():
        return Supernet.load(Path(source).expanduser())
    raise ZooError(
        f'source = {str(source)!r} is neither a file nor an entry of {entries.root}; entries are '
        f'{", ".join(entries.names()) or "none"}.'
    )
