"""The found network: retrained, kept, exported, reloaded."""

from __future__ import annotations

import csv
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers.commands import run_killed_and_resumed, search
from helpers.tiny import SMALL, OwnSpace, make_task, save_npz

from nni_warmstart import ConfigError, Supernet, SupernetFileError, TransferError
from nni_warmstart.cli import main
from nni_warmstart.data.npz import from_npz
from nni_warmstart.evaluators.recalibration import Recalibration
from nni_warmstart.nni_adapter import batchnorm
from nni_warmstart.runs.retrain import learning, some_images, train
from nni_warmstart.supernets.export import export
from nni_warmstart.supernets.network import Network, inherited
from nni_warmstart.warm_start.fitted_network import fitted


def retrain(folder, *arguments: str) -> int:
    places = ['--config', str(folder / 'search.yml'), '--run', str(folder / 'out'), '--out', str(folder / 'net')]
    again = [] if '--resume' in arguments else ['--overwrite']
    return main(['retrain', *places, *again, *arguments])


@pytest.fixture
def searched(folder):
    assert search(folder) == 0
    return folder


@pytest.mark.slow
def test_a_network_is_retrained_and_exported_with_the_same_logits(searched):
    assert retrain(searched, '--export', 'pt2', 'onnx', '--set', 'evaluator.max_epochs=3') == 0
    net = searched / 'net'
    result = json.loads((net / 'result.json').read_text())
    architecture = json.loads((searched / 'out' / 'architecture.json').read_text())['sample']
    assert result['architecture'] == architecture
    assert len(result['curve']) == 3
    assert result['measured_on'] == 'test'
    network = Network.load(net / 'network.safetensors').build()
    assert sum(p.numel() for p in network.parameters()) == result['parameters']
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        logits = network(x)
    assert logits.shape == (5, 3)
    assert torch.equal(torch.export.load(net / 'network.pt2').module()(x), logits)
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(net / 'network.onnx'))
    (theirs,) = session.run(None, {session.input_names[0]: x.numpy()})
    assert torch.allclose(torch.tensor(theirs), logits, atol=1e-4)


@pytest.mark.slow
def test_inherited_weights_are_the_supernets_fitted_on_training_images(searched):
    assert retrain(searched, '--weights', 'inherited', '--set', 'evaluator.learning_rate=0') == 0
    network = Network.load(searched / 'net' / 'network.safetensors').build()
    images = some_images(learning(from_npz(searched / 'shapes.npz').adapted(3, 8), 0.5).train)
    theirs = fitted(Supernet.load(searched / 'out' / 'supernet.safetensors'), images=images)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, dict(theirs.named_parameters())[name])
    assert retrain(searched, '--weights', 'scratch', '--set', 'evaluator.learning_rate=0') == 0
    fresh = Network.load(searched / 'net' / 'network.safetensors').build()
    assert not all(map(torch.equal, network.parameters(), fresh.parameters()))


def test_inherited_weights_are_as_good_as_before_from_the_first_epoch_on(source, tmp_path):
    """The supernet's batch-norm statistics mix all candidates; with few steps they would fade for many epochs."""
    task = make_task(n=64, seed=3)
    network, splits = inherited(source), learning(task, 0.5)
    batch = splits.train[torch.arange(len(splits.train))][0]
    batchnorm.reestimate(network, [batch])
    with torch.no_grad():
        right = network.eval()(splits.val.x.float().sub(splits.val.mean).div(splits.val.std)).argmax(1) == splits.val.y
    for norm in batchnorm.batch_norms(network):
        torch.nn.init.normal_(norm.running_mean)
    settings = {'max_epochs': 2, 'batch_size': len(batch), 'learning_rate': 1e-6}
    curve = train(
        network, splits, 3, settings, tmp_path, callbacks=[Recalibration(splits.train, len(batch))], progress=False
    )
    assert curve == pytest.approx([right.float().mean()] * 2, abs=1e-6)
    assert curve[0] > 0.6
    state = torch.random.get_rng_state()
    Recalibration(splits.train, 8)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_statistics_are_those_of_the_network_after_few_steps(searched):
    for weights in ('inherited', 'scratch'):
        assert retrain(searched, '--weights', weights, '--set', 'evaluator.learning_rate=1e-9') == 0
        network = Network.load(searched / 'net' / 'network.safetensors').build()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        task = from_npz(searched / 'shapes.npz').adapted(3, 8)
        Recalibration(learning(task, 0.5).train, 4).on_validation_start(None, SimpleNamespace(model=network, device='cpu'))
        statistics = {name: tensor for name, tensor in network.state_dict().items() if '.running_' in name}
        assert all(torch.allclose(tensor, before[name], atol=1e-4) for name, tensor in statistics.items())


@pytest.mark.slow
def test_a_killed_retraining_goes_on_to_the_same_network(searched):
    def command(out):
        places = ['--config', str(searched / 'search.yml'), '--run', str(searched / 'out'), '--out', str(out)]
        return ['retrain', *places, '--set', 'evaluator.max_epochs=12']

    run_killed_and_resumed(searched, command, 'network.safetensors')
    whole, resumed = (Network.load(searched / name / 'network.safetensors') for name in ('whole', 'killed'))
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    curves = [json.loads((searched / name / 'result.json').read_text())['curve'] for name in ('whole', 'killed')]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--weights', 'copied'], "weights = 'copied' is unknown; choose one of scratch, inherited."),
        (['--export', 'h5'], "format 'h5' is unknown; choose pt2 or onnx."),
        (['--set', 'space.image_size=1'], 'images of 3 channels and 1 x 1 pixels do not go through'),
        (['--run', 'nowhere'], 'architecture.json cannot be read (No such file or directory); give the folder'),
        (['--set', 'space.width=5', '--weights', 'inherited'], 'does not fit this space'),
        (['--set', 'space={name: darts, width: 4, num_cells: 3, image_size: 8}'], 'cannot be frozen to the architecture'),
    ],
)
def test_one_line_for_wrong_input(searched, capsys, arguments, message):
    assert retrain(searched, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_a_network_without_a_path_is_refused(searched, capsys):
    path = searched / 'out' / 'architecture.json'
    document = json.loads(path.read_text())
    document['sample'] = {label: 'none' if label.endswith('_3') else 'conv_3x3' for label in document['sample']}
    path.write_text(json.dumps(document))
    assert retrain(searched) == 2
    assert 'gives all images the same scores' in capsys.readouterr().err
    assert not (searched / 'net' / 'network.safetensors').exists()


def test_a_file_never_chooses_what_code_runs(searched):
    assert retrain(searched, '--set', 'evaluator.max_epochs=1') == 0
    path = searched / 'net' / 'network.safetensors'
    network = Network.load(path)
    own = Network(**{**vars(network), 'space': {'class': 'os:system'}})
    with pytest.raises(TransferError, match='a file never chooses what code runs'):
        own.build()
    with pytest.raises(TransferError, match='OwnSpace cannot be frozen to the architecture'):
        own.build(OwnSpace())
    with pytest.raises(SupernetFileError):
        Supernet.load(path)
    with pytest.raises(SupernetFileError, match='holds a supernet, not a network'):
        Network.load(searched / 'out' / 'supernet.safetensors')
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(SupernetFileError, match='damaged'):
        Network.load(path)


def test_a_network_that_cannot_be_exported_is_not_lost(searched, monkeypatch, capsys):
    def refuse(network, path, example) -> None:
        raise ConfigError(f'it cannot be exported as {path.name}.')

    monkeypatch.setattr('nni_warmstart.runs.retrain.export', refuse)
    assert retrain(searched, '--export', 'onnx') == 2
    assert 'cannot be exported as network.onnx' in capsys.readouterr().err
    assert json.loads((searched / 'net' / 'result.json').read_text())['files'] == ['network.safetensors']
    Network.load(searched / 'net' / 'network.safetensors').build()


def test_the_folder_of_the_search_is_kept(searched, capsys):
    before = (searched / 'out' / 'result.json').read_bytes()
    assert retrain(searched, '--out', str(searched / 'out' / '.')) == 2
    assert 'is the folder of the search' in capsys.readouterr().err
    assert (searched / 'out' / 'result.json').read_bytes() == before
    assert (searched / 'out' / 'checkpoints' / 'last.ckpt').exists()


def test_an_older_search_of_the_folder_is_not_retrained(searched, monkeypatch, capsys):
    monkeypatch.setattr('nni_warmstart.search.oneshot_module.DartsSearchModule.training_step', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search(searched)
    assert retrain(searched) == 2
    assert 'architecture.json cannot be read' in capsys.readouterr().err
    assert not (searched / 'out' / 'supernet.safetensors').exists()


@pytest.mark.parametrize(('kind', 'oldest'), [('pt2', '2.2'), ('onnx', '2.6')])
def test_an_older_torch_is_named_before_training(searched, monkeypatch, capsys, kind, oldest):
    monkeypatch.setattr(torch, '__version__', '2.1.2+cpu')
    assert retrain(searched, '--export', kind) == 2
    assert f'{kind} files need torch {oldest} or newer; this is 2.1.2+cpu.' in capsys.readouterr().err
    assert not (searched / 'net' / 'settings.json').exists()


def test_a_home_folder_that_the_shell_left_is_put_in(searched, monkeypatch):
    monkeypatch.setenv('HOME', str(searched))
    assert retrain(searched, '--out', '~/net') == 0
    assert (searched / 'net' / 'network.safetensors').exists()


def test_what_cannot_be_exported_says_so(tmp_path):
    class Stubborn(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match='Stubborn cannot be exported as pt2'):
        export(Stubborn(), tmp_path / 'a.pt2', torch.zeros(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_of_another_search_is_refused(searched, capsys):
    """It would make another network of the same architecture, or teach it other data."""
    save_npz(searched / 'others.npz', n=40)
    for change, key, before, now in (
        ({'space': {**SMALL['space'], 'width': 6}}, 'space.width', 4, 6),
        ({'space': {**SMALL['space'], 'depth': 2}}, 'space.depth', 1, 2),
        ({'space': {key: SMALL['space'][key] for key in ('name', 'image_size')}}, 'space.depth', 1, None),
        ({'space': {'name': 'darts', 'width': 4, 'num_cells': 3, 'image_size': 8}}, 'space.depth', 1, None),
        ({'data': {'npz': {'path': 'others.npz'}}}, 'data.npz.path', 'shapes.npz', 'others.npz'),
        ({'data': {'name': 'digits'}}, 'data.name', None, 'digits'),
    ):
        (searched / 'search.yml').write_text(yaml.safe_dump({**SMALL, **change}))
        assert retrain(searched) == 2
        message = (
            f'the search in {searched / "out"} had {key} = {before!r}, and this configuration has {now!r}; give that of'
        )
        assert message in capsys.readouterr().err
    assert not (searched / 'net' / 'settings.json').exists()


def test_what_differs_on_purpose_is_said(searched, caplog):
    """A wider network of the same architecture, as in DARTS; and the same data at another path."""
    (searched / 'moved').mkdir()
    shutil.copy(searched / 'shapes.npz', searched / 'moved' / 'same.npz')
    (searched / 'search.yml').write_text(
        yaml.safe_dump({**SMALL, 'data': {'npz': {'path': 'moved/same.npz'}, 'flip': True}})
    )
    once = ['--set', 'evaluator.max_epochs=1', '--set', 'evaluator.learning_rate=0.01']
    assert retrain(searched, *once) == 0
    assert retrain(searched, *once, '--set', 'data.cache_mb=0') == 0
    assert 'Retraining with' not in caplog.text and 'have changed' not in caplog.text
    assert retrain(searched, *once, '--set', 'space.width=6') == 0
    assert 'Retraining with space.width = 6, where the search had 4.' in caplog.text
    save_npz(searched / 'moved' / 'same.npz', n=40)
    assert retrain(searched, *once, '--set', 'data.npz.path=moved/same.npz') == 0
    assert "Retraining with data.npz.path = 'moved/same.npz', where the search had 'shapes.npz'." in caplog.text
    shutil.copy(searched / 'moved' / 'same.npz', searched / 'shapes.npz')
    (searched / 'search.yml').write_text(yaml.safe_dump(SMALL))
    assert retrain(searched, *once) == 0
    assert 'The data have changed since the search' in caplog.text and 'training images' in caplog.text
    (searched / 'out' / 'settings.json').unlink()  # an older search
    assert retrain(searched, *once, '--set', 'space.width=8') == 0
    (searched / 'out' / 'settings.json').write_text('[')
    assert retrain(searched, *once) == 2


@pytest.mark.parametrize('tested', [True, False])
def test_figures_are_named_after_the_images_that_they_are_measured_on(searched, tested):
    if not tested:
        save_npz(searched / 'shapes.npz', n=36, test_x=None, test_y=None)
        assert search(searched) == 0
    assert retrain(searched, '--set', 'evaluator.max_epochs=2') == 0
    with (searched / 'net' / 'logs' / 'metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    stage, other = ('test', 'val') if tested else ('val', 'test')
    result = json.loads((searched / 'net' / 'result.json').read_text())
    assert [float(row[f'{stage}_acc']) for row in rows if row[f'{stage}_acc']] == pytest.approx(result['curve'])
    assert f'{stage}_loss' in rows[0] and not any(key.startswith(f'{other}_') for key in rows[0])
    assert result['measured_on'] == {'test': 'test', 'val': 'validation'}[stage]


def test_a_retraining_in_a_trial_reports_the_accuracy_on_test_images(searched, monkeypatch):
    reported = []
    monkeypatch.setattr('nni.get_current_parameter', dict)
    monkeypatch.setattr('nni.report_intermediate_result', reported.append)
    monkeypatch.setattr('nni.report_final_result', reported.append)
    assert retrain(searched, '--set', 'evaluator.max_epochs=2') == 0
    curve = json.loads((searched / 'net' / 'result.json').read_text())['curve']
    assert reported == pytest.approx([*curve, curve[-1]])


def test_exports_of_an_earlier_end_do_not_outlive_it(searched, monkeypatch):
    def written(network, path, example):
        path.write_text('exported')

    monkeypatch.setattr('nni_warmstart.runs.retrain.export', written)
    net = searched / 'net'
    assert retrain(searched, '--export', 'onnx', '--set', 'evaluator.max_epochs=1') == 0
    assert (net / 'network.onnx').exists()
    (net / 'network.pt2').write_text('of somebody')
    assert retrain(searched, '--resume', '--set', 'evaluator.max_epochs=2') == 0
    assert not (net / 'network.onnx').exists()
    assert (net / 'network.pt2').read_text() == 'of somebody'
