"""Files of a zoo, near and far: bounded in size and time, and only what is a file."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import threading
import time
import tracemalloc

import fsspec
import pytest
from helpers import bad_server
from helpers.hostile import special_files
from helpers.tiny import small_space

from nni_warmstart import Supernet, SupernetFileError, SupernetZoo, ZooError
from nni_warmstart.cli import main
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.utils.limits import VARIABLE
from nni_warmstart.utils.text import visible
from nni_warmstart.zoo import store as store_module
from nni_warmstart.zoo.listing import summaries
from nni_warmstart.zoo.store import NoAnswer, Store


@pytest.fixture(scope='module')
def supernet() -> Supernet:
    return Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', class_names=['a', 'b', 'c'])


@pytest.fixture
def impatient(monkeypatch):
    """Half a second of silence is too much, two seconds are in all."""
    monkeypatch.setattr(store_module, 'PATIENCE', 0.5)
    monkeypatch.setattr(store_module, '_ANSWER', 2.0)
    monkeypatch.setattr(store_module, 'most_seconds', lambda: 2.0)


@pytest.mark.parametrize('kind', ['folder', 'memory'])
def test_a_summary_says_what_the_supernet_says(tmp_path, supernet, kind):
    root = str(tmp_path) if kind == 'folder' else f'memory://{tmp_path.name}/zoo'
    SupernetZoo(root).add(supernet)
    (found,) = summaries(Store(root))
    for key in ('name', 'space', 'class_names', 'history', 'num_parameters', 'datasets', 'dataset', 'created'):
        assert getattr(found, key) == getattr(supernet, key)


def test_a_summary_reads_no_more_than_the_header(tmp_path, supernet):
    """So damage behind it is not seen; reading the entry sees it."""
    path = tmp_path / 'one.safetensors'
    data = bytearray(supernet.to_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [each.name for each in summaries(Store(str(tmp_path)))] == ['one']
    with pytest.raises(SupernetFileError, match='was altered'):
        SupernetZoo(tmp_path)['one']


@pytest.mark.parametrize('size', [10**11, 300 * 10**6])
def test_a_file_beyond_the_limit_is_not_read(tmp_path, size, caplog):
    with (tmp_path / 'huge.safetensors').open('wb') as file:
        file.truncate(size)
    tracemalloc.start()
    message = rf'huge.safetensors is too large.*limit of 500 MB on one file.*{VARIABLE}=MB'
    with pytest.raises(SupernetFileError, match=message):
        SupernetZoo(tmp_path)['huge']
    with pytest.raises(SupernetFileError, match=message):
        Supernet.load(tmp_path / 'huge.safetensors')
    assert list(summaries(Store(str(tmp_path)))) == []
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert 'Skipping zoo entry huge' in caplog.text


def test_a_far_file_beyond_the_limit_is_not_read(supernet, monkeypatch):
    zoo = SupernetZoo('memory://beyond/zoo')
    zoo.add(supernet)
    fsspec.filesystem('memory').pipe_file(zoo.path('huge'), bytes(9_000_000))
    monkeypatch.setenv(VARIABLE, '20')
    with pytest.raises(SupernetFileError, match=r'huge\.safetensors is too large'):
        zoo['huge']
    assert [each.name for each in zoo.entries()] == ['one']


def test_what_is_no_file_is_skipped_at_once(tmp_path, supernet, caplog):
    SupernetZoo(tmp_path).add(supernet)
    paths = list(special_files(tmp_path))
    began = time.perf_counter()
    zoo = SupernetZoo(tmp_path)
    for found in (zoo.entries(), summaries(Store(str(tmp_path)))):
        with caplog.at_level(logging.WARNING):
            assert [each.name for each in found] == ['one']
        for path in paths:
            name = path.name.removesuffix('.safetensors')  # written out if a command has run in this process
            assert any(f'Skipping zoo entry {each}' in caplog.text for each in (name, visible(name, keep='')))
        caplog.clear()
    with pytest.raises(SupernetFileError, match=r'entry pipe .* a pipe, a socket or a device, and no file'):
        zoo['pipe']
    assert time.perf_counter() - began < 5
    assert all(os.path.lexists(path) for path in paths)  # nothing is deleted


@pytest.mark.parametrize('root', ['nowhere', 'memory://nowhere/zoo'])
def test_a_folder_that_is_not_there(tmp_path, root, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['zoo', 'list', '--zoo', root]) == 2
    captured = capsys.readouterr()
    assert captured.err == f'error: zoo {root} does not exist; zoos are folders or URLs, made when an entry is added.\n'
    assert captured.out == ''
    assert SupernetZoo(root).names() == []
    (tmp_path / 'nowhere').mkdir()
    if root == 'nowhere':
        assert main(['zoo', 'list', '--zoo', root]) == 0
    (tmp_path / 'file').touch()
    for not_a_folder in ('file', '/dev/zero'):
        assert main(['zoo', 'list', '--zoo', not_a_folder]) == 2
        assert 'it is a file; a zoo is a folder' in capsys.readouterr().err


def test_a_zoo_on_a_web_server(tmp_path, supernet):
    SupernetZoo(tmp_path / 'zoo').add(supernet)
    (tmp_path / 'zoo' / 'half.safetensors').write_bytes(supernet.to_bytes()[:1000])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        zoo = SupernetZoo(f'http://127.0.0.1:{server.server_port}/zoo')
        assert zoo.names() == ['half', 'one']
        assert [each.key for each in zoo.entries()] == [supernet.key]
        assert [each.num_parameters for each in summaries(Store(zoo.root))] == [supernet.num_parameters]
        with pytest.raises(ZooError, match=r"has no entry 'two'; it has half, one"):
            zoo['two']
        assert SupernetZoo(f'{zoo.root}/missing').names() == []
        server.shutdown()


FOLDERS = {
    'silent': (bad_server.silent, 'does not answer, or too slowly'),
    'trickle': (bad_server.trickle, 'does not answer, or too slowly'),
    'slow header': (bad_server.slow_header, 'does not answer, or too slowly'),
    'circle': (bad_server.circle, 'cannot be read'),
    'refusing': (bad_server.refusing, 'cannot be read'),
}


@pytest.mark.parametrize('kind', FOLDERS)
def test_bad_servers_are_one_line(impatient, kind, capfd):
    behaviour, message = FOLDERS[kind]
    with bad_server.serving(behaviour) as url:
        began = time.perf_counter()
        for command in (['zoo', 'list'], ['zoo', 'show', 'x']):
            assert main([*command, '--zoo', url]) == 2
            err = capfd.readouterr().err
            assert message in err and len(err.splitlines()) == 1 and '\x1b' not in err
        assert time.perf_counter() - began < 10


@pytest.mark.parametrize('behaviour', [bad_server.endless, bad_server.slow_to_search])
def test_pages_without_end_list_nothing(impatient, behaviour):
    with bad_server.serving(behaviour) as url:
        began = time.perf_counter()
        try:
            assert SupernetZoo(url).names() == []
        except NoAnswer:  # a machine that is too busy to read 16 MB in two seconds
            assert behaviour is bad_server.endless
        assert time.perf_counter() - began < 10


@pytest.mark.parametrize('behaviour', [bad_server.endless, bad_server.endless_range, bad_server.trickle, bad_server.silent])
def test_files_that_a_server_never_ends(impatient, monkeypatch, behaviour):
    monkeypatch.setenv(VARIABLE, '20')
    with bad_server.serving(bad_server.listing(behaviour, 'a.safetensors', '../b.safetensors')) as url:
        zoo = SupernetZoo(url)
        assert zoo.names() == ['a', 'b']
        began = time.perf_counter()
        tracemalloc.start()
        with pytest.raises((SupernetFileError, NoAnswer), match=r'a\.safetensors is|entry a of .*does not answer'):
            zoo['a']
        assert tracemalloc.get_traced_memory()[1] < 40e6
        tracemalloc.stop()
        assert time.perf_counter() - began < 10


def test_a_zoo_whose_entries_do_not_arrive_is_given_up(impatient, caplog):
    names = [f'{i}.safetensors' for i in range(50)]
    with bad_server.serving(bad_server.listing(bad_server.silent, *names)) as url:
        began = time.perf_counter()
        with pytest.raises(NoAnswer, match=r'entry 1 of zoo http.* does not answer'):
            list(SupernetZoo(url).entries())
        assert time.perf_counter() - began < 10
        assert 'Skipping zoo entry 0' in caplog.text


def test_a_name_reserved_by_a_process_that_was_killed_becomes_free(tmp_path, supernet):
    zoo, reservation = SupernetZoo(tmp_path), tmp_path / '.one.reserved'
    reservation.touch()
    with pytest.raises(ZooError, match='another process writes'):
        zoo.add(supernet, overwrite=False)
    assert zoo.add_numbered(supernet, 'one') == 'one-1'
    long_ago = time.time() - 86400
    os.utime(reservation, (long_ago, long_ago))
    zoo.add(supernet, overwrite=False)
    assert zoo.names() == ['one', 'one-1']
    assert not list(tmp_path.glob('.*'))


def test_a_reservation_that_another_process_has_taken_over_loses_nothing(tmp_path, supernet, monkeypatch):
    zoo, write = SupernetZoo(tmp_path), SupernetZoo._write

    def taken_over(self, each):
        write(self, each)
        (tmp_path / '.one-1.reserved').unlink()

    monkeypatch.setattr(SupernetZoo, '_write', taken_over)
    assert zoo.add_numbered(supernet, 'one') == 'one-1'
    assert zoo.names() == ['one-1']


def test_one_process_takes_over_a_name_that_was_left_behind(tmp_path, monkeypatch):
    one, other, reservation = Store(tmp_path), Store(tmp_path), tmp_path / '.one-1.reserved'
    reservation.touch()
    os.utime(reservation, (time.time() - 86400,) * 2)
    is_left_behind, taken = Store._is_left_behind, []

    def at_once(self, path):
        found = is_left_behind(self, path)
        if self is one and not taken:
            taken.append(None)  # the other process comes in between
            taken[0] = other.reserve(path)
        return found

    monkeypatch.setattr(Store, '_is_left_behind', at_once)
    assert not one.reserve(str(reservation)) and taken == [True]
    assert [path.name for path in tmp_path.iterdir()] == ['.one-1.reserved']


def test_a_far_entry_that_cannot_be_written_leaves_no_part(supernet, monkeypatch):
    zoo = SupernetZoo('memory://parts/zoo')
    zoo.add(supernet)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError('connection lost')

    with monkeypatch.context() as patch:
        patch.setattr(zoo._store.files, 'mv', fail)
        with pytest.raises(ZooError, match='cannot be written: connection lost') as caught:
            zoo.add(supernet.renamed('two'))
    assert caught.value.exit_status == 1  # as for files elsewhere
    assert [path.rpartition('/')[2] for path in zoo._store.files.ls('/parts/zoo', detail=False)] == ['one.safetensors']


def test_a_folder_is_listed_once_for_all_its_entries(tmp_path, supernet, monkeypatch):
    zoo = SupernetZoo(tmp_path)
    for number in (1, 2, 4):
        zoo.add(supernet.renamed(f'one-{number}'))
    listed, calls = Store.names, []
    monkeypatch.setattr(Store, 'names', lambda self: (calls.append(1), listed(self))[1])
    assert len(list(zoo.entries())) == 3
    assert len(calls) == 1
    assert zoo.add_numbered(supernet, 'one') == 'one-3'
    assert len(calls) == 3  # and once more when the name is reserved


@pytest.mark.parametrize('name', ['zoo::a', 'file:zoo', 'local:a', 'zip::zoo'])
def test_only_urls_are_no_folders(tmp_path, supernet, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SupernetZoo(name).add(supernet)
    assert (tmp_path / name / 'one.safetensors').is_file()
    assert SupernetZoo(name).names() == ['one']
