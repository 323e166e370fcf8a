"""Files: only regular ones are opened, and writing leaves nothing behind, not even after a kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nni_warmstart.utils import parts
from nni_warmstart.utils.files import open_regular, write_atomic

WRITER = """
import os, sys, time
from nni_warmstart.utils import files
def wait(descriptor):
    print('writing', flush=True)
    time.sleep(60)
os.fsync = wait
files.write_atomic(sys.argv[1], b'new')
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing 'entry', which the test may kill."""
    process = subprocess.Popen([sys.executable, '-c', WRITER, str(tmp_path / 'entry')], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == 'writing\n'
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parts_of_the_living_stay_and_those_of_the_dead_go(tmp_path, writer):
    write_atomic(tmp_path / 'other', b'x')
    assert len(names(tmp_path)) == 2 and names(tmp_path)[0].startswith('.entry.')
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert len(names(tmp_path)) == 2
    write_atomic(tmp_path / 'other', b'y')
    assert names(tmp_path) == ['other']
    assert (tmp_path / 'other').read_bytes() == b'y'


def test_a_part_that_is_locked_stays_though_its_process_cannot_be_seen(tmp_path, monkeypatch):
    """As in two containers of one name that share a folder."""
    monkeypatch.setattr(parts.os, 'getpid', lambda: 2**22 + 1)  # no process has such a number
    handle, part = parts.create(tmp_path / 'entry')
    write_atomic(tmp_path / 'other', b'x')
    assert os.path.exists(part)
    os.close(handle)
    write_atomic(tmp_path / 'other', b'x')
    assert names(tmp_path) == ['other']


@pytest.mark.parametrize(
    'name', ['.mine.part', '.a.0123abcd-99999999-01234567.part', '.entry.abcdefgh.part', 'x.part', '.hidden']
)
def test_files_of_others_stay(tmp_path, name):
    """Of other programs, of other machines, and of older versions, which may still be running."""
    (tmp_path / name).touch()
    write_atomic(tmp_path / 'entry', b'x')
    assert names(tmp_path) == sorted([name, 'entry'])


def test_long_names_and_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / ('ü' * 120), b'x')  # 240 bytes
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o640


def special(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / 'pipe')
    (folder / 'link').symlink_to(folder / 'pipe')
    (folder / 'zeros').symlink_to('/dev/zero')
    (folder / 'circle').symlink_to('circle')
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / 'socket'))
    server.close()
    return {path.name: path for path in folder.iterdir()} | {'folder': folder, 'missing': folder / 'missing'}


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    began = time.perf_counter()
    for path in special(Path('.')).values():
        with pytest.raises(OSError) as caught, open_regular(path):
            pass
        assert caught.value.strerror
    assert time.perf_counter() - began < 1
    Path('file').write_bytes(b'abc')
    Path('good').symlink_to('file')
    with open_regular('good') as (file, size):
        assert (file.read(), size) == (b'abc', 3)
