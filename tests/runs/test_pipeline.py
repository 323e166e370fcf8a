"""From images to a trained network: one command does what search and retrain do, and goes on wherever it was killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.killed import killed, processes
from helpers.tiny import SMALL, save_npz

from nni_warmstart import Supernet
from nni_warmstart.cli import main
from nni_warmstart.data import from_npz
from nni_warmstart.supernets.network import Network


def words(folder: Path, *more: str, out: str = 'whole') -> list[str]:
    return ['run', '--config', str(folder / 'search.yml'), '--out', str(folder / out), *more]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    """A pipeline in ``whole``, exported."""
    folder = tmp_path_factory.mktemp('ran')
    save_npz(folder / 'shapes.npz', n=36)
    evaluator = {**SMALL['evaluator'], 'max_epochs': 3}
    (folder / 'search.yml').write_text(yaml.safe_dump({**SMALL, 'evaluator': evaluator}))
    assert main(words(folder, '--export', 'pt2')) == 0
    return folder


@pytest.fixture
def again(ran, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(ran, tmp_path / 'again'))


def same_tensors(cls: Any, one: Path, other: Path) -> bool:
    tensors = [cls.load(path).tensors for path in (one, other)]
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0]
    )


def without_clocks(value: Any) -> Any:
    """The same without what differs between runs: seconds, milliseconds, and names of runs."""
    clocks = ('seconds', 'latency_ms')
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if not any(c in k for c in clocks) and k != 'run'}
    return [without_clocks(each) for each in value] if isinstance(value, list) else value


def equal(one: Path, other: Path) -> None:
    """Check that two pipelines have ended at the same bits."""
    assert same_tensors(Supernet, one / 'search/supernet.safetensors', other / 'search/supernet.safetensors')
    assert same_tensors(Network, one / 'network/network.safetensors', other / 'network/network.safetensors')
    for name in ('result.json', 'search/result.json', 'network/result.json'):
        assert without_clocks(read(one / name)) == without_clocks(read(other / name)), name


@pytest.mark.slow
def test_it_does_what_search_and_retrain_do(ran, capsys):
    config = ['--config', str(ran / 'search.yml')]
    assert main(['search', *config, '--out', str(ran / 'alone')]) == 0
    inherited = ['--weights', 'inherited', '--export', 'pt2']
    assert main(['retrain', *config, '--run', str(ran / 'alone'), '--out', str(ran / 'net'), *inherited]) == 0
    whole = ran / 'whole'
    assert same_tensors(Supernet, ran / 'alone/supernet.safetensors', whole / 'search/supernet.safetensors')
    assert same_tensors(Network, ran / 'net/network.safetensors', whole / 'network/network.safetensors')
    assert without_clocks(read(ran / 'alone/result.json')) == without_clocks(read(whole / 'search/result.json'))
    assert without_clocks(read(ran / 'net/result.json')) == without_clocks(read(whole / 'network/result.json'))


def test_the_result_sums_up_both_stages(ran):
    whole = ran / 'whole'
    result, found, trained = (read(whole / name) for name in ('result.json', 'search/result.json', 'network/result.json'))
    assert result['supernet']['accuracy'] == found['final']['test_accuracy']
    assert result['network']['accuracy'] == trained['accuracy'] == trained['curve'][-1]
    assert (result['supernet']['measured_on'], result['network']['measured_on']) == ('test', 'test')
    assert (result['supernet']['seconds'], result['network']['seconds']) == (found['seconds'], trained['seconds'])
    assert result['architecture'] == read(whole / 'search/architecture.json')['sample']
    assert result['network']['files'] == ['network/network.safetensors', 'network/network.pt2']
    assert all((whole / name).is_file() for name in (*result['network']['files'], result['supernet']['file']))
    assert result['run']['network'] == read(whole / 'network/run.json')['id']
    # Its card is enough to use the exported network.
    card, images = result['network'], torch.randint(0, 255, (2, 3, 8, 8)).float()
    mean, std = (torch.tensor(card[key]).view(-1, 1, 1) for key in ('mean', 'std'))
    logits = torch.export.load(whole / 'network/network.pt2').module()((images - mean) / std)
    assert logits.shape == (2, len(card['class_names'])) and card['image_shape'] == [3, 8]


def test_the_accuracy_is_that_of_the_network_that_is_written(ran):
    card, task = read(ran / 'whole/result.json')['network'], from_npz(ran / 'shapes.npz').adapted(3, 8)
    mean, std = (torch.tensor(card[key]).view(-1, 1, 1) for key in ('mean', 'std'))
    program = torch.export.load(ran / 'whole/network/network.pt2').module()
    predicted = program((task.test_x.float() - mean) / std).argmax(1)
    assert float((predicted == task.test_y).float().mean()) == pytest.approx(card['accuracy'])


def test_the_end_is_a_table(again, capsys):
    assert main(words(again, '--resume')) == 0
    shown, result = capsys.readouterr().out, read(again / 'whole/result.json')
    assert shown.splitlines()[0] == '1/2 Search: DARTS in nasbench201, 3 epochs'
    assert '2/2 Network: 3 epochs, inherited weights' in shown
    for stage in ('supernet', 'network'):
        assert f'{result[stage]["accuracy"]:.4f}' in shown and f'{result[stage]["seconds"]:.1f}' in shown
    assert f'{result["network"]["parameters"]:,} parameters' in shown
    assert f'Network: {again}/whole/network/network.safetensors' in shown
    assert f'Results in {again}/whole/result.json; nni-warmstart report {again}/whole' in shown


def test_what_is_finished_is_not_repeated(again, capsys, monkeypatch):
    monkeypatch.setattr('nni_warmstart.runs.search.set_up', lambda *_: 1 / 0)
    before = {path: path.read_bytes() for path in again.rglob('*.safetensors')}
    for name in ('result.json', 'network/result.json'):
        result = read(again / 'whole' / name)
        assert main(words(again, '--resume', '--export', 'pt2')) == 0
        found = read(again / 'whole' / name)
        assert without_clocks(found) == without_clocks(result) and found.get('seconds') == result.get('seconds')
    assert {path: path.read_bytes() for path in before} == before
    assert capsys.readouterr().out.count('Finished before: ') == 4


def test_another_export_is_added(ran, again):
    pytest.importorskip('onnxscript')
    assert main(words(again, '--resume', '--export', 'pt2', 'onnx')) == 0
    both = ['network/network.pt2', 'network/network.onnx']
    assert read(again / 'whole/result.json')['network']['files'][1:] == both
    shutil.rmtree(again / 'whole')
    shutil.copytree(ran / 'whole', again / 'whole')
    assert main(words(again, '--resume', '--export', 'onnx')) == 0  # the first one stays
    assert read(again / 'whole/result.json')['network']['files'][1:] == both
    assert all((again / 'whole' / name).is_file() for name in both)


KILLS = {
    'before the search': (('runs/search.py', 'run_search'), 'call', 1),
    'in the first epoch of the search': (('search/record.py', 'look'), 'call', 1),
    'in the last epoch of the search': (('search/record.py', 'look'), 'call', 3),
    'at the end of the search': (('search/ending.py', 'finish'), 'call', 1),
    'between both': (('runs/search.py', 'run_search'), 'return', 1),
    'in the first epoch of the network': (('evaluators/seconds.py', 'state_dict'), 'call', 1),
    'in the last epoch of the network': (('evaluators/seconds.py', 'state_dict'), 'call', 3),
    'at the export': (('supernets/export.py', 'export'), 'call', 1),
    'after both': (('runs/pipeline.py', '_result'), 'call', 1),
}


@pytest.mark.slow
def test_killed_in_any_stage_it_goes_on_to_the_same_result(ran):
    for number, (name, kill) in enumerate(KILLS.items()):
        command = words(ran, '--export', 'pt2', out=f'killed{number}')
        process = processes.Process(target=killed, args=(command, *kill))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, name
        assert not (ran / f'killed{number}' / 'result.json').exists(), name
        assert main([*command, '--resume']) == 0, name
        equal(ran / 'whole', ran / f'killed{number}')


@pytest.mark.slow
def test_killed_again_and_again(ran):
    command = words(ran, '--export', 'pt2', out='often')
    for name in ('in the last epoch of the search', 'in the last epoch of the network', 'at the export'):
        process = processes.Process(target=killed, args=([*command, '--resume'], *KILLS[name]))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, name
    assert main([*command, '--resume']) == 0
    equal(ran / 'whole', ran / 'often')


def test_a_search_that_is_there_goes_on_to_a_network(again):
    shutil.rmtree(again / 'whole/network')
    for name in ('result.json', 'run.json', 'settings.json'):
        (again / 'whole' / name).unlink()
    assert main(words(again, '--resume', '--weights', 'scratch', '--set-network', 'evaluator.max_epochs=1')) == 0
    result = read(again / 'whole/result.json')
    assert (result['supernet']['epochs'], result['network']['epochs']) == (3, 1)
    assert result['network']['weights'] == 'scratch'


def test_a_network_may_be_wider_than_the_search_and_have_a_seed_of_its_own(again):
    wider = ['--weights', 'scratch', '--set-network', 'space.width=6', '--set', 'evaluator.max_epochs=1']
    assert main(words(again, '--overwrite', *wider, '--set-network', 'seed=5')) == 0
    assert [read(again / 'whole' / stage / 'result.json')['seed'] for stage in ('search', 'network')] == [0, 5]
    assert Network.load(again / 'whole/network/network.safetensors').space['arguments']['width'] == 6


def test_what_is_replaced_leaves_nothing_behind(again, monkeypatch):
    """Killed between the stages, the network of the earlier run is not taken for that of the later one."""
    monkeypatch.setattr('nni_warmstart.runs.pipeline.retrain', lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(words(again, '--overwrite', '--seed', '3', '--set', 'evaluator.learning_rate=0.01'))
    assert not (again / 'whole/result.json').exists()
    assert not list((again / 'whole/network').glob('network.*'))
    monkeypatch.undo()
    changed = ['--seed', '3', '--set', 'evaluator.learning_rate=0.01']
    assert main(words(again, *changed)) == 2
    assert main(words(again, '--resume', *changed)) == 0
    assert read(again / 'whole/result.json')['seed'] == 3


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--weights', 'copied'], "weights = 'copied' is unknown; choose one of scratch, inherited."),
        (['--export', 'h5'], "format 'h5' is unknown; choose pt2 or onnx."),
        (['--set-network', 'seed'], '--set-network \'seed\' has no "="; write KEY=VALUE.'),
        (['--set-network', 'seed=['], "--set-network 'seed=[': the value is not YAML."),
        (['--set-network', 'evaluator.epochs=3'], 'key evaluator.epochs is unknown; did you mean max_epochs?'),
        (['--set-network', 'space.width=8'], "so it cannot have weights = 'inherited'; choose 'scratch'."),
        (['--set', 'data.npz.path=nowhere.npz'], 'nowhere.npz does not exist'),
        (['--set', 'space.widht=4'], 'Did you mean width?'),
    ],
)
def test_one_line_for_wrong_input(folder, capsys, more, message):
    """Before the search, where nothing else is needed to know."""
    assert main(words(folder, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    assert message in error
    assert not list(folder.rglob('*.json'))


def test_what_is_in_the_folder_is_refused_in_one_line(ran, tmp_path, capsys):
    def refused(folder: Path, *more: str) -> str:
        assert main(words(folder, *more)) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        return error

    capsys.readouterr()
    assert 'holds a finished pipeline; add --overwrite to replace it' in refused(ran)
    for name, kind in (('search', 'search'), ('network', 'retraining')):
        (tmp_path / name).mkdir()
        shutil.copytree(ran / 'whole' / name, tmp_path / name / 'whole')
        shutil.copy(ran / 'search.yml', tmp_path / name)
        assert f'holds a {kind}, and this is a pipeline; choose another --out.' in refused(tmp_path / name, '--resume')
    (tmp_path / 'foreign/whole/network').mkdir(parents=True)
    (tmp_path / 'foreign/whole/network/result.json').write_text('{}')
    shutil.copy(ran / 'search.yml', tmp_path / 'foreign')
    assert 'network has result.json that no run of nni-warmstart has written' in refused(tmp_path / 'foreign', '--overwrite')
    assert not (tmp_path / 'foreign/whole/search').exists()
    assert 'holds a pipeline, and this is a search' in _error(capsys, ['search', *words(ran)[1:], '--overwrite'])


def _error(capsys, command: list[str]) -> str:
    assert main(command) == 2
    return capsys.readouterr().err


def test_a_search_that_went_on_by_itself_has_another_network(again, capsys):
    """The network of the earlier supernet is not taken for that of the later one."""
    before = read(again / 'whole/network/run.json')['id']
    alone = ['search', '--config', str(again / 'search.yml'), '--out', str(again / 'whole/search'), '--resume']
    assert main([*alone, '--set', 'evaluator.max_epochs=4']) == 0
    shutil.copytree(again / 'whole/network', again / 'copy')
    retraining = ['retrain', '--config', str(again / 'search.yml'), '--run', str(again / 'whole/search')]
    message = f'has gone on since the training in {again / "copy"} began; delete that folder to train the network anew'
    assert message in _error(capsys, [*retraining, '--out', str(again / 'copy'), '--weights', 'inherited', '--resume'])
    capsys.readouterr()
    assert main(words(again, '--resume', '--set', 'evaluator.max_epochs=4', '--set-network', 'evaluator.max_epochs=3')) == 0
    told = ''.join(capsys.readouterr().out.split())  # long paths are wrapped
    assert f'{again / "whole/network/network.pt2"}isoftheearliernetworkandisdeleted' in told
    assert read(again / 'whole/network/run.json')['id'] != before
    assert read(again / 'whole/result.json')['supernet']['epochs'] == 4
    of_pipeline = ['retrain', '--config', str(again / 'search.yml'), '--run', str(again / 'whole')]
    assert main([*of_pipeline, '--out', str(again / 'third'), '--set', 'evaluator.max_epochs=1']) == 0
    assert read(again / 'third/result.json')['run']['search'] == read(again / 'whole/search/run.json')['id']


def test_what_is_finished_needs_no_checkpoint(again, capsys):
    before = {path: path.read_bytes() for path in again.rglob('*.safetensors')}
    for stage in ('search', 'network'):
        (again / 'whole' / stage / 'checkpoints/last.ckpt').unlink()
    assert main(words(again, '--resume', '--export', 'pt2')) == 0
    assert {path: path.read_bytes() for path in before} == before
    gone = f'{again / "whole/search/checkpoints/last.ckpt"} is gone, so that the run cannot go on; put it back, or choose'
    assert gone in _error(capsys, words(again, '--resume', '--set', 'evaluator.max_epochs=4'))


def test_a_network_is_trained_otherwise_without_another_search(again, capsys):
    other = words(again, '--resume', '--weights', 'scratch', '--set-network', 'evaluator.max_epochs=1')
    error = _error(capsys, other)
    assert f'has weights = {"inherited"!r} and should go on with {"scratch"!r}; put it back, or choose another' in error
    assert f'delete {again / "whole/network"} to train the network anew.' in error
    shutil.rmtree(again / 'whole/network')
    assert main(other) == 0 and read(again / 'whole/result.json')['network']['weights'] == 'scratch'
    assert 'has space.width = 4 and should go on with 6' in _error(
        capsys, words(again, '--resume', '--set', 'space.width=6')
    )


def test_a_folder_among_the_images_is_refused(again, capsys):
    (again / 'images/one').mkdir(parents=True)
    inside = words(again, '--set', 'data={folder: {path: images}}', out='images/run')
    assert f'{again / "images/run"} is inside the folder of the images, {again / "images"};' in _error(capsys, inside)
    assert not (again / 'images/run').exists()
    for wrong in ('{}', '{path: 3}', '{path: images, name: x}'):
        assert 'data.folder' in _error(capsys, words(again, '--set', f'data={{folder: {wrong}}}', out='images/run'))


def test_changed_data_are_refused_between_the_stages(again, capsys):
    save_npz(again / 'shapes.npz', n=36, class_names=None)
    (again / 'whole/result.json').unlink()
    assert 'began with other data: class names' in _error(capsys, words(again, '--resume'))


def test_a_search_with_more_epochs_goes_on_and_its_network_begins_anew(again):
    """Neither the result nor the network of fewer epochs is taken for that of more, wherever it is killed."""
    before = read(again / 'whole/network/run.json')['id']
    longer = words(again, '--resume', '--set', 'evaluator.max_epochs=4', '--set-network', 'evaluator.max_epochs=3')
    process = processes.Process(target=killed, args=(longer, *KILLS['between both']))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (again / 'whole/result.json').exists() and not (again / 'whole/network/result.json').exists()
    assert main(longer) == 0
    result = read(again / 'whole/result.json')
    assert (result['supernet']['epochs'], result['network']['epochs']) == (4, 3)
    assert result['architecture'] == read(again / 'whole/search/architecture.json')['sample']
    assert read(again / 'whole/network/run.json')['id'] != before


@pytest.mark.parametrize('where', ['whole', 'whole/search'])
def test_the_report_shows_the_network(ran, tmp_path, where):
    assert main(['report', str(ran / where), '--out', str(tmp_path / 'page.html')]) == 0
    text, result = (tmp_path / 'page.html').read_text(), read(ran / 'whole/result.json')
    assert 'Retrained networks' in text
    assert f'{result["network"]["parameters"]:,} parameters, from inherited' in text


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize('stage', ['search', 'network'])
def test_a_signal_ends_it_in_its_stage(folder, number, status, stage):
    long = {'search': '--set', 'network': '--set-network'}[stage]
    command = [sys.executable, '-m', 'nni_warmstart.cli', *words(folder, long, 'evaluator.max_epochs=500')]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder / 'whole' / stage / 'checkpoints/last.ckpt').exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1].strip().splitlines()[-1] in ('terminated', 'interrupted')
    assert process.returncode == status
    assert (folder / 'whole/network/run.json').exists() == (stage == 'network')
    assert not (folder / 'whole/result.json').exists()


@pytest.mark.slow
def test_a_search_on_two_devices_goes_on_to_a_network(folder):
    devices = ['--set', 'evaluator.devices=2', '--set', 'evaluator.accelerator=cpu']
    command = [sys.executable, '-m', 'nni_warmstart.cli', *words(folder, *devices)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('2/2 Network') == 1
    assert read(folder / 'whole/result.json')['network']['epochs'] == 2
