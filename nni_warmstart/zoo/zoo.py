"""SupernetZoo: a folder of supernet files, one per entry, on a disk or behind any URL that fsspec knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import SupernetFileError, ZooError
from ..supernets.pretrained import registry
from ..supernets.supernet import Supernet
from ..utils.checks import suggestion
from ..utils.limits import Budget
from ..utils.text import enumerated
from . import ranking
from .listing import readable
from .ranking import Ranked
from .store import Store, shipped

RULES = ('nearest', 'fused', 'joint', 'auto', 'none')
"""Values of ``source=`` that name a rule of choice, or a cold start ('none')."""

_FORBIDDEN = re.compile(r'^[^A-Za-z0-9]+|[^A-Za-z0-9._-]')

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,199}')  # file names have at most 255 characters, in part files more


class SupernetZoo:
    """Collection of supernets by name, in a folder.

    Parameters
    ----------
    root
        Folder, or any URL that fsspec knows ('file:///...', 'memory://...', 's3://...' with the protocol's package); it is
        created when the first entry is added.

    Raises
    ------
    ZooError
        If the URL's protocol is unknown or its package is not installed.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._store = Store(root)

    @property
    def root(self) -> str:
        """Folder or URL."""
        return self._store.root

    @classmethod
    def shipped(cls) -> SupernetZoo:
        """Return the zoo that is shipped with the package."""
        return cls(shipped())

    def names(self) -> list[str]:
        """Return the names of all entries, sorted; none if there is no such folder yet.

        Raises
        ------
        ZooError
            If the folder cannot be read.
        """
        return self._store.names()

    def check_exists(self) -> None:
        """Raise an error if there is no such folder.

        Raises
        ------
        ZooError
            If there is none.
        """
        self._store.check_exists()

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
            If its file is damaged, or takes more memory than the limit.
        """
        self._existing(name)
        return self._read(name)

    def _read(self, name: str) -> Supernet:
        path = self.path(name)
        budget = Budget(path, SupernetFileError)
        return Supernet.from_bytes(self._store.read(name, budget), path).renamed(name)

    def entries(self) -> Iterator[Supernet]:
        """Yield every readable entry; the others are skipped, each with a warning that names it and says why."""
        return readable(self.names(), self._read)

    def add(self, supernet: Supernet, *, overwrite: bool = True) -> str:
        """Write an entry under the supernet's name; readers never see a partial file.

        Parameters
        ----------
        supernet
            Supernet to write.
        overwrite
            Whether it may replace an entry of that name.

        Returns
        -------
        str
            Path of the entry.

        Raises
        ------
        ZooError
            If the name cannot be a file name or is taken, or the zoo cannot be written.
        """
        self.check_can_add(supernet.name)
        if overwrite:
            if supernet.name in self:
                self._check_own(supernet.name)
            return self._write(supernet)
        self.check_free(supernet.name)
        with self._reserved(supernet.name) as free:
            if not free:
                raise ZooError(
                    f'another process writes {supernet.name!r} into zoo {self.root}, or was killed when it did, which is '
                    'forgotten after a quarter of an hour; choose another name.'
                )
            return self._write(supernet)

    def check_free(self, name: str) -> None:
        """Raise an error if there is an entry of this name, which would be replaced.

        Raises
        ------
        ZooError
            If there is one.
        """
        if name in self:
            raise ZooError(
                f'zoo {self.root} has an entry {name!r} already; choose another name, or replace it with --overwrite '
                '(in Python: overwrite=True).'
            )

    def _write(self, supernet: Supernet) -> str:
        return self._store.write(supernet.name, supernet.to_bytes())

    def add_numbered(self, supernet: Supernet, stem: str) -> str:
        """Add an entry under the first free name of ``stem-1``, ``stem-2``, ...; never replace one.

        Characters of the stem that a name cannot have are left out.

        Returns
        -------
        str
            Name of the entry.
        """
        number, stem = 1, numbered_stem(stem)
        self.check_can_add(f'{stem}-{number}')
        taken = set(self.names())
        while True:
            while f'{stem}-{number}' in taken:
                number += 1
            name = f'{stem}-{number}'
            with self._reserved(name) as free:
                if free:
                    fresh = supernet.run is not None and supernet.entry is None  # else a copy, or not of a search
                    self._write(supernet.remembered_as(name) if fresh else supernet.renamed(name))
                    return name
            number += 1

    def check_can_add(self, name: str) -> None:
        """Raise an error for a name or a folder that :meth:`add` could not write, before hours of training.

        Raises
        ------
        ZooError
            If the name cannot be a file name, or the folder cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ZooError(f'zoo entry name {name!r} may hold letters, digits, ".", "_" and "-" only, 200 at most.')
        if name in RULES:
            raise ZooError(f'zoo entry name {name!r} means a rule as a source ({", ".join(RULES)}); choose another.')
        self._store.check_writable()

    def remove(self, name: str) -> None:
        """Delete an entry.

        Raises
        ------
        ZooError
            If there is no such entry, or its file is of another program.
        """
        path = self._existing(name)
        self._check_own(name)
        self._store.remove(path)

    def rank(self, dataset: Any, *, by: str = 'otdd', **settings: Any) -> list[Ranked]:
        """Rank the entries as sources for a dataset, the best first.

        Parameters
        ----------
        dataset
            A :class:`~nni_warmstart.DatasetSketch`, or labelled data in any form that :meth:`DatasetSketch.from_dataset`
            takes.
        by
            Key of :data:`nni_warmstart.zoo.ranking.RANKINGS`, such as 'otdd', 'logme' or 'probe'.
        **settings
            Further arguments of :func:`nni_warmstart.zoo.ranking.rank`: embedding, seed, make_target.

        Raises
        ------
        ZooError
            If the zoo has no readable entry, or none can be ranked this way.
        """
        candidates = list(self.entries())
        if not candidates:
            raise ZooError(f'zoo {self.root} has no readable entry to rank; add supernets with `nni-warmstart zoo add`.')
        return ranking.rank(candidates, dataset, by=by, **settings)

    def path(self, name: str) -> str:
        """Return the path of an entry within the zoo's file system."""
        return self._store.path(name)

    def _existing(self, name: str) -> str:
        names = self.names()
        if name not in names:
            raise ZooError(f'zoo {self.root} has no entry {name!r}; it has {enumerated(names)}.{suggestion(name, names)}')
        return self.path(name)

    def _check_own(self, name: str) -> None:
        if self._store.is_foreign(name):
            raise ZooError(
                f'{self.path(name)} is a folder or a safetensors file of another program, which a zoo does not touch.'
            )

    @contextmanager
    def _reserved(self, name: str) -> Iterator[bool]:
        """Reserve a name for this process; yield whether it is free."""
        reservation = f'{self._store.folder}/.{name}.reserved'
        reserved = self._store.reserve(reservation)
        try:
            yield reserved and name not in self
        finally:
            if reserved:
                self._store.release(reservation)

    def __repr__(self) -> str:
        return f'SupernetZoo({self.root!r})'


def numbered_stem(text: str) -> str:
    """Return a text as the stem of numbered names, without the characters that a name cannot have."""
    return _FORBIDDEN.sub('', text)[:150] or 'supernet'


def open_zoo(zoo: SupernetZoo | str | os.PathLike[str] | None) -> SupernetZoo:
    """Return the zoo meant by an argument ``zoo``: a zoo, a folder or URL, or None for the shipped one."""
    if zoo is None:
        return SupernetZoo.shipped()
    return zoo if isinstance(zoo, SupernetZoo) else SupernetZoo(zoo)


def resolve_source(source: Supernet | str | os.PathLike[str], zoo: SupernetZoo | str | os.PathLike[str] | None) -> Supernet:
    """Return the supernet meant by an argument ``source``: a supernet, the name of a zoo entry, or a file.

    Raises
    ------
    ZooError
        If the argument is none of these.
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
    path = os.path.expanduser(os.fspath(source))
    if os.path.isfile(path):
        return Supernet.load(path)
    names = entries.names()
    raise ZooError(
        f'source = {str(source)!r} is neither a file nor an entry of {entries.root}; entries are '
        f'{enumerated(names)}.{suggestion(str(source), (*names, *RULES)) or registry.hint(str(source))}'
    )
