"""What the record of a supernet says, and files whose record says nothing, or nonsense."""

from __future__ import annotations

import json

import pytest
from helpers.tiny import make_task, small_space

from nni_warmstart import Supernet, SupernetFileError
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.supernets.file_format import pack
from nni_warmstart.supernets.history import record

FACTS = {'a': {'classes': 3, 'accuracy': 0.5}, 'b': {'classes': 2}}


def test_a_record_leaves_out_what_is_not_known():
    assert record() == {}
    assert record(run='1f', licence=None, seed=3) == {'run': '1f', 'seed': 3}
    assert record(pictures=(3, 8), comment=None) == {'pictures': (3, 8), 'comment': None}


def test_a_supernet_of_one_dataset():
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', dataset='flowers', history=record(run='1f'))
    again = Supernet.from_bytes(supernet.to_bytes())
    for each in (supernet, again):
        assert (each.dataset, each.run, each.licence) == ('flowers', '1f', None)
        assert each.datasets == {} and not each.is_joint
        assert each.created == each.history['created']
        assert each.recorded_pictures is None and each.pictures == (3, 32)  # of the space


def test_a_supernet_of_several_datasets():
    history = record(datasets=FACTS, pictures=(1, 8), licence='MIT')
    supernet = Supernet.from_model(mutate(small_space(5), 'DARTS'), name='both', history=history)
    assert supernet.is_joint and supernet.datasets == FACTS
    assert (supernet.pictures, supernet.licence, supernet.dataset) == ((1, 8), 'MIT', None)
    licensed = supernet.with_licences({'a': 'CC0-1.0', 'b': None})
    assert licensed.datasets == {'a': {**FACTS['a'], 'licence': 'CC0-1.0'}, 'b': {'classes': 2, 'licence': None}}
    assert supernet.datasets == FACTS  # as it was
    assert licensed.pictures == (1, 8)


def test_the_card_has_the_layout_of_earlier_versions():
    history = {**record(pictures=(3, 8), run='1f'), 'curve': []}
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one', dataset=make_task(), history=history)
    card = json.loads(json.dumps(supernet.card['history']))
    assert card.keys() == {'created', 'versions', 'dataset', 'pictures', 'run', 'curve'}
    assert card['pictures'] == [3, 8] and card['dataset'] == 'blobs'


def test_files_without_a_record_say_nothing():
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one')
    bare = Supernet.from_bytes(pack(supernet.tensors, {**supernet.card, 'history': {}}))
    assert (bare.datasets, bare.dataset, bare.run, bare.licence, bare.created) == ({}, None, None, None, None)
    assert not bare.is_joint and bare.pictures == (3, 32)


@pytest.mark.parametrize(
    ('history', 'message'),
    [
        ({'pictures': [3]}, r'history.pictures = \[3\], which is not \[channels, side\]'),
        ({'pictures': [3, -8]}, 'which is not'),
        ({'datasets': ['a', 'b']}, 'history.datasets is not a dict'),
    ],
)
def test_records_that_decide_nonsense_are_refused(history, message):
    supernet = Supernet.from_model(mutate(small_space(), 'DARTS'), name='one')
    with pytest.raises(SupernetFileError, match=message):
        Supernet.from_bytes(pack(supernet.tensors, {**supernet.card, 'history': history}))
