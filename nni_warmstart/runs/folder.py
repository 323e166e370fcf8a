"""Folder of a run: its files, the conditions for a run to start or to go on in it, and its lock."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..evaluators.checkpoints import read_checkpoint
from ..search.record import run_of
from ..utils.distributed import is_first
from ..utils.files import unwritable, write_json
from ..utils.json_files import read_json
from ..utils.locking import locked
from .provenance import Marked, Provenance

_logger = logging.getLogger(__name__)

EXPORTS = ('network.pt2', 'network.onnx')
"""Files that a retraining writes where it is asked to."""

KINDS = {
    'search': ('result.json', 'architecture.json', 'supernet.safetensors'),
    'retraining': ('result.json', 'network.safetensors'),
    'pretraining': (),
    'pipeline': ('result.json',),
}
"""Kind of a run -> its results, which it writes at its end."""

SEARCH, NETWORK = 'search', 'network'
"""Folders of the two runs in the folder of a pipeline."""

_CHECKPOINT, _RESULT = 'checkpoints/last.ckpt', 'result.json'

_ALWAYS = ('run.json', 'settings.json', _CHECKPOINT, 'logs/metrics.csv')
"""Files of any run."""


@dataclass(frozen=True)
class Earlier:
    """A run that has left its files: its kind, the results that are its own, and its identity and data if they are known.

    ``replaces`` names the entry of a zoo that it may replace.
    """

    kind: str
    results: tuple[str, ...]
    run: str | None = None
    data: dict[str, str] | None = None
    replaces: str | None = None


@dataclass(frozen=True)
class RunFolder:
    """Folder of a run.

    Attributes
    ----------
    path
        Path of the folder.
    kind
        Kind of the run, one of :data:`KINDS`.
    exports
        Further results, of :data:`EXPORTS`.
    replaces
        Path and weights of the entry of a zoo that the run may replace, noted for a resumption.
    """

    path: Path
    kind: str = 'search'
    exports: tuple[str, ...] = ()
    replaces: str | None = None

    @property
    def settings(self) -> Path:
        """File with the settings with which the run was started."""
        return self.path / 'settings.json'

    @property
    def checkpoint(self) -> Path:
        """File with the state after the last finished epoch."""
        return self.path / _CHECKPOINT

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the files that the run writes at its end."""
        return (*KINDS[self.kind], *self.exports)

    def has_checkpoint(self) -> bool:
        """Check whether there is a checkpoint to resume from."""
        return self.checkpoint.is_file()

    def can_resume(self) -> bool:
        """Check whether there is a checkpoint, or the result of a run that has ended."""
        earlier, written = self.earlier(), mapping_in(self.path / _RESULT).get('run')
        has_ended = earlier is not None and isinstance(written, dict) and written.get('id') == earlier.run
        return self.has_checkpoint() or has_ended

    def earlier(self) -> Earlier | None:
        """Return the run whose files are in the folder, told by ``run.json``, or of older versions by ``settings.json``."""
        written = mapping_in(self.path / 'run.json')
        if written.get('kind') in KINDS and isinstance(written.get('results'), list):
            results = tuple(map(str, written['results']))
            return Earlier(written['kind'], results, str(written.get('id')), written.get('data'), written.get('replaces'))
        settings = mapping_in(self.settings)
        if not {'data', 'space', 'evaluator', 'strategy'} <= settings.keys():
            return None
        kind = 'retraining' if 'weights' in settings else 'pretraining' if isinstance(settings['data'], list) else 'search'
        return Earlier(kind, (*KINDS[kind], *(EXPORTS if kind == 'retraining' else ())))

    def make(self) -> None:
        """Create the folder if it does not exist.

        Raises
        ------
        ConfigError
            If the folder cannot be written.
        """
        for folder in (self.path, self.checkpoint.parent):
            trouble = unwritable(folder) if folder == self.path or folder.exists() else None
            if trouble:
                raise ConfigError(f'output folder {trouble}')

    @contextmanager
    def claimed(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder, which is made if needed, for a run of this process.

        Parameters
        ----------
        resume
            Whether the run in the folder goes on.
        overwrite
            Whether a new run may replace one of the same kind.

        Raises
        ------
        ConfigError
            If another process writes there, or the run would take what is not its own: files that no run has written, a run
            of another kind, or one that is neither to go on nor to be replaced.
        """
        if resume and overwrite:
            raise ConfigError('a run either goes on (resume) or is replaced (overwrite); choose one.')
        self.make()
        if not is_first():  # a process for a further device
            yield
            return
        self._check_own(resume=resume)  # already here, since a lock leaves a file
        with locked(self.path):
            self._check_own(resume=resume)
            if not (resume or overwrite):
                self._check_empty()
            yield

    def _check_own(self, *, resume: bool) -> None:
        """Raise an error for files that no run of this kind has written."""
        there = [name for name in (*_ALWAYS, *self.results) if os.path.lexists(self.path / name)]
        for name in there:
            if (self.path / name).is_dir():
                raise ConfigError(f'{self.path / name} is a folder, where a file is to be written; choose another --out.')
        earlier = self.earlier()
        if earlier is None and resume and self.has_checkpoint():
            return  # so old a version that it wrote no settings; the checkpoint will tell whether it fits
        if earlier is not None and earlier.kind != self.kind:
            raise ConfigError(f'{self.path} holds a {earlier.kind}, and this is a {self.kind}; choose another --out.')
        own = set() if earlier is None else {*_ALWAYS, *earlier.results}
        foreign = [name for name in there if name not in own]
        if foreign:
            raise ConfigError(
                f'{self.path} has {", ".join(foreign)} that no run of nni-warmstart has written; choose another --out.'
            )

    def _check_empty(self) -> None:
        """Raise an error for a run that has got anywhere."""
        earlier = self.earlier()
        finished = [name for name in (() if earlier is None else earlier.results) if (self.path / name).exists()]
        if finished or self.has_checkpoint():
            state = 'a finished' if finished else 'an unfinished'
            again = '--resume to go on with it or ' if self.has_checkpoint() else ''
            raise ConfigError(
                f'{self.path} holds {state} {self.kind}; add {again}--overwrite to replace it, or choose another --out.'
            )

    def resumed(self, now: Provenance) -> tuple[Provenance, dict[str, Any] | None]:
        """Return the provenance of the run that goes on, ``now`` under its identity, and the content of its checkpoint.

        Without a checkpoint it starts anew, unless it has ended.

        Raises
        ------
        ConfigError
            If settings or data have changed, the checkpoint is unreadable, damaged or of another run, or that of a run which
            has ended and is to go on is gone.
        """
        otherwise = 'choose another --out'
        if self.kind == 'retraining':
            otherwise += f', or delete {self.path} to train the network anew'
        earlier, written = self.earlier(), mapping_in(self.settings, damaged='delete it to go on with these settings')
        run, data = (None, {}) if earlier is None else (earlier.run, earlier.data or {})
        if written:
            now.check_goes_on(Provenance(written, data), str(self.path), otherwise)
        if not self.has_checkpoint():
            if self.can_resume():
                ended = replace(now, run=run or now.run)
                if not self.ended(ended):
                    raise ConfigError(
                        f'{self.checkpoint} is gone, so that the run cannot go on; put it back, or {otherwise}.'
                    )
                return ended, None
            _logger.warning('Nothing to resume: %s does not exist; starting anew.', self.checkpoint)
            return now, None
        checkpoint = read_checkpoint(self.checkpoint)
        state = checkpoint['callbacks'].get(Marked.KEY)
        if state is None:
            _logger.info('%s is of an older version: whether the data are the same is not known.', self.checkpoint)
            return replace(now, run=run or run_of(checkpoint) or now.run), checkpoint
        try:
            kept = Provenance.from_state(state)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f'checkpoint {self.checkpoint} has a damaged record of its run; choose another --out.'
            ) from error
        if run not in (None, kept.run):
            raise ConfigError(
                f'checkpoint {self.checkpoint} is not of the run that run.json names; put its own back, or choose another '
                '--out.'
            )
        now.check_goes_on(kept, str(self.path), otherwise)
        return replace(now, run=kept.run), checkpoint

    def ended(self, now: Provenance) -> dict[str, Any]:
        """Return the content of ``result.json`` if the run ``now`` has ended with these settings and data, else {}."""
        result = mapping_in(self.path / _RESULT)
        own, written = now.to_dict(), result.get('run')
        same = isinstance(written, dict) and all(written.get(key) == own[key] for key in own)
        return result if same else {}

    def finished(self, now: Provenance) -> dict[str, Any] | None:
        """Return the same if all results are there, else None."""
        return self.ended(now) or None if all((self.path / name).is_file() for name in self.results) else None

    def begin(self, provenance: Provenance, *, resume: bool) -> None:
        """Write down a run that is about to train.

        A new run deletes the checkpoint and the results of the one that it replaces, so that they are not mistaken for its
        own.
        """
        if not is_first():
            return
        earlier = self.earlier()
        results, replaces = ((), None) if earlier is None else (earlier.results, earlier.replaces)
        if not resume:
            self.clear()
            results, replaces = (), self.replaces
        about = {'kind': self.kind, 'results': sorted({*self.results, *results})}
        about |= {} if replaces is None else {'replaces': replaces}
        write_json(self.path / 'run.json', {**provenance.to_dict(), **about})
        write_json(self.settings, provenance.settings)

    def clear(self) -> None:
        """Delete the checkpoint and the results of the run in the folder."""
        earlier = self.earlier()
        self.forget((_CHECKPOINT, *(() if earlier is None else earlier.results)))

    def forget(self, names: Iterable[str]) -> None:
        """Delete files of the run in the folder, and no others."""
        earlier = self.earlier()
        own = () if earlier is None else (_CHECKPOINT, *earlier.results)
        for name in names:
            if name in own:
                (self.path / name).unlink(missing_ok=True)


def network_of(search: Path) -> Path | None:
    """Return the folder of the network of the same pipeline, for the folder of a search; None if there is none."""
    earlier = RunFolder(search.parent).earlier() if search.name == SEARCH else None
    return search.parent / NETWORK if earlier is not None and earlier.kind == 'pipeline' else None


def mapping_in(path: Path, damaged: str = '') -> dict[str, Any]:
    """Read a JSON file; empty if it is missing, holds no mapping, or is damaged.

    Raises
    ------
    ConfigError
        If it is damaged, with the advice ``damaged``, if one is given.
    OSError
        If it cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        content = read_json(path, ConfigError)
    except ConfigError as error:
        if damaged:
            raise ConfigError(f'{path} is damaged; {damaged}.') from error
        return {}
    if damaged and not isinstance(content, dict):
        raise ConfigError(f'{path} is damaged; {damaged}.')
    return content if isinstance(content, dict) else {}
