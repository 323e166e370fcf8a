"""A zoo is a folder of files; damaged ones never stop it."""

from __future__ import annotations

import logging

import pytest
from conftest import small_space

from nni_warmstart import Supernet, SupernetZoo, ZooError, introspect


@pytest.fixture
def supernet() -> Supernet:
    return Supernet.from_model(introspect.mutate(small_space(), 'DARTS'), name='one')


def test_add_get_remove(tmp_path, supernet):
    zoo = SupernetZoo(tmp_path / 'zoo')
    assert zoo.names() == []
    zoo.add(supernet)
    zoo.add(supernet.renamed('two'))
    assert zoo.names() == ['one', 'two']
    assert zoo['two'].name == 'two'
    zoo.remove('one')
    assert 'one' not in zoo
    with pytest.raises(ZooError, match="has no entry 'one'; it has two"):
        zoo['one']


def test_damaged_entries_are_skipped_with_a_warning(tmp_path, supernet, caplog):
    zoo = SupernetZoo(tmp_path)
    zoo.add(supernet)
    (tmp_path / 'broken.safetensors').write_bytes(b'half a file')
    with caplog.at_level(logging.WARNING):
        assert [entry.name for entry in zoo.entries()] == ['one']
    assert 'broken' in caplog.text


@pytest.mark.parametrize('name', ['../one', 'a/b', '', '.hidden', 'a b'])
def test_names_are_file_names(tmp_path, supernet, name):
    with pytest.raises(ZooError, match='may hold letters, digits'):
        SupernetZoo(tmp_path).add(supernet.renamed(name))


def test_numbered_names(tmp_path, supernet):
    zoo = SupernetZoo(tmp_path)
    assert zoo.free_name('net') == 'net-1'
    zoo.add(supernet.renamed('net-1'))
    assert zoo.free_name('net') == 'net-2'
