"""Searches on images that stay on disk: the same curves as in memory, with any number of workers, and few reads."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml
from helpers.tiny import ROOT

sys.path.insert(0, str(ROOT / 'tests' / 'data'))

from test_lazy import image_folder

from nni_warmstart import Supernet
from nni_warmstart.cli import main
from nni_warmstart.data.encoded import EncodedImages
from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.search import run_search
from nni_warmstart.search.oneshot_module import DartsSearchModule

SPACE = {'name': 'nasbench201', 'width': 4, 'depth': 1, 'image_size': 8}
STRATEGY = {'name': 'WarmStartDARTS', 'source': 'joint-nasbench201-w8', 'arc_learning_rate': 0.01}


def search(folder, out, *, resume=False, data=None, strategy=STRATEGY, **evaluator):
    document = {
        'data': {'folder': {'path': str(folder)}, 'cache_mb': 0.02, **(data or {})},
        'space': SPACE,
        'evaluator': {'max_epochs': 2, 'batch_size': 8, 'learning_rate': 0.05, 'crop': 0.1, **evaluator},
        'strategy': strategy,
    }
    return run_search(parse_search(document, out.parent), seed=0, out=out, resume=resume, progress=False)


def weights(out):
    return Supernet.load(out / 'supernet.safetensors').tensors


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_cold_search_on_disk_is_that_in_memory(tmp_path, monkeypatch):
    """To the bit, where the statistics of the channels are those of all images."""
    folder, found = image_folder(tmp_path / 'images', n=60), []
    monkeypatch.setattr('nni_warmstart.data.splits.sample', lambda x, y, *rest: torch.arange(len(x)))
    for name, cache in (('memory', 512), ('disk', 0)):
        search(folder, tmp_path / name, data={'cache_mb': cache}, strategy={'name': 'DARTS'})
        found.append(weights(tmp_path / name))
    assert same(*found)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Folder of images, a search on it without workers, and its result."""
    path = tmp_path_factory.mktemp('whole')
    folder = image_folder(path / 'images', n=60)
    return folder, path / 'run', search(folder, path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'later'), [(0, 0), (2, 2), (0, 2), (2, 0)])
def test_a_resumed_search_gives_the_same_bits_with_any_number_of_workers(whole, tmp_path, monkeypatch, workers, later):
    folder, uninterrupted, result = whole
    start = DartsSearchModule.on_train_epoch_start

    def interrupt(self):
        if self.current_epoch == 1:
            raise SystemExit
        start(self)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(DartsSearchModule, 'on_train_epoch_start', interrupt)
        search(folder, tmp_path / 'cut', num_workers=workers)
    resumed = search(folder, tmp_path / 'cut', num_workers=later, resume=True)
    assert same(weights(uninterrupted), weights(tmp_path / 'cut'))
    assert [each['default'] for each in result['curve']] == [each['default'] for each in resumed['curve']]


@pytest.mark.slow
def test_a_warm_search_reads_every_image_about_as_often_as_it_trains_on_it(tmp_path, monkeypatch):
    folder = image_folder(tmp_path / 'images', n=200, parts=('train',))
    read, original = [0], EncodedImages.read

    def counting(self, position):
        read[0] += 1
        return original(self, position)

    monkeypatch.setattr(EncodedImages, 'read', counting)
    strategy = {**STRATEGY, 'source': 'auto', 'save_to': str(tmp_path / 'zoo')}
    search(folder, tmp_path / 'run', strategy=strategy, max_epochs=1)
    assert read[0] <= 1.05 * (100 + 100 + 100)  # weights, alphas, and validation on the images of the alphas


def test_settings_of_the_loaders_are_checked(tmp_path, capsys):
    image_folder(tmp_path / 'images', n=4)
    config = {'data': {'folder': {'path': 'images'}}, 'space': SPACE}
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(config))
    for setting, message in (
        ('evaluator.precision=8', 'evaluator.precision = 8, but it must be text'),
        ('evaluator.precision=half', "evaluator.precision = 'half', but it must be one of 32-true, bf16-mixed"),
        ('evaluator.accelerator=abacus', "evaluator.accelerator = 'abacus', but it must be one of auto, cpu"),
        ('evaluator.sampler=fair', "evaluator.sampler = 'fair', but it must be one of shuffle, balanced"),
        ('evaluator.num_workers=-1', 'evaluator.num_workers = -1, but it must be from 0'),
        ('data.on_error=ignore', "data.on_error = 'ignore', but it must be stop or skip"),
        ('data.cache_mb=-1', 'data.cache_mb = -1.0, but it must be from 0'),
    ):
        command = ['search', '--config', str(tmp_path / 'search.yml'), '--out', str(tmp_path / 'out'), '--set', setting]
        assert main(command) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'out' / 'result.json').exists()


@pytest.mark.slow
def test_settings_of_the_loaders_are_used(tmp_path):
    folder = image_folder(tmp_path / 'images', n=40)
    found = search(folder, tmp_path / 'run', max_epochs=1, precision='bf16-mixed', accelerator='cpu', sampler='balanced')
    settings = json.loads((tmp_path / 'run' / 'settings.json').read_text())['evaluator']
    assert (settings['precision'], settings['sampler'], settings['num_workers']) == ('bf16-mixed', 'balanced', 0)
    assert 0 <= found['final']['test_accuracy'] <= 1
