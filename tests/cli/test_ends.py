"""How commands end: an exit status that tells what happened, and one honest line."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from helpers.commands import search
from helpers.tiny import SMALL, save_npz

from nni_warmstart import Supernet
from nni_warmstart.cli import main
from nni_warmstart.cli.main import status_of

LONG = ['--set', 'evaluator.max_epochs=500']

processes = multiprocessing.get_context('forkserver')
processes.set_forkserver_preload(['nni_warmstart.cli', 'nni_warmstart.runs.search', 'nni_warmstart.runs.retrain'])


def command(arguments: list[str], messages: str) -> None:
    """A command as from a shell, which leaves its standard error in a file."""
    with open(messages, 'w') as file:
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(arguments))


def trial(arguments: list[str], messages: str) -> None:
    from nni_warmstart.trial import main as of_trial

    with open(messages, 'w') as file:
        os.dup2(file.fileno(), 2)
    os.chdir(Path(messages).parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
    sys.exit(of_trial(arguments))


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp('searched')
    save_npz(folder / 'shapes.npz', n=36)
    (folder / 'search.yml').write_text(yaml.safe_dump(SMALL))
    long = {**SMALL, 'evaluator': {**SMALL['evaluator'], 'max_epochs': 500}}
    (folder / 'trial.yml').write_text(yaml.safe_dump(long))  # trials have no --set
    document = {'data': [SMALL['data']], 'space': SMALL['space'], 'evaluator': {'steps_per_epoch': 2}}
    (folder / 'pretrain.yml').write_text(yaml.safe_dump(document))
    assert search(folder, '--set', 'evaluator.max_epochs=1') == 0
    return folder


def waits_for(path: Path, process) -> None:
    while not path.exists():
        assert process.is_alive()
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['search', 'retrain', 'pretrain', 'trial'])
@pytest.mark.parametrize(
    ('number', 'status', 'word'), [(signal.SIGTERM, 143, 'terminated'), (signal.SIGINT, 130, 'interrupted')]
)
def test_a_signal_is_told_by_the_status(searched, tmp_path, kind, number, status, word):
    """Before training, in it, and whenever the signal comes."""
    config, out = ['--config', str(searched / 'search.yml')], ['--out', str(tmp_path)]
    arguments = {
        'search': ['search', *config, *out, *LONG],
        'retrain': ['retrain', *config, *out, *LONG, '--run', str(searched / 'out')],
        'pretrain': ['pretrain', '--config', str(searched / 'pretrain.yml'), *out, *LONG, '--name', 'a', '--zoo', 'z'],
        'trial': ['--config', str(searched / 'trial.yml')],
    }[kind]
    for awaited in ('run.json', 'checkpoints/last.ckpt'):
        run = trial if kind == 'trial' else command
        again = ['--overwrite'] if awaited != 'run.json' else []
        process = processes.Process(target=run, args=([*arguments, *again], str(tmp_path / 'messages')))
        if awaited != 'run.json':
            (tmp_path / 'run.json').unlink()
        process.start()
        if kind == 'trial' and awaited != 'run.json':
            waits_for(tmp_path / 'run.json', process)
        else:
            waits_for(tmp_path / awaited, process)
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == status
        assert (tmp_path / 'messages').read_text().strip().splitlines()[-1] == word
        assert not (tmp_path / 'result.json').exists() and not (tmp_path / '.run.holder').exists()


def test_statuses():
    def raising(error):
        def action():
            raise error

        return status_of(action)

    assert status_of(lambda: None) == 0
    assert status_of(lambda: 3) == 3
    assert raising(KeyboardInterrupt()) == 130
    assert raising(OSError(errno.ENOSPC, 'No space left on device')) == 1

    def lightnings():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert status_of(lightnings) == 130
    with pytest.raises(SystemExit):
        status_of(lambda: sys.exit(1))
    before = signal.getsignal(signal.SIGTERM)
    assert status_of(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert signal.getsignal(signal.SIGTERM) == before


@contextmanager
def unprivileged():
    """Act as a user whom permissions bind, also where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def place(searched):
    """A copy of the search that everybody may enter and write."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(searched, Path(folder) / 'x')
        for path in [Path(folder), *Path(folder).rglob('*')]:
            path.chmod(0o777)
        yield Path(folder) / 'x'


REFUSED = [
    # what is withdrawn, the command, what the line says
    ('out/checkpoints/last.ckpt', 'search --resume', 'last.ckpt cannot be read: Permission denied.'),
    ('out/settings.json', 'search --resume', 'Permission denied'),
    ('out/checkpoints', 'search --resume', 'checkpoints cannot be written'),
    ('out', 'search --resume', 'cannot be written'),
    ('shapes.npz', 'search --overwrite', 'shapes.npz cannot be read: Permission denied.'),
    ('search.yml', 'search --overwrite', 'search.yml cannot be read: Permission denied.'),
    ('out/architecture.json', 'retrain', 'architecture.json cannot be read (Permission denied)'),
    ('out/supernet.safetensors', 'retrain --weights inherited', 'Permission denied'),
    ('out/settings.json', 'retrain', 'Permission denied'),
    ('out/result.json', 'report', 'Permission denied'),
    ('out/checkpoints/last.ckpt', 'report', 'Permission denied'),
    ('zoo/mine.safetensors', 'zoo show mine', 'Permission denied'),
    ('zoo', 'zoo list', 'Permission denied'),
    ('zoo', 'zoo add', 'cannot be written'),
    ('out/supernet.safetensors', 'zoo add', 'Permission denied'),
]


@pytest.mark.parametrize(('withdrawn', 'words', 'message'), REFUSED, ids=[f'{b}: {a}' for a, b, _ in REFUSED])
def test_what_may_not_be_read_or_written_is_not_called_damaged(place, capsys, withdrawn, words, message):
    (place / 'zoo').mkdir()
    Supernet.load(place / 'out' / 'supernet.safetensors').save(place / 'zoo' / 'mine.safetensors')
    (place / 'zoo').chmod(0o777)
    name, *more = words.split()
    config, out, zoo = ['--config', str(place / 'search.yml')], str(place / 'out'), ['--zoo', str(place / 'zoo')]
    arguments = {
        'search': [*config, '--out', out, '--set', 'evaluator.max_epochs=2'],
        'retrain': [*config, '--run', out, '--out', str(place / 'net')],
        'report': [out, '--out', str(place / 'page.html')],
        'zoo': [*zoo, *([str(place / 'out' / 'supernet.safetensors')] if more == ['add'] else [])],
    }[name]
    (place / withdrawn).chmod(0)
    try:
        with unprivileged():
            status = main([name, *more[:1], *arguments, *more[1:]] if name == 'zoo' else [name, *arguments, *more])
    finally:
        (place / withdrawn).chmod(0o777)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status in (1, 2)
    assert error.startswith('error: ') and message in error, error
    assert 'delete' not in error and 'damaged' not in error


@pytest.mark.parametrize(
    ('number', 'message'), [(errno.EACCES, 'Permission denied'), (errno.EIO, 'Input/output error'), (errno.ESTALE, 'Stale')]
)
def test_a_checkpoint_that_cannot_be_read_says_why(searched, monkeypatch, capsys, number, message):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(torch, 'load', fail)
    assert search(searched, '--resume', '--set', 'evaluator.max_epochs=2') == 2
    error = capsys.readouterr().err
    assert f'last.ckpt cannot be read: {message}' in error and 'delete' not in error


def test_too_little_memory_is_not_called_damaged(searched, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(torch, 'load', fail)
    assert search(searched, '--resume', '--set', 'evaluator.max_epochs=2') == 2
    error = capsys.readouterr().err
    assert 'does not fit into the memory of this machine' in error and 'delete' not in error
