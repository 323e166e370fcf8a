"""WarmStartClassifier: scikit-learn's conventions, and the same network as the pipeline's."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.tiny import make_task
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from nni_warmstart import ConfigError, DataError, Supernet, SupernetFileError, WarmStartClassifier, WarmStartError
from nni_warmstart.cli import main
from nni_warmstart.supernets.network import Network

TINY = {'space_arguments': {'width': 4, 'depth': 1, 'image_size': 8}, 'source': None, 'max_epochs': 2, 'batch_size': 4}
NAMES = np.array(['up left', 'up right', 'down left'])


def colour(n: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images, and the names of their classes."""
    task = make_task(n=n, seed=seed)
    x, y = torch.cat([task.train_x, task.test_x]), torch.cat([task.train_y, task.test_y])
    return x.permute(0, 2, 3, 1).numpy(), NAMES[y.numpy()]


def write_folder(place: Path) -> Path:
    for number, (image, name) in enumerate(zip(*colour(), strict=True)):
        path = place / 'pictures' / ('test' if number % 4 == 0 else 'train') / name / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return place / 'pictures'


@pytest.fixture(scope='module')
def fitted():
    return WarmStartClassifier(**TINY).fit(*colour(96))


def test_it_learns_images_and_says_their_labels(fitted):
    x, y = colour(48, seed=1)
    assert fitted.classes_.tolist() == sorted(NAMES)
    assert fitted.n_features_in_ == 8 * 8 * 3
    probabilities = fitted.predict_proba(x)
    assert probabilities.shape == (48, 3) and probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=0, atol=1e-12)
    assert (fitted.predict(x) == fitted.classes_[probabilities.argmax(1)]).all()
    assert fitted.score(x, y) == (fitted.predict(x) == y).mean() > 0.6
    assert fitted.score(x, y, sample_weight=(fitted.predict(x) == y)) == 1
    assert fitted.result_['network']['measured_on'] == 'test'
    assert fitted.result_['network']['class_names'] == sorted(NAMES)


def test_layouts_and_units_lead_to_the_same_probabilities(fitted):
    x, _ = colour(9)
    expected = fitted.predict_proba(x)
    for same in (x.transpose(0, 3, 1, 2), x.astype(float), torch.from_numpy(x), x.tolist()):
        np.testing.assert_allclose(fitted.predict_proba(same), expected, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(x[:1]), expected[:1], atol=1e-6)
    assert fitted.predict(np.zeros((2, 20, 30))).shape == (2,)  # of another size, and grey


def test_the_module_of_torch_computes_the_same(fitted):
    x, _ = colour(6)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (fitted.network_.mean, fitted.network_.std))
    with torch.no_grad():
        logits = fitted.network_.build()((torch.from_numpy(x).permute(0, 3, 1, 2).float() - mean) / std)
    np.testing.assert_allclose(fitted.predict_proba(x), logits.double().softmax(1).numpy(), atol=1e-6)


@pytest.mark.slow
def test_grey_images_and_numbers_as_labels_give_the_same_network_each_time():
    x, y = colour()
    generator = (np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002 - it must stay as it is
    found = [WarmStartClassifier(**TINY).fit(x[..., 0], np.searchsorted(sorted(NAMES), y) * 10 - 5) for _ in range(2)]
    assert (np.random.get_state()[1] == generator[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), generator[1])
    assert found[0].classes_.tolist() == [-5, 5, 15] and found[0].n_features_in_ == 64
    tensors = [each.network_.tensors for each in found]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    other = clone(found[0]).set_params(random_state=3).fit(x[..., 0], y)
    assert not all(torch.equal(tensor, other.network_.tensors.get(name, tensor)) for name, tensor in tensors[0].items())


@pytest.mark.slow
def test_a_folder_gives_the_network_of_the_command_line(tmp_path):
    pictures, out = write_folder(tmp_path), tmp_path / 'out'
    found = WarmStartClassifier(**TINY, network_epochs=3).fit(pictures)
    evaluator = {'max_epochs': 2, 'batch_size': 4, 'learning_rate': 0.05}
    space = {'name': 'nasbench201', **TINY['space_arguments']}
    document = {'data': {'folder': {'path': 'pictures'}}, 'space': space, 'evaluator': evaluator}
    (tmp_path / 'search.yml').write_text(yaml.safe_dump(document))
    longer = ['--set-network', 'evaluator.max_epochs=3']
    assert main(['run', '--config', str(tmp_path / 'search.yml'), '--out', str(out), *longer]) == 0
    path = out / 'network' / 'network.safetensors'
    theirs = Network.load(path).tensors
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.network_.tensors.items())
    result = json.loads((out / 'result.json').read_text())
    assert found.result_['network']['accuracy'] == result['network']['accuracy']
    # A folder is measured, files are predicted, and the file of the command line is a classifier.
    files = sorted((pictures / 'test').rglob('*.png'))
    right = found.predict(files) == [file.parent.name for file in files]
    for each in (found, WarmStartClassifier.load(path)):
        assert each.score(str(pictures)) == right.mean()
        assert each.classes_.tolist() == sorted(NAMES)
    (pictures / 'test' / 'up left').rename(pictures / 'test' / 'unheard of')
    (pictures / 'train' / 'up left').rename(pictures / 'train' / 'unheard of')
    with pytest.raises(DataError, match='has classes that the network does not know: unheard of'):
        found.score(pictures)


def test_nothing_is_told_before_a_fit(tmp_path):
    new = WarmStartClassifier()
    for call in (new.predict, new.predict_proba, lambda x: new.score(x, x), lambda x: new.save(tmp_path / 'a.safetensors')):
        with pytest.raises(NotFittedError, match='not fitted yet'):
            call(np.zeros((2, 8, 8)))
    assert list(tmp_path.iterdir()) == []


def test_conventions_of_scikit_learn(fitted):
    new = WarmStartClassifier(**TINY, settings={'evaluator.jitter': 0.1}, out='somewhere')
    assert clone(new).get_params() == new.get_params()
    assert clone(new).set_params(max_epochs=7).max_epochs == 7
    assert is_classifier(new) and 'max_epochs=2' in repr(new)
    assert not [name for name in vars(new) if name.endswith('_')]
    again = pickle.loads(pickle.dumps(fitted))
    x, _ = colour(6)
    assert (again.predict_proba(x) == fitted.predict_proba(x)).all()
    assert not hasattr(clone(fitted), 'classes_')


@pytest.mark.slow
def test_cross_validation():
    scores = cross_val_score(WarmStartClassifier(**TINY), *colour(96), cv=2, error_score='raise')
    assert scores.shape == (2,) and scores.min() > 0.4


@pytest.mark.parametrize(
    ('x', 'y', 'message'),
    [
        (np.zeros((4, 64)), [0, 1, 0, 1], r'X has shape \(4, 64\); needed is'),
        (np.zeros((4, 3, 9, 3)), [0, 1, 0, 1], 'channels may come first or last'),
        (np.zeros((4, 8, 8)), [0, 1, 0], r'y has shape \(3,\), and X has 4 images'),
        (np.zeros((4, 8, 8)), None, 'y is missing; give one label per image, or a folder'),
        (np.zeros((4, 8, 8)), [1, 1, 1, 1], 'has one class; a classification needs at least two'),
        (np.full((4, 8, 8), np.nan), [0, 1, 0, 1], 'X has NaN or infinite pixels in 4 images'),
        (np.zeros((4, 8, 8)), [0, 0.5, 0, 1], 'y has numbers such as'),
        (np.zeros((4, 8, 8)), ['a', 'a', 'b', 'b'], 'class a, b is missing from the .* split'),
        ('nowhere', None, 'data folder nowhere does not exist'),
        ('.', [0, 1], 'y is given beside a folder'),
    ],
)
def test_what_cannot_be_learnt_is_one_line(x, y, message):
    with pytest.raises(DataError, match=message) as error:
        WarmStartClassifier(**TINY).fit(x, y)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'space': 'nasbench'}, "space.name = 'nasbench' is unknown"),
        ({'space_arguments': {'widht': 3}}, 'Did you mean width?'),
        ({'max_epochs': 0}, 'evaluator.max_epochs = 0, but it must be 1 or more'),
        ({'network_epochs': -1}, 'evaluator.max_epochs = -1'),
        ({'batch_size': 'many'}, "evaluator.batch_size = 'many'"),
        ({'weights': 'copied'}, "weights = 'copied' is unknown; choose one of scratch, inherited."),
        ({'validation_share': 2}, 'validation_share = 2, but it must be from 0 to 0.9'),
        ({'settings': {'evaluator.jiter': 1}}, 'key evaluator.jiter is unknown; did you mean jitter?'),
        ({'settings': {'evaluator.devices': 2}}, 'must be 1 for a classifier'),
        ({'source': 'nothing'}, "source = 'nothing' is neither a file nor an entry"),
        ({'random_state': -1}, 'seed = -1, but it must be from 0'),
    ],
)
def test_wrong_parameters_are_one_line_at_the_fit(parameters, message):
    new = WarmStartClassifier(**{**TINY, **parameters})
    with pytest.raises(WarmStartError) as error:
        new.fit(*colour(24))
    assert message in str(error.value) and '\n' not in str(error.value)
    assert not hasattr(new, 'classes_') and not hasattr(new, 'network_')


@pytest.mark.slow
def test_settings_may_be_sections():
    nested = {**TINY, 'settings': {'evaluator': {'jitter': 0.1}, 'strategy.average': 0}}
    found = WarmStartClassifier(**nested)._document(seed=0)
    assert found['evaluator'] == {
        'max_epochs': 2, 'max_seconds': 0.0, 'batch_size': 4, 'learning_rate': 0.05, 'jitter': 0.1
    }  # fmt: skip
    assert found['strategy'] == {'name': 'WarmStartDARTS', 'source': None, 'average': 0}


def test_pixels_in_other_units_are_said(fitted):
    x, y = colour(12, seed=1)
    with pytest.warns(
        UserWarning, match='X has pixels of up to 0.8.*, and the classifier was fitted to pixels of up to 2..;'
    ):
        fitted.predict(x / 255)
    with pytest.warns(UserWarning, match='give X in the units of the fit'):
        fitted.score(x * 10.0, y)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fitted.predict(np.zeros_like(x))
        fitted.predict(x.astype(float))


def test_a_fit_leaves_the_environment_and_can_be_interrupted(monkeypatch):
    monkeypatch.delenv('PL_GLOBAL_SEED', raising=False)
    monkeypatch.setenv('PL_SEED_WORKERS', '0')

    def ends(*_, **__):
        os.environ['PL_GLOBAL_SEED'] = '7'
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 (as Lightning does)

    monkeypatch.setattr('nni_warmstart.runs.classifier.run_pipeline', ends)
    with pytest.raises(KeyboardInterrupt):
        WarmStartClassifier(**TINY).fit(*colour(24))
    assert 'PL_GLOBAL_SEED' not in os.environ and os.environ['PL_SEED_WORKERS'] == '0'


def test_an_interrupted_fit_goes_on_in_its_folder(tmp_path, monkeypatch):
    x, y = colour()
    whole = WarmStartClassifier(**TINY).fit(x, y)
    resumed = WarmStartClassifier(**TINY, out=tmp_path / 'run')
    monkeypatch.setattr('nni_warmstart.runs.pipeline.retrain', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        resumed.fit(x, y)
    monkeypatch.undo()
    monkeypatch.setattr('nni_warmstart.runs.search.set_up', lambda *_: 1 / 0)  # the search is not repeated
    resumed.fit(x, y)
    tensors = whole.network_.tensors
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in resumed.network_.tensors.items())
    before = resumed.result_['network']
    assert resumed.fit(x, y).result_['network'] == before
    with pytest.raises(ConfigError, match='began with other data: '):
        resumed.fit(x[::-1], y[::-1])


def test_a_classifier_is_kept_in_a_file(fitted, tmp_path):
    path, (x, _) = tmp_path / 'mine.safetensors', colour(6)
    fitted.save(path)
    found = WarmStartClassifier.load(path)
    assert (found.predict_proba(x) == fitted.predict_proba(x)).all()
    assert found.predict(x).tolist() == fitted.predict(x).tolist()
    assert found.space_arguments == {**found.space_arguments, **TINY['space_arguments']}
    numbered = clone(fitted)
    numbered.network_, numbered.classes_ = fitted.network_, np.array([-5, 5, 15])
    numbered.save(path)
    assert WarmStartClassifier.load(path).classes_.tolist() == [-5, 5, 15]
    for labels in ([1, 2], [[1], [2], [3]], 'abc', [None, 1, 2]):
        network = fitted.network_
        Network(**{**vars(network), 'history': {**network.history, 'labels': labels}}).save(path)
        with pytest.raises(SupernetFileError, match='there are not 3 labels'):
            WarmStartClassifier.load(path)
    numbered.classes_ = np.array(['2020-01-01', '2021-01-01', '2022-01-01'], 'datetime64[D]')
    with pytest.raises(ConfigError, match='cannot be kept in a file'):
        numbered.save(path)


def test_numbers_of_numpy_are_parameters_too():
    numbers = {
        'max_epochs': np.int64(1), 'network_epochs': np.int32(2), 'batch_size': np.int64(8), 'max_seconds': np.int64(60),
        'learning_rate': np.float32(0.05), 'space_arguments': {**TINY['space_arguments'], 'image_size': np.int64(8)},
    }  # fmt: skip
    found = WarmStartClassifier(**{**TINY, **numbers}).fit(*colour(24))
    assert found.result_['supernet']['epochs'] == 1


def test_a_classifier_from_a_file_learns_other_classes(fitted, tmp_path):
    fitted.save(tmp_path / 'mine.safetensors')
    x, y = colour(48)
    found = clone(WarmStartClassifier.load(tmp_path / 'mine.safetensors', **{**TINY, 'max_epochs': 1}))
    assert found.fit(x[y != NAMES[0]], y[y != NAMES[0]]).classes_.tolist() == sorted(NAMES[1:])
    again = clone(WarmStartClassifier.load(tmp_path / 'mine.safetensors')).set_params(
        source=None, max_epochs=1, batch_size=4
    )
    assert len(again.fit(x, np.arange(len(x)) % 4).classes_) == 4


def test_paths_may_come_in_an_array(fitted, tmp_path):
    files = sorted(map(str, write_folder(tmp_path).rglob('*.png')))[:4]
    expected = fitted.predict_proba(files)
    for kind in (str, object):
        assert (fitted.predict_proba(np.array(files, kind)) == expected).all()


def test_the_file_of_a_network_is_no_supernet(fitted, tmp_path):
    fitted.save(tmp_path / 'mine.safetensors')
    with pytest.raises(SupernetFileError, match='holds a network, not a supernet; the supernet that it was found in'):
        Supernet.load(tmp_path / 'mine.safetensors')


def test_a_file_that_names_code_is_refused(fitted, tmp_path):
    path = tmp_path / 'mine.safetensors'
    replace(fitted.network_, space={'name': 'helpers.tiny:OwnSpace', 'arguments': {}}).save(path)
    with pytest.raises(SupernetFileError, match='a network of an unknown model space'):
        WarmStartClassifier.load(path)


@pytest.mark.parametrize(
    'wrong',
    [
        {'mean': ['x', 0.0, 0.0]}, {'std': [1.0]}, {'mean': [float('inf')] * 3}, {'pictures': (3, 10**6)},
        {'pictures': (3,)}, {'class_names': [1, 2, 3]},
    ],
)  # fmt: skip
def test_a_malformed_card_is_one_line(fitted, tmp_path, wrong):
    path = tmp_path / 'mine.safetensors'
    replace(fitted.network_, **wrong).save(path)
    with pytest.raises(SupernetFileError, match=next(iter(wrong))):
        Network.load(path)


def test_the_network_is_built_once(fitted, monkeypatch):
    x, _ = colour(6)
    expected = fitted.predict_proba(x)
    again = pickle.loads(pickle.dumps(fitted))
    assert vars(again).keys() == vars(fitted).keys() - {'_built'}
    built, calls = Network.build, []
    monkeypatch.setattr(Network, 'build', lambda self, space=None: (calls.append(1), built(self, space))[1])
    for _ in range(2):
        assert (again.predict_proba(x) == expected).all()
    assert len(calls) == 1


def test_a_space_of_ones_own(tmp_path, monkeypatch):
    """The file does not choose the code; the parameter does."""
    monkeypatch.chdir(tmp_path)
    found = WarmStartClassifier('helpers.tiny:OwnSpace', **{**TINY, 'space_arguments': {'image_size': 8}, 'max_epochs': 1})
    x, y = colour(48)
    found.fit(x, y).save('own.safetensors')
    again = WarmStartClassifier.load('own.safetensors', space='helpers.tiny:OwnSpace', space_arguments={'image_size': 8})
    assert (again.predict_proba(x) == found.predict_proba(x)).all()


def test_stages_are_told_if_they_are_asked_for(capsys):
    WarmStartClassifier(**TINY, verbose=True).fit(*colour(96))
    assert '1/2 Search: WarmStartDARTS in nasbench201, 2 epochs\n' in capsys.readouterr().out
    WarmStartClassifier(**TINY).fit(*colour(96))
    shown = capsys.readouterr()
    assert shown.out == '' and 'Fit with' not in shown.err


def test_labels_are_given_with_images_and_not_with_folders(fitted, tmp_path):
    folder = write_folder(tmp_path)
    assert fitted.score(folder) > 0.6
    with pytest.raises(DataError, match='y is given beside a folder'):
        fitted.score(folder, ['up left'] * 16)
    with pytest.raises(DataError, match='y is missing'):
        fitted.score(colour(4)[0])
    with pytest.raises(ConfigError, match=r"data.on_error = 'skip' is for a folder of images"):
        WarmStartClassifier(**TINY, settings={'data.on_error': 'skip'}).fit(*colour(24))


def test_a_folder_is_scored_with_the_settings_of_the_fit(tmp_path):
    folder = write_folder(tmp_path)
    for part in ('train', 'test'):
        next((folder / part).rglob('*.png')).write_bytes(b'no image')
    settings = {'data.on_error': 'skip', 'data.label': 'mine'}
    classifier = WarmStartClassifier(**{**TINY, 'max_epochs': 1}, settings=settings).fit(folder)
    assert classifier.result_['data'] == 'mine'
    assert 0 <= classifier.score(folder) <= 1
    with pytest.raises(DataError, match='cannot be read'):
        classifier.set_params(settings=None).score(folder)
