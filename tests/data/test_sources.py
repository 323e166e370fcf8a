"""Sources of data: each is found by its key, named before it is read, and read by the settings that it declares."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import save_npz
from PIL import Image

from nni_warmstart import ConfigError, DataError
from nni_warmstart.data.sources import SOURCES, from_word, title_of
from nni_warmstart.runs.config import DataConfig, parse_search


def folder_of_images(path: Path) -> Path:
    for name in ('a', 'b'):
        (path / name).mkdir(parents=True)
        Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(path / name / 'one.png')
    return path


def test_settings_of_a_run_keep_their_order():
    assert list(asdict(DataConfig())) == [*SOURCES, 'label', 'licence', 'flip', 'cache_mb', 'on_error']


def test_paths_start_at_the_folder_of_the_file(tmp_path):
    save_npz(tmp_path / 'shapes.npz')
    folder_of_images(tmp_path / 'flowers')
    for kind, path, name in (('npz', 'shapes.npz', 'shapes'), ('folder', 'flowers', 'flowers')):
        config = parse_search({'data': {kind: {'path': path}}}, tmp_path).data
        task = config.load(tmp_path, 10)
        assert task.name == title_of(asdict(config)) == name
    assert task.train_x.shape[-1] == 10
    assert parse_search({'data': {kind: {'path': path}, 'label': 'mine'}}, tmp_path).data.load(tmp_path, 8).name == 'mine'


def test_a_word_means_an_embedded_task_a_folder_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save_npz(tmp_path / 'shapes.npz')
    assert len(from_word('digits', 24).train_x) == 1347
    assert from_word('~/shapes.npz', 24).name == 'shapes'
    assert from_word(str(folder_of_images(tmp_path / 'images.npz')), 24).train_x.shape == (2, 3, 24, 24)
    with pytest.raises(DataError, match='data file nowhere does not exist'):
        from_word('nowhere', 24)


def test_an_embedded_task_beside_a_folder_of_its_name_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(folder_of_images(tmp_path / 'digits').parent)
    assert len(from_word('digits', 8).train_x) == 1347
    assert 'digits is the embedded task of this name; ./digits is the folder or file.' in caplog.text
    assert from_word('./digits', 8).name == 'digits'
    monkeypatch.chdir('digits')
    assert from_word('.', 8).name == 'digits'


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (
            {'name': 'letters'},
            "is unknown; the embedded task is 'digits', others come from npz:, folder:, .* or python:",
        ),
        ({'npz': {}}, 'data.npz.path = None, but it must be a path'),
        ({'folder': {'path': 'a', 'size': 3}}, 'key data.folder.size is unknown; known are path'),
        ({'torchvision': {'name': 'MNIST', 'download': 'yes'}}, "data.torchvision.download = 'yes', but it must be true"),
        ({'torchvision': {'name': 'MNIST', 'root': None}}, 'data.torchvision.root = None, but it must be text'),
    ],
)
def test_wrong_settings_are_named(data, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        parse_search({'data': data}, tmp_path).data.load(tmp_path, 8)


def test_data_are_named_before_they_are_read():
    assert title_of({'name': 'digits', 'npz': None}) == 'digits'
    assert title_of({'torchvision': {'name': 'FashionMNIST', 'root': '~/data'}}) == 'FashionMNIST'
    assert title_of({'npz': 'damaged'}) is None
    assert title_of({}) is None


def test_nothing_is_skipped_where_no_files_are_read(tmp_path):
    save_npz(tmp_path / 'shapes.npz')
    config = parse_search({'data': {'npz': {'path': 'shapes.npz'}, 'on_error': 'skip'}}, tmp_path)
    with pytest.raises(ConfigError, match=r"data\.on_error = 'skip' has no effect on data\.npz, whose images are not files"):
        config.data.load(tmp_path, 8)
