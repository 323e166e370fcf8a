"""Long work says so on a terminal, short work and a file do not."""

from __future__ import annotations

import io
import time

import pytest

from nni_warmstart.utils import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ('kind', 'seconds', 'shown'), [(Terminal, 1.0, True), (Terminal, 0.0, False), (io.StringIO, 1.0, False)]
)
def test_waiting(monkeypatch, kind, seconds, shown):
    monkeypatch.setattr(progress, 'PATIENCE', 0.1)
    file = kind()
    monkeypatch.setattr('sys.stderr', file)
    with progress.waiting('choosing the source'):
        time.sleep(seconds)
    assert ('choosing the source ... 00:0' in file.getvalue()) == shown


def test_what_fails_while_waiting_fails(monkeypatch):
    monkeypatch.setattr('sys.stderr', Terminal())
    with pytest.raises(KeyError), progress.waiting('mapping'):
        raise KeyError('x')
