"""Structures in files: what no network gives is refused before it is used, and all else is mapped or refused in one line."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections import Counter
from dataclasses import replace
from functools import cache
from resource import RUSAGE_SELF, getrusage

import pytest
import torch
from helpers.mapped import mobile, trained
from helpers.mutated import mutated
from helpers.rearranged import Rearranged
from helpers.tiny import make_task, small_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nni.nas.hub.pytorch import NasBench201

from nni_warmstart import Supernet, SupernetFileError, SupernetZoo, TransferError, transfer
from nni_warmstart.cli.examination import entries
from nni_warmstart.errors import WarmStartError
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.supernets.network import Network
from nni_warmstart.tracing.structure import Structure, structure_of

BLOCKS = ('interleaved', 'groups', 'head gate', 'group norm')

SPACES = {
    'cells': (lambda: small_space(), lambda: NasBench201(6, 1, 3), 8),
    'rearranged': (lambda: Rearranged(BLOCKS, 4), lambda: Rearranged(BLOCKS, 8), 8),
    'narrower': (lambda: Rearranged(BLOCKS, 8), lambda: Rearranged(BLOCKS, 4), 8),
    'deeper': (lambda: mobile(8), lambda: mobile(8, (1, 3)), 32),
}


@cache
def sound(space: str) -> Supernet:
    make, _, side = SPACES[space]
    data = (torch.rand(12, 3, side, side), torch.arange(12) % 3)
    supernet = Supernet.from_model(trained(make()), name=space, dataset=data)
    return replace(supernet, sketches={key: each for key, each in supernet.sketches.items() if key == 'random_conv'})


def plain_of(structure: Structure) -> dict:
    return json.loads(zlib.decompress(structure.to_bytes()))


def written(supernet: Supernet, plain: object) -> bytes:
    """A file of the supernet with another structure."""

    class Given:
        def to_bytes(self) -> bytes:
            return zlib.compress(json.dumps(plain).encode())

    return replace(supernet, structure=Given()).to_bytes()


def with_plain(supernet: Supernet, plain: object) -> Supernet:
    return Supernet.from_bytes(written(supernet, plain), 'file')


@pytest.mark.parametrize('space', SPACES)
def test_own_structures_are_read(space):
    structure = sound(space).structure
    again = Structure.from_bytes(structure.to_bytes())
    assert again.to_bytes() == structure.to_bytes()


def check_mutated(space: str, seed: int) -> str:
    """Read a supernet with a mutated structure and transfer it; return whether it is refused, mapped or unfit."""
    start = time.process_time()
    try:
        supernet = with_plain(sound(space), mutated(plain_of(sound(space).structure), seed))
    except SupernetFileError as error:
        assert 'has a structure that' in str(error) and '\n' not in str(error)
        return 'refused'
    try:
        report = transfer(supernet, trained(SPACES[space][1](), 1), head='random', untraceable='fresh')
        assert 0 <= report.share_inherited <= 1
        return 'mapped'
    except WarmStartError as error:
        assert '\n' not in str(error)
        return 'unfit'
    finally:
        assert time.process_time() - start < 10


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(['cells', 'rearranged', 'narrower']), st.integers(0, 2**32 - 1))
def test_mutated_structures_are_refused_or_mapped(space, seed):
    check_mutated(space, seed)


@pytest.mark.slow
def test_100_mutated_structures_take_little_time_and_memory():
    assert all(sound(space).structure for space in SPACES)
    before = getrusage(RUSAGE_SELF).ru_maxrss
    found = Counter(check_mutated(space, seed) for seed in range(25) for space in SPACES)
    assert found.total() == 100
    assert min(found['refused'], found['mapped']) > 10
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3))
def test_entries_with_mutated_structures_are_skipped_by_name_or_ranked(tmp_path_factory, caplog, seeds):
    folder, bad = tmp_path_factory.mktemp('zoo'), set()
    zoo = SupernetZoo(folder)
    zoo.add(sound('cells').renamed('sound'))
    for number, seed in enumerate(seeds):
        odd = written(sound('cells'), mutated(plain_of(sound('cells').structure), seed))
        (folder / f'odd{number}.safetensors').write_bytes(odd)
        try:
            zoo[f'odd{number}']
        except SupernetFileError:
            bad.add(f'odd{number}')
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ranked = [entry.name for entry in zoo.rank(make_task())]
    assert sorted(ranked) == sorted({'sound', 'odd0', 'odd1', 'odd2'} - bad)
    assert all(f'Skipping zoo entry {name}' in caplog.text for name in bad)
    findings = list(entries(str(folder)))
    assert sum(finding.status == 'bad' for finding in findings) == len(bad)


@pytest.mark.parametrize(
    ('path', 'value', 'fault'),
    [
        (('tensors', 'stem.0.weight', 0), [4, 3, 3, 10**12], 'has shape'),
        (('tensors', 'stem.0.weight', 1), ['out', 'in', 'up', ''], 'has roles'),
        (
            ('tensors', 'stem.0.weight', 2),
            [{'start': 0, 'length': 4}, None, None, None],
            'has channels where it has no role',
        ),
        (('tensors', 'stem.0.weight', 3), [[9], [], [], []], 'has bad bounds'),
        (('tensors', 'stem.0.weight', 5), 3, 'has 3 groups'),
        (('tensors', 'stem.1.weight', 2), [{'start': 2**24 - 9, 'length': 4}], 'have too high numbers'),
        (('kinds', 'a.' * 150 + 'b'), 'Conv2d', 'kinds is no object with paths'),
        (('scales', 'stem'), -1, "scales of 'stem' is -1"),
        (('ops', 'stem.0'), [['conv', 3, 0, 1]], "ops of 'stem.0'"),
        (('sites', 'stem'), ['label', {'a': 3}], "sites of 'stem'"),
        (('values',), [], 'values is no object'),
        (('outputs',), {'start': 0, 'length': -1}, 'outputs are no channels'),
        (('relations', 'ties'), [[0], [1]], 'ties are no triples'),
        (('relations', 'pieces', 'nothing'), [], 'pieces are of other tensors'),
        (('relations', 'pieces', 'stem.1.weight'), [{'channels': [0, 2, 2, 0]}], 'have gaps'),
        (('relations', 'strands', 'stem.1.weight'), [{'channels': [1, 1, 1, 1]}], 'are of two channels'),
    ],
)
def test_faults_are_named(path, value, fault):
    plain = plain_of(sound('cells').structure)
    parent = plain
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(SupernetFileError, match='has a structure that this version does not understand') as error:
        with_plain(sound('cells'), plain)
    assert fault in str(error.value) and len(str(error.value)) < 300


def test_structures_without_end_are_refused():
    plain = plain_of(sound('cells').structure)
    plain['kinds'].update({f'm{index}': 'Identity' for index in range(20_000)})
    with pytest.raises(SupernetFileError, match='kinds are too many'):
        with_plain(sound('cells'), plain)


HUGE = {
    'deep': {'name': 'nasbench201', 'arguments': {'width': 8, 'depth': 2000, 'num_classes': 3}},
    'wide': {'name': 'nasbench201', 'arguments': {'width': 10**5, 'depth': 1, 'num_classes': 3}},
    'endless': {'name': 'darts', 'arguments': {'width': 4, 'num_cells': 10**9, 'num_classes': 3}},
    'many': {'name': 'MobileNetV3Space', 'arguments': {'base_widths': [16] * 10**5}},
}


@pytest.mark.parametrize('space', HUGE.values(), ids=HUGE)
def test_spaces_of_cards_are_no_larger_than_their_files(space):
    start = time.process_time()
    card = replace(sound('cells'), space=space, structure=None)
    with pytest.raises(TransferError, match=r'the space of supernet .* cannot be rebuilt: .* (far larger|beyond|items)'):
        transfer(card, mutate(NasBench201(6, 1, 3), 'DARTS'), head='random')
    network = Network(space, {}, dict(card.tensors), (3, 8), [0.0] * 3, [1.0] * 3, ['a', 'b'], {})
    with pytest.raises(TransferError, match='cannot be rebuilt'):
        network.build()
    assert time.process_time() - start < 10


def test_tracing_takes_no_longer_for_larger_images():
    model = trained(small_space())
    structure_of(model, (2, 3, 8, 8))
    start = time.process_time()
    large = structure_of(model, (2, 3, 4096, 4096))
    assert time.process_time() - start < 5
    small, large = plain_of(structure_of(model, (2, 3, 64, 64))), plain_of(large)
    assert {**large, 'scales': None} == {**small, 'scales': None}
