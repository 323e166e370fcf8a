"""A zoo is a folder of files, near or far; damaged ones never stop it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import uuid

import fsspec
import pytest
from helpers.tiny import small_space

from nni_warmstart import Supernet, SupernetFileError, SupernetZoo, ZooError
from nni_warmstart.nni_adapter.mutation import mutate


@pytest.fixture
def supernet() -> Supernet:
    return Supernet.from_model(mutate(small_space(), 'DARTS'), name='one')


@pytest.fixture(params=['folder', 'file', 'memory'])
def zoo(request, tmp_path) -> SupernetZoo:
    roots = {'folder': tmp_path / 'zoo', 'file': f'file://{tmp_path}/zoo', 'memory': f'memory://{uuid.uuid4().hex}/zoo'}
    return SupernetZoo(roots[request.param])


def test_add_get_remove(zoo, supernet):
    assert zoo.names() == []
    zoo.add(supernet)
    zoo.add(supernet.renamed('two'))
    assert zoo.names() == ['one', 'two']
    assert zoo['two'].name == 'two'
    zoo.remove('one')
    assert 'one' not in zoo
    with pytest.raises(ZooError, match="has no entry 'one'; it has two"):
        zoo['one']


@pytest.mark.parametrize('content', [b'', b'half a file', 'half'], ids=['empty', 'text', 'half'])
def test_damaged_entries_are_skipped_with_a_warning(zoo, supernet, caplog, content):
    zoo.add(supernet)
    files, _ = fsspec.url_to_fs(zoo.root)
    data = supernet.to_bytes()
    files.pipe_file(zoo.path('broken'), data[: len(data) // 2] if content == 'half' else content)
    files.pipe_file(zoo.path('.two.123').replace('.safetensors', '.part'), data[:100])  # someone is writing
    with caplog.at_level(logging.WARNING):
        assert [entry.name for entry in zoo.entries()] == ['one']
    assert 'Skipping zoo entry broken' in caplog.text
    with pytest.raises(SupernetFileError):
        zoo['broken']


def test_replacing_an_entry_leaves_no_parts(zoo, supernet):
    zoo.add(supernet)
    zoo.add(supernet)
    files, folder = fsspec.url_to_fs(zoo.root)
    assert [path.rpartition('/')[2] for path in files.ls(folder, detail=False)] == ['one.safetensors']


def test_troubles_of_a_far_file_system_are_one_line(supernet, monkeypatch):
    zoo = SupernetZoo('memory://trouble/zoo')

    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError('no credentials')  # as cloud libraries have their own kinds of errors

    with monkeypatch.context() as patch:  # fsspec gives every zoo the same instance
        patch.setattr(zoo._store.files, 'pipe_file', fail)
        with pytest.raises(ZooError, match='zoo memory://trouble/zoo cannot be written: no credentials'):
            zoo.add(supernet)
        patch.setattr(zoo._store.files, 'ls', fail)
        with pytest.raises(ZooError, match='cannot be read: no credentials'):
            zoo.names()


def test_unknown_urls_are_refused():
    with pytest.raises(ZooError, match='cannot be opened: Protocol not known'):
        SupernetZoo('nowhere://zoo')


@pytest.mark.parametrize('name', ['../one', 'a/b', '', '.hidden', 'a b'])
def test_names_are_file_names(tmp_path, supernet, name):
    with pytest.raises(ZooError, match='may hold letters, digits'):
        SupernetZoo(tmp_path).add(supernet.renamed(name))


@pytest.mark.parametrize('name', ['nearest', 'joint', 'none'])
def test_names_that_mean_a_rule(tmp_path, supernet, name):
    with pytest.raises(ZooError, match=f"'{name}' means a rule as a source"):
        SupernetZoo(tmp_path).add(supernet.renamed(name))


def test_numbered_names(zoo, supernet):
    assert [zoo.add_numbered(supernet, 'net') for _ in range(2)] == ['net-1', 'net-2']
    assert zoo.names() == ['net-1', 'net-2']


def _add_some(root: str, data: bytes, count: int) -> None:
    zoo = SupernetZoo(root)
    for _ in range(count):
        zoo.add_numbered(Supernet.from_bytes(data), 'net')


@pytest.mark.parametrize(
    ('stem', 'name'),
    [('_space', 'space-1'), ('größe', 'gre-1'), ('_', 'supernet-1'), ('a' * 300, 'a' * 150 + '-1')],
)
def test_of_a_stem_what_cannot_be_in_a_name_is_left_out(tmp_path, supernet, stem, name):
    zoo = SupernetZoo(tmp_path)
    assert zoo.add_numbered(supernet, stem) == name
    assert zoo.names() == [name]


@pytest.mark.slow
def test_eight_processes_add_at_once_while_another_is_killed(tmp_path, supernet):
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['nni_warmstart'])
    root = tmp_path / 'zoo'

    def start(count: int) -> multiprocessing.process.BaseProcess:
        worker = context.Process(target=_add_some, args=(str(root), supernet.to_bytes(), count))
        worker.start()
        return worker

    killed, workers = start(1_000_000), [start(4) for _ in range(8)]
    while len(SupernetZoo(root).names()) < 10:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    zoo = SupernetZoo(root)
    names = zoo.names()
    assert len(names) >= 32  # none was overwritten
    assert all(zoo[name].key == supernet.key for name in names)  # reads all of it
    left = {path.name for path in root.iterdir()} - {f'{name}.safetensors' for name in names}
    assert all(name.startswith('.net-') for name in left) and len(left) <= 2  # of the killed one: its number, half a file
