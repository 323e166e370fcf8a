"""Files of a folder, on a disk or behind any URL that fsspec knows, read within bounds on size and time."""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ..errors import SupernetFileError, WarmStartError, ZooError, reason
from ..supernets.header import Header, header_length, is_foreign, memory_of, read_header
from ..utils.deadline import TIME_OUTS, in_time
from ..utils.files import open_regular, unwritable, write_atomic
from ..utils.limits import Budget, most_seconds

SUFFIX = '.safetensors'

PATIENCE = 8.0
"""Seconds without a byte after which an HTTP server counts as silent."""

_ANSWER = 30.0  # seconds for an answer without the content of a file

_GRACE = 600.0  # seconds by which clocks of machines may differ, and for a computer to write under load

_CHUNK = 2**20  # bytes that are read at once

_LARGEST_PAGE = 2**24  # bytes of an HTTP server's page about a folder

T = TypeVar('T')


class NoAnswer(ZooError):
    """Exception for a file system that does not answer in time."""


def shipped() -> str:
    """Return the folder of the zoo that is shipped with the package."""
    return str(Path(str(files('nni_warmstart') / 'zoo_data')))


class NotWritten(ZooError):
    """Exception for a zoo that cannot be written though it exists: a full disk, say."""

    exit_status = 1


class Store:
    """Entries of a zoo as files in one folder.

    Parameters
    ----------
    root
        Folder, or any URL that fsspec knows.

    Raises
    ------
    ZooError
        If the URL's protocol is unknown, its package is not installed, or its server does not answer.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.expanduser(os.fspath(root))
        self._is_web = self.root.startswith(('http://', 'https://'))
        if '://' in self.root:
            self.files, folder = self._within(_ANSWER, 'opened', lambda _: fsspec.url_to_fs(self.root, **self._options()))
        else:  # fsspec takes 'a::b' and 'local:a' for URLs, too
            self.files, folder = LocalFileSystem(), os.path.abspath(self.root)
        self.folder = folder.rstrip('/')
        self.is_local = isinstance(self.files, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return the path of an entry within the file system."""
        return f'{self.folder}/{name}{SUFFIX}'

    def names(self) -> list[str]:
        """Return the names of all entries, sorted; none if there is no such folder.

        Raises
        ------
        ZooError
            If the folder cannot be read.
        """
        found = self._listed() or []
        return sorted(name[: -len(SUFFIX)] for name in found if name.endswith(SUFFIX) and not name.startswith('.'))

    def check_exists(self) -> None:
        """Raise an error if there is no such folder.

        Raises
        ------
        ZooError
            If there is none.
        """
        if self._listed() is None:
            raise ZooError(f'zoo {self.root} does not exist; zoos are folders or URLs, made when an entry is added.')

    def header(self, name: str) -> Header:
        """Read the header of an entry, and no more of it.

        Raises
        ------
        SupernetFileError
            If the file is damaged, takes more memory than the limit, or is no regular file.
        NoAnswer
            If it does not arrive in time.
        """
        path = self.path(name)
        budget = Budget(path, SupernetFileError)

        def read(_: threading.Event) -> Header:
            with self._opened(path) as (file, size):
                budget.check(memory_of(size or 0))
                length = header_length(_read(file, 8), size, path)
                budget.check(length)
                return read_header(_read(file, length), size, path, budget)

        return self._of_entry(name, _ANSWER, read)

    def read(self, name: str, budget: Budget) -> bytearray:
        """Read an entry. Raises as :meth:`header`."""

        def read(stop: threading.Event) -> bytearray:
            data = bytearray()
            with self._opened(self.path(name)) as (file, size):
                budget.check(memory_of(size or 0))
                while not stop.is_set() and (chunk := file.read(_CHUNK)):
                    budget.spend(memory_of(len(chunk)))
                    data += chunk
            return data

        return self._of_entry(name, most_seconds(), read)

    def is_foreign(self, name: str) -> bool:
        """Check whether the file of an entry is a folder, or a sound safetensors file of another program.

        Raises
        ------
        ZooError
            If it cannot be read.
        """

        path = self.path(name)
        if self.is_local and os.path.lexists(path) and not os.path.isfile(path):
            return os.path.isdir(path)  # pipes, sockets and links to nothing hold nothing

        def check(_: threading.Event) -> bool:
            with self._opened(path) as (file, _size):
                return is_foreign(lambda size: _read(file, size))

        return self._within(_ANSWER, 'read', check)

    def write(self, name: str, data: bytes) -> str:
        """Write an entry; readers never see a partial file. Returns its path.

        Raises
        ------
        ZooError
            If it cannot be written.
        """
        path = self.path(name)

        def write(_: threading.Event) -> None:
            if self.is_local:
                write_atomic(path, data)
                return
            part = f'{self.folder}/.{name}.{uuid.uuid4().hex}.part'
            try:
                self.files.pipe_file(part, data)
                self.files.mv(part, path)
            except BaseException:
                with suppress(Exception):  # every file system of fsspec has exceptions of its own
                    self.files.rm_file(part)
                raise

        self._within(most_seconds(), 'written', write)
        return path

    def check_writable(self) -> None:
        """Create the folder if needed, and raise an error if it cannot be written.

        Raises
        ------
        ZooError
            If it cannot.
        """
        if self.is_local:
            trouble = unwritable(self.folder)
            if trouble:
                raise ZooError(f'zoo folder {trouble}')
            return

        def write(_: threading.Event) -> None:
            self.files.makedirs(self.folder, exist_ok=True)
            trial = f'{self.folder}/.{uuid.uuid4().hex}.part'
            self.files.pipe_file(trial, b'')
            self.files.rm_file(trial)

        self._within(_ANSWER, 'written', write)

    def remove(self, path: str) -> None:
        """Delete a file by its path."""
        self._within(_ANSWER, 'written', lambda _: self.files.rm_file(path))

    def release(self, path: str) -> None:
        """Delete the file of :meth:`reserve`, unless another process has taken it for one that was left behind."""

        def release(_: threading.Event) -> None:
            with suppress(FileNotFoundError):
                self.files.rm_file(path)

        self._within(_ANSWER, 'written', release)

    def reserve(self, path: str) -> bool:
        """Create an empty file unless it exists; if several processes try at once, only one succeeds.

        A file older than any process writes at an entry was left by one that was killed, and is replaced.
        """

        def reserve(_: threading.Event) -> bool:
            if self._reserved(path):
                return True
            taking = f'{path}.taken'  # one process takes it over, or a second would remove the new file of the first
            if not self._is_left_behind(path) or not self._reserved(taking):
                return False
            try:
                if not self._is_left_behind(path):
                    return False
                self.files.rm_file(path)
                return self._reserved(path)
            finally:
                self.files.rm_file(taking)

        return self._within(_ANSWER, 'written', reserve)

    def _is_left_behind(self, path: str) -> bool:
        try:
            written: datetime = self.files.modified(path)
        except (FileNotFoundError, NotImplementedError):  # gone by now, or a file system that does not know
            return False
        written = written if written.tzinfo else written.replace(tzinfo=timezone.utc)
        return (datetime.now(timezone.utc) - written).total_seconds() > _GRACE + most_seconds()

    def _reserved(self, path: str) -> bool:
        sftp = 'sftp' in self.files.protocol
        try:
            # fsspec's own `create` looks before it writes, so that two processes could both find nothing
            if self.is_local:
                self.files.open(path, 'xb').close()
            elif sftp:
                self.files.open(path, 'wxb').close()
            else:
                self.files.pipe_file(path, b'', mode='create')
        except OSError as error:
            if isinstance(error, FileExistsError) or (sftp and error.errno is None):  # SFTP has no error number for it
                return False
            raise
        return True

    def _listed(self) -> list[str] | None:
        """Return the names of the files in the folder; None if there is no such folder."""
        try:
            return self._within(_ANSWER, 'read', lambda _: self._in_folder())
        except ZooError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def _in_folder(self) -> list[str]:
        if self.is_local:
            try:
                return [entry.name for entry in os.scandir(self.folder or '/')]
            except NotADirectoryError as error:
                raise NotADirectoryError('it is a file; a zoo is a folder') from error
        if self._is_web:
            with self._opened(f'{self.folder}/') as (file, _):
                page = _read(file, _LARGEST_PAGE).decode('utf-8', 'replace')
            # fsspec's expressions for links take hours for some pages
            found = {unquote(text).rpartition('/')[2] for text in re.split(r'[\s"\'<>]+', page) if text.endswith(SUFFIX)}
            return [name for name in found if re.fullmatch(r'[A-Za-z0-9._-]{1,255}', name)]
        self.files.invalidate_cache()  # another process may have added some
        found = [str(path).rpartition('/')[2] for path in self.files.ls(self.folder, detail=False)]
        if found == [self.folder.rpartition('/')[2]] and self.files.isfile(self.folder):
            raise NotADirectoryError('it is a file; a zoo is a folder')
        return found

    def _options(self) -> dict[str, Any]:
        """Return fsspec's options for the folder's protocol."""
        if not self._is_web:
            return {}
        import aiohttp  # which only such zoos need

        timeout = aiohttp.ClientTimeout(total=most_seconds(), sock_connect=PATIENCE, sock_read=PATIENCE)
        return {'client_kwargs': {'timeout': timeout}}

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[Any, int | None]]:
        """Open a file, and give it with its size in bytes, None if that is unknown."""
        if self.is_local:
            with open_regular(path) as (file, size):
                yield file, size
            return
        # with this pretended size, fsspec neither asks for the true one nor reads blocks, which may have any size
        streamed = {'block_size': 0, 'size': 1} if self._is_web else {}
        with self.files.open(path, 'rb', **streamed) as file:
            size = None if self._is_web else getattr(file, 'size', None)
            yield file, size if isinstance(size, int) else None

    def _of_entry(self, name: str, seconds: float, function: Callable[[threading.Event], T]) -> T:
        """Return the result of reading an entry; what goes wrong is an error of its file, unless there is no answer."""
        try:
            return self._within(seconds, 'read', function)
        except NoAnswer as error:
            raise NoAnswer(f'entry {name} of {error}') from error
        except ZooError as error:
            why = getattr(error.__cause__, 'strerror', None) or reason(error.__cause__ or error)
            raise SupernetFileError(f'entry {name} of zoo {self.root} cannot be read: {why}') from error.__cause__

    def _within(self, seconds: float, what: str, function: Callable[[threading.Event], T]) -> T:
        """Return the result of a function of a flag, which is set when its time is over; without a disk, time is limited.

        Raises
        ------
        ZooError
            If it fails, with the error of whatever class as its cause.
        NoAnswer
            If it takes longer.
        """
        stop = threading.Event()
        try:
            if getattr(self, 'is_local', False):
                return function(stop)
            return in_time(seconds, lambda: function(stop))
        except TIME_OUTS as error:
            raise NoAnswer(f'zoo {self.root} cannot be {what}: it does not answer, or too slowly.') from error
        except WarmStartError:
            raise
        except Exception as error:  # every file system of fsspec has exceptions of its own
            kind = NotWritten if what == 'written' and isinstance(error, OSError) else ZooError
            raise kind(f'zoo {self.root} cannot be {what}: {reason(error)}') from error
        finally:
            stop.set()


def _read(file: Any, size: int) -> bytes:
    """Read ``size`` bytes of a file, which may give them in pieces; fewer at its end."""
    pieces, left = [], size
    while left > 0 and (piece := file.read(min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b''.join(pieces)
