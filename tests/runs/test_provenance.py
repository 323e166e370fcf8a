"""A run is tied together: by a lock, and by its identity, settings, data and source when it goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, make_task, save_npz, small_space
from hypothesis import given, settings
from hypothesis import strategies as some
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import IterableDataset, Subset, TensorDataset

from nni_warmstart import ConfigError, Supernet, SupernetZoo, WarmStartDARTS
from nni_warmstart.cli import main
from nni_warmstart.data import fingerprint as marks
from nni_warmstart.data import split
from nni_warmstart.evaluators.checkpoints import every_epoch
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.runs.provenance import Provenance
from nni_warmstart.utils.locking import locked
from nni_warmstart.zoo.recognition import changed_sources

processes = multiprocessing.get_context('forkserver')
processes.set_forkserver_preload(['nni_warmstart.cli', 'nni_warmstart.runs.search'])


def hold(folder: str) -> None:
    with locked(Path(folder)):
        time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder."""
    process = processes.Process(target=hold, args=(str(tmp_path),))
    process.start()
    while not (tmp_path / '.run.holder').exists() or not (tmp_path / '.run.holder').read_text():
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_a_folder_is_held_by_one_process_and_free_again_after_a_kill(tmp_path, holder):
    with pytest.raises(ConfigError) as error, locked(tmp_path):
        pass
    assert f'is in use by process {holder.pid} on {socket.gethostname()}, which began at' in str(error.value)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with locked(tmp_path), pytest.raises(ConfigError, match=f'process {os.getpid()} '), locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['.run.lock']


@pytest.mark.parametrize('command', ['search', 'retrain', 'pretrain'])
def test_a_second_run_in_a_folder_is_one_line(folder, tmp_path, holder, capsys, command):
    (folder / 'pretrain.yml').write_text(yaml.safe_dump({'data': [SMALL['data']], 'space': SMALL['space']}))
    config = ['--config', str(folder / ('pretrain.yml' if command == 'pretrain' else 'search.yml'))]
    more = {'search': [], 'retrain': ['--run', 'x'], 'pretrain': ['--name', 'a', '--zoo', str(folder / 'zoo')]}[command]
    for flag in ([], ['--resume'], ['--overwrite']):
        assert main([command, *config, *more, '--out', str(tmp_path), *flag]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f'error: {tmp_path} is in use by process {holder.pid} on ')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A search, a retraining and a pretraining of one epoch, of which another may follow."""
    folder = tmp_path_factory.mktemp('runs')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump(SMALL))
    document = {'data': [SMALL['data']], 'space': SMALL['space'], 'evaluator': {'max_epochs': 1, 'steps_per_epoch': 2}}
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(document))
    assert search(folder, '--set', 'evaluator.max_epochs=1') == 0
    for command in (going_on(folder, kind, resume=False) for kind in ('retrain', 'pretrain')):
        assert main(command) == 0
    return folder


@pytest.fixture
def again(runs, tmp_path):
    """A copy of them."""
    shutil.copytree(runs, tmp_path / 'again')
    return tmp_path / 'again'


KINDS = ['search', 'retrain', 'pretrain']


def going_on(folder: Path, kind: str, *, resume: bool = True) -> list[str]:
    """The command of one epoch, or of a second one."""
    config, out = str(folder / 'search.yml'), str(folder / 'out')
    places = {
        'search': ['--config', config, '--out', out],
        'retrain': ['--config', config, '--run', out, '--out', str(folder / 'net')],
        'pretrain': ['--config', str(folder / 'pretrain.yml'), '--name', 'both', '--zoo', str(folder / 'zoo'), '--out',
                     str(folder / 'both')],
    }  # fmt: skip
    return [kind, *places[kind], '--set', f'evaluator.max_epochs={1 + resume}', *(['--resume'] if resume else [])]


def refused(capsys, command: list[str], *messages: str) -> None:
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ')
    assert all(message in error for message in messages), error


def exchange(path: Path, change: str) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    if change == 'pixels':
        arrays['train_x'][3, 0, 0, 0] ^= 1
    elif change == 'labels':
        arrays['train_y'] = arrays['train_y'][::-1]
    elif change == 'number':
        arrays['train_x'], arrays['train_y'] = arrays['train_x'][:30], arrays['train_y'][:30]
    elif change == 'names':
        arrays['class_names'] = arrays['class_names'][::-1]
    else:
        arrays['test_x'] = arrays['test_x'][::-1]
    np.savez(path, **arrays)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('change', 'part'),
    [('pixels', 'training images'), ('labels', 'training labels'), ('number', 'training images'), ('names', 'class names'),
     ('test', 'test images')],
)  # fmt: skip
def test_exchanged_data_are_one_line(again, capsys, kind, change, part):
    exchange(again / 'shapes.npz', change)
    before = {path: path.read_bytes() for path in again.rglob('*') if path.is_file()}
    refused(capsys, going_on(again, kind), 'began with other data: ' + part, 'put them back, or choose another --out')
    assert {path: path.read_bytes() for path in again.rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('kind', KINDS)
def test_changed_settings_are_one_line(again, capsys, kind):
    """Also where settings.json is lost, or was edited: the checkpoint has its own."""
    out = {'search': 'out', 'retrain': 'net', 'pretrain': 'both'}[kind]
    refused(capsys, [*going_on(again, kind), '--seed', '7'], 'has seed = 0 and should go on with 7')
    path = again / out / 'settings.json'
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, 'seed': 7}))
    refused(capsys, [*going_on(again, kind), '--seed', '7'], 'has seed = 0 and should go on with 7')
    path.unlink()
    rate = ['--set', 'evaluator.learning_rate=0.2']
    refused(capsys, [*going_on(again, kind), *rate], 'has evaluator.learning_rate = 0.05 and should go on with 0.2')


def test_a_checkpoint_of_another_run_is_one_line(again, capsys):
    assert search(again, '--out', str(again / 'other'), '--set', 'evaluator.max_epochs=1') == 0
    shutil.copy(again / 'other' / 'checkpoints' / 'last.ckpt', again / 'out' / 'checkpoints' / 'last.ckpt')
    refused(capsys, going_on(again, 'search'), 'last.ckpt is not of the run that run.json names; put its own back')


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_runs_go_on_under_their_identity(again, kind):
    out = again / {'search': 'out', 'retrain': 'net', 'pretrain': 'both'}[kind]
    run = json.loads((out / 'run.json').read_text())['id']
    assert main(going_on(again, kind)) == 0
    assert json.loads((out / 'run.json').read_text())['id'] == run
    if kind == 'pretrain':
        assert SupernetZoo(again / 'zoo')['both'].run == run
    else:
        result = json.loads((out / 'result.json').read_text())
        assert result['run']['id'] == run
        assert len(result['curve']) == 2
    checkpoint = torch.load(out / 'checkpoints' / 'last.ckpt', weights_only=True)
    assert checkpoint['callbacks']['nni_warmstart.run']['run'] == run


@pytest.mark.slow
@pytest.mark.parametrize('source', ['first', 'nearest', 'first.safetensors'])
def test_a_source_that_has_changed_is_one_line(again, capsys, source):
    """One that is gone is not needed any more; see test_a_resumed_search_keeps_its_source."""
    zoo = SupernetZoo(again / 'zoo')
    zoo.remove('both')
    zoo.add(Supernet.load(again / 'out' / 'supernet.safetensors').renamed('first'))
    shutil.copy(zoo.path('first'), again)
    strategy = f'strategy={{name: WarmStartDARTS, source: {source}, zoo: {zoo.root}}}'
    warm = ['--set', strategy, '--set', 'evaluator.max_epochs=1']
    assert search(again, *warm) == 0
    resumed = ['search', '--config', str(again / 'search.yml'), '--out', str(again / 'out'), *warm, '--resume']
    assert main(resumed) == 0  # unchanged
    assert search(again, '--out', str(again / 'other'), '--seed', '4') == 0
    other = Supernet.load(again / 'other' / 'supernet.safetensors').renamed('first')
    other.save(again / 'first.safetensors')
    zoo.add(other)
    refused(capsys, resumed, 'began with other weights of its source', 'first')
    assert changed_sources(source, zoo, {}) == []  # of an older version
    zoo.remove('first')
    assert changed_sources('nearest', zoo, {'first': 'supernet:0'}) == []


# -- in Python -------------------------------------------------------------------------------------------------------


def test_a_search_in_python_warns_where_it_goes_on_with_something_else(tmp_path, caplog):
    def go(task, epochs: int, resume: bool, **arguments) -> None:
        torch.manual_seed(0)
        trainer = make_trainer(epochs, tmp_path, progress=False, callbacks=[every_epoch(tmp_path / 'kept.ckpt')])
        evaluator = classification(split(task), task.num_classes, trainer, batch_size=8, learning_rate=0.05)
        strategy = WarmStartDARTS(**arguments)
        if resume:
            strategy.resume_from(tmp_path / 'kept.ckpt')
        strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())

    go(make_task(), 1, False)
    go(make_task(), 2, True)
    assert 'goes on with' not in caplog.text
    go(make_task(seed=1), 3, True, parameter_free_cap=1)
    found = [record.getMessage() for record in caplog.records if 'goes on with' in record.getMessage()]
    assert any('goes on with training data 1 = uint8 18x3x8x8 ' in message for message in found)
    assert 'The search goes on with parameter_free_cap = 1, and it began with None.' in found


# -- fingerprints ----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    shape=some.lists(some.integers(0, 4), min_size=0, max_size=4),
    dtype=some.sampled_from([torch.uint8, torch.int64, torch.float32, torch.float64, torch.bool, torch.float16]),
    most=some.integers(1, 64),
)
def test_equal_tensors_have_equal_fingerprints(shape, dtype, most):
    tensor = (torch.randn(shape) * 3).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, 'MOST_BYTES', most)
        mark = marks.of_tensor(tensor)
        assert mark == marks.of_tensor(tensor.clone()) == marks.of_tensor(tensor.transpose(0, -1).transpose(0, -1))
        assert mark != marks.of_tensor(tensor.double() if dtype != torch.float64 else tensor.float())
        assert mark != marks.of_tensor(torch.zeros(5, *shape, dtype=dtype))
    full = marks.of_tensor(tensor)
    if tensor.numel():
        changed = tensor.clone().reshape(-1)
        changed[-1] = not changed[-1] if dtype == torch.bool else changed[-1] + 1
        assert full != marks.of_tensor(changed.reshape(shape))


def test_fingerprints_of_large_data_are_cheap():
    images = torch.randint(0, 255, (9_000, 3, 64, 64), dtype=torch.uint8)  # 110 MB
    began = time.perf_counter()
    mark = marks.of_tensor(images)
    assert time.perf_counter() - began < 5  # 0.1 s on an idle machine
    images[0, 0, 0, 0] += 1
    assert mark != marks.of_tensor(images)
    assert mark != marks.of_tensor(images.flip(0))


def test_datasets_of_torch_are_not_read():
    class Stream(IterableDataset):
        def __iter__(self):
            raise AssertionError

    x, y = torch.arange(6.0).view(3, 2), torch.arange(3)
    whole = TensorDataset(x, y)
    assert marks.of_dataset(whole) == f'{marks.of_tensor(x)}, {marks.of_tensor(y)}'
    assert marks.of_dataset(Subset(whole, [0, 1])) != marks.of_dataset(Subset(whole, [0, 2]))
    assert marks.of_dataset(Stream()) == 'Stream'
    assert marks.of_dataset(TensorDataset(x.to_sparse())) == 'TensorDataset of 3'
    assert marks.of_dataset(Subset([1, 2], ['a', 'b'])) == 'Subset of 2'
    assert marks.of_dataset([1, 2]) == 'list of 2'


@pytest.mark.parametrize('key', ['num_workers', 'prefetch'])
def test_a_search_goes_on_with_other_workers_and_a_pretraining_does_not(key):
    evaluator, other = {'max_epochs': 2}, {'max_epochs': 3, key: 1}
    elsewhere = {'arguments': {'save_to': 'other'}}
    Provenance.of({'data': {}, 'evaluator': other, 'strategy': elsewhere}, {}).check_goes_on(
        Provenance.of({'data': {}, 'evaluator': evaluator}, {}), 'out'
    )
    joint = Provenance.of({'data': [{}], 'evaluator': evaluator}, {})
    with pytest.raises(ConfigError, match=rf'the run in out has evaluator\.{key} = \d and should go on with 1'):
        Provenance.of({'data': [{}], 'evaluator': other}, {}).check_goes_on(joint, 'out')


def test_the_first_difference_of_a_list_of_datasets_is_named():
    def pretraining(*data: dict, **evaluator: float) -> Provenance:
        return Provenance.of({'data': data, 'evaluator': {'max_epochs': 2, **evaluator}, 'seed': 0}, {})

    one, two, three = ({'npz': {'path': f'{name}.npz'}} for name in ('a', 'b', 'c'))
    earlier = pretraining(one, two)
    # as an older version wrote them, without settings that there were not yet
    pretraining({**one, 'weight': 1.0}, {**two, 'flip': False}, jitter=0.15, drop_path=0.0).check_goes_on(earlier, 'out')
    for data, message in (
        ((one, {**two, 'weight': 2.0}), r'data\[1\]\.weight = 1\.0 and should go on with 2\.0;'),
        ((two, one), r"data\[0\]\.npz\.path = 'a\.npz' and should go on with 'b\.npz';"),
        ((one, two, three), "data = '2 datasets' and should go on with '3 datasets, c';"),
        ((one,), "data = '2 datasets, b' and should go on with '1 dataset';"),
    ):
        with pytest.raises(ConfigError, match=f'the run in out has {message}'):
            pretraining(*data).check_goes_on(earlier, 'out')
