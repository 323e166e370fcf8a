"""Files that were changed at random: what they say, or one clear error, and never another one.

The examples are the same in every run. To look for new ones: ``HYPOTHESIS_PROFILE=explore pytest tests/test_fuzz.py``.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.mutations import BIG, JSON, KEYS, YAML, changed, damaged
from helpers.tiny import make_task, small_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image

from nni_warmstart import ConfigError, DataError, Supernet, SupernetFileError, WarmStartError
from nni_warmstart.data import Task, from_folder, from_npz
from nni_warmstart.nni_adapter.architectures import best_sample
from nni_warmstart.nni_adapter.freezing import freeze
from nni_warmstart.nni_adapter.mutation import mutate
from nni_warmstart.runs.config import PretrainConfig, SearchConfig, parse_pretrain, parse_search
from nni_warmstart.runs.settings import read
from nni_warmstart.supernets.file_format import pack, unpack
from nni_warmstart.supernets.network import Network
from nni_warmstart.zoo.listing import summaries
from nni_warmstart.zoo.store import Store

_checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    'bounded', max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=_checks
)
settings.register_profile('explore', settings.get_profile('bounded'), max_examples=3000, derandomize=False)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'bounded'))

SEARCH = """\
data: {npz: {path: tasks/usps.npz}, flip: true, licence: MIT}
space: {name: nasbench201, width: 8, depth: 1, image_size: 16}
evaluator: {max_epochs: 20, max_seconds: 0, batch_size: 64, learning_rate: 0.05, val_share: 0.5, crop: 0.1}
strategy: {name: WarmStartGumbelDARTS, source: [a, b], keep: 0.8, average: null, temperature: {init: 1.0, min: 0.3}}
seed: 0
"""
PRETRAIN = """\
data:
- {npz: {path: tasks/clothing.npz}, licence: CC0-1.0, flip: true}
- {folder: {path: images}}
- {torchvision: {name: MNIST, root: here, download: false}}
space: {name: darts, width: 4, num_cells: 3}
evaluator: {max_epochs: 80, steps_per_epoch: 100, temperature: 3.0, batch_norm: shared}
strategy: {name: DARTS, arc_learning_rate: 0.001, gradient_clip_val: 5.0}
"""
PARSERS: dict[str, Callable[[Any, Path], Any]] = {SEARCH: parse_search, PRETRAIN: parse_pretrain}


def one_line(error: WarmStartError) -> None:
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) <= 1000


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


@pytest.fixture(scope='module')
def packed() -> bytes:
    model = mutate(small_space(), 'DARTS')
    return Supernet.from_model(model, name='net', dataset=make_task(), history={'pictures': [3, 8]}).to_bytes()


@pytest.fixture(scope='module')
def network(folder: Path) -> bytes:
    net = small_space()
    architecture = best_sample(mutate(small_space(), 'DARTS'))
    Network(
        space={'name': 'nasbench201', 'arguments': {'width': 4, 'depth': 1, 'num_classes': 3, 'image_size': 8}},
        architecture=architecture,
        tensors=freeze(net, architecture).state_dict(),
        pictures=(3, 8),
        mean=[0.0] * 3,
        std=[1.0] * 3,
        class_names=['a', 'b', 'c'],
        history={},
    ).save(folder / 'net')
    return (folder / 'net').read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('text', PARSERS, ids=['search', 'pretrain'])
@given(data=st.data())
def test_settings(folder, text, data):
    (folder / 'whole.yml').write_text(text)
    document = data.draw(changed(read(folder / 'whole.yml'), YAML, KEYS))
    if isinstance(document, dict):  # as `read` makes sure
        try:
            assert isinstance(PARSERS[text](document, folder), SearchConfig | PretrainConfig)
        except ConfigError as error:
            one_line(error)


@pytest.mark.parametrize('text', PARSERS, ids=['search', 'pretrain'])
@given(data=st.data())
def test_text_of_settings(folder, text, data):
    snippets = st.sampled_from(
        ['&a ', '*a', '!!bool x', '!!timestamp x', '2024-13-45', '[' * 400, '<<: *a', '\t', '0x' + 'f' * 5000]
    )
    place = data.draw(st.integers(0, len(text)))
    broken = text[:place] + data.draw(snippets) + text[place:]
    (folder / 'broken.yml').write_bytes(data.draw(st.just(broken.encode()) | damaged(text.encode())))
    try:
        assert isinstance(PARSERS[text](read(folder / 'broken.yml'), folder), SearchConfig | PretrainConfig)
    except ConfigError as error:
        one_line(error)


@given(data=st.data())
def test_bytes_of_a_supernet(packed, data):
    head = int.from_bytes(packed[:8], 'little')
    try:
        supernet = Supernet.from_bytes(data.draw(damaged(packed, 8) | damaged(packed, head)))
    except SupernetFileError as error:
        one_line(error)
    else:  # only what means the same is read
        (tensors, card), (expected, described) = (unpack(each, 'net') for each in (supernet.to_bytes(), packed))
        assert card == described
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


@given(data=st.data())
def test_header_of_a_supernet(folder, packed, data):
    """A header that says something else: one error, the same from a list of entries, or a summary of what is read."""
    length = int.from_bytes(packed[:8], 'little')
    header = json.dumps(data.draw(changed(json.loads(packed[8 : 8 + length]), JSON | BIG))).encode()
    forged = len(header).to_bytes(8, 'little') + header + packed[8 + length :]
    (folder / 'zoo').mkdir(exist_ok=True)
    (folder / 'zoo' / 'net.safetensors').write_bytes(forged)
    found = list(summaries(Store(str(folder / 'zoo'))))
    try:
        supernet = Supernet.from_bytes(forged)
    except SupernetFileError as error:
        one_line(error)
    else:
        (summary,) = found
        assert (summary.num_parameters, summary.space) == (supernet.num_parameters, supernet.space)


def use(supernet: Supernet) -> None:
    """What a reader may do with any supernet."""
    supernet.card  # noqa: B018
    assert all(isinstance(name, str) for names in supernet.candidates.values() for name in names)
    assert all(supernet.alpha(label).softmax(-1).shape == (len(names),) for label, names in supernet.candidates.items())
    with suppress(WarmStartError):
        assert all(isinstance(number, int) for number in supernet.pictures)
    with suppress(WarmStartError):
        supernet.build()


@pytest.mark.slow
@given(data=st.data())
def test_card_of_a_supernet(packed, data):
    tensors, card = unpack(packed, 'net')
    forged = pack(tensors, data.draw(changed(card, JSON)))
    try:
        use(Supernet.from_bytes(forged))
    except SupernetFileError as error:
        one_line(error)


DTYPES = st.sampled_from(
    [torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.bfloat16]
)


@pytest.mark.slow
@given(data=st.data())
def test_tensors_of_a_supernet(packed, data):
    tensors, card = unpack(packed, 'net')
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3, unique=True)):
        shape = data.draw(st.just(tensors[name].shape) | st.lists(st.integers(0, 6), max_size=4))
        tensors[name] = torch.full(shape, data.draw(st.integers(-2, 2))).to(data.draw(DTYPES))
        if data.draw(st.booleans()):
            del tensors[name]
    try:
        use(Supernet.from_bytes(pack(tensors, card)))
    except SupernetFileError as error:
        one_line(error)


@pytest.mark.slow
@given(data=st.data())
def test_networks(folder, network, data):
    tensors, card = unpack(network, 'net')
    forged = changed(card, JSON).map(lambda card: pack(tensors, card))
    (folder / 'net').write_bytes(data.draw(damaged(network, 8) | forged | forged))
    try:
        loaded = Network.load(folder / 'net')
    except SupernetFileError as error:
        one_line(error)
    else:
        with suppress(WarmStartError):
            loaded.build()


def npz(arrays: dict[str, Any], *, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def task_arrays() -> dict[str, Any]:
    task = make_task(12)
    x, y, test_x, test_y = task.train_x.permute(0, 2, 3, 1), task.train_y, task.test_x.permute(0, 2, 3, 1), task.test_y
    return {'train_x': x, 'train_y': y, 'test_x': test_x, 'test_y': test_y, 'class_names': np.array(task.class_names)}


def read_npz(path: Path) -> None:
    try:
        task = from_npz(path)
        assert isinstance(task, Task)
        assert task.adapted(3, 4).train_x.shape == (len(task.train_x), 3, 4, 4)
        assert int(task.train_y.max()) < task.num_classes
    except DataError as error:
        one_line(error)


@given(data=st.data(), compressed=st.booleans())
def test_bytes_of_an_npz(folder, data, compressed):
    (folder / 'task.npz').write_bytes(data.draw(damaged(npz(task_arrays(), compressed=compressed), 200)))
    read_npz(folder / 'task.npz')


@given(data=st.data())
def test_header_of_an_array(folder, data):
    """The text before an array's numbers, with the zip file's checksum right."""
    arrays = task_arrays()
    whole = io.BytesIO()
    np.save(whole, arrays.pop('train_x'))
    file = io.BytesIO(npz(arrays))
    with zipfile.ZipFile(file, 'a') as archive:
        archive.writestr('train_x.npy', data.draw(damaged(whole.getvalue(), 128)))
    (folder / 'task.npz').write_bytes(file.getvalue())
    read_npz(folder / 'task.npz')


@given(data=st.data())
def test_arrays_of_an_npz(folder, data):
    arrays = task_arrays()
    kinds = arrays_of.scalar_dtypes() | arrays_of.unicode_string_dtypes() | arrays_of.byte_string_dtypes()
    shapes = arrays_of.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3) | st.sampled_from([(9, 2, 2, 3), (9,)])
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=3, unique=True)):
        arrays[name] = data.draw(arrays_of.arrays(kinds, shapes))
        if data.draw(st.integers(0, 3)) == 0:
            del arrays[name]
    (folder / 'task.npz').write_bytes(npz(arrays))
    read_npz(folder / 'task.npz')


@pytest.mark.parametrize('kind', ['png', 'jpeg', 'gif'])
@given(data=st.data())
def test_bytes_of_a_picture(folder, kind, data):
    for name, shade in (('dark', 30), ('light', 200)):
        (folder / kind / name).mkdir(parents=True, exist_ok=True)
        picture = io.BytesIO()
        Image.new('RGB', (9, 7), (shade, 0, shade)).save(picture, kind)
        (folder / kind / name / 'a.png').write_bytes(picture.getvalue())
    (folder / kind / 'dark' / 'a.png').write_bytes(data.draw(damaged(picture.getvalue(), 60)))
    try:
        assert from_folder(folder / kind, side=4).train_x.shape == (2, 3, 4, 4)
    except DataError as error:
        one_line(error)
