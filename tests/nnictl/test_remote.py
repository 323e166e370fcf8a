"""More than one machine: NNI's services for machines reached by ssh, for real on the loopback interface, and Kubernetes."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from helpers.experiment import ENVIRONMENT, Experiment, free_port
from helpers.tiny import ROOT
from nni.experiment import ExperimentConfig

from nni_warmstart import SupernetZoo, ZooError
from nni_warmstart.runs.config import parse_search

EXAMPLES = ROOT / 'examples'
SSHD = shutil.which('sshd', path=f'{os.environ["PATH"]}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin')
pytestmark = [pytest.mark.xdist_group('nnictl'), pytest.mark.nnictl, pytest.mark.slow]
needs_sshd = pytest.mark.skipif(SSHD is None, reason='no sshd here: apt-get install openssh-server')
SEPARATION = Path('/run/sshd')
"""Empty folder that root's sshd wants, and that Debian makes when it starts the service; other servers may use it, too."""


class Machine(NamedTuple):
    """What stands for another machine: an ssh server with a home of its own, in which its user may log in again."""

    port: int
    home: Path

    @property
    def key(self) -> Path:
        return self.home / '.ssh' / 'id_ed25519'

    def url(self, folder: Path) -> str:
        return f'sftp://{getpass.getuser()}@127.0.0.1:{self.port}{folder}'

    def listed(self) -> dict[str, Any]:
        """Its item in an experiment's ``machineList``."""
        return {
            'host': '127.0.0.1',
            'port': self.port,
            'user': getpass.getuser(),
            'sshKeyFile': str(self.key),
            'pythonPath': str(Path(sys.executable).parent),
        }


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    found = Machine(free_port(), tmp_path / 'remote')
    found.key.parent.mkdir(parents=True)
    for key in (tmp_path / 'host_key', found.key):
        subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', key], check=True)
    variables = {
        'HOME': found.home,
        'PYTHONPATH': ROOT,
        'OMP_NUM_THREADS': 1,
        'PIP_NO_INDEX': 1,  # NNI upgrades itself by pip on every machine
    }
    settings = {
        'Port': found.port,
        'ListenAddress': '127.0.0.1',
        'HostKey': tmp_path / 'host_key',
        'PidFile': 'none',
        'AuthorizedKeysFile': found.key.with_suffix('.pub'),
        'StrictModes': 'no',  # of a temporary folder, anyone may own the parents
        'UsePAM': 'no',
        'PasswordAuthentication': 'no',
        'Subsystem': 'sftp internal-sftp',
        'SetEnv': ' '.join(f'{name}={value}' for name, value in variables.items()),
    }
    (tmp_path / 'sshd_config').write_text(''.join(f'{name} {value}\n' for name, value in settings.items()))
    if os.geteuid() == 0:
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
    log = tmp_path / 'sshd.log'
    command = [str(SSHD), '-D', '-e', '-f', str(tmp_path / 'sshd_config')]  # in the foreground, so that this is its pid
    with log.open('w') as errors, subprocess.Popen(command, stderr=errors) as server:
        try:
            deadline = time.time() + 60
            while 'Server listening' not in log.read_text():
                assert server.poll() is None and time.time() < deadline, log.read_text()
                time.sleep(0.1)
            yield found
        finally:
            server.terminate()


def hurried(name: str, folder: Path, zoo: str) -> tuple[Path, dict[str, Any]]:
    """A copy of an example with one epoch, small images and another zoo, and its experiment."""
    shutil.copytree(EXAMPLES / name, folder)
    search = yaml.safe_load((folder / 'search.yml').read_text())
    search['evaluator']['max_epochs'] = 1
    search['space']['image_size'] = 8
    search['strategy'] |= {'zoo': zoo, 'save_to': zoo}
    (folder / 'search.yml').write_text(yaml.safe_dump(search))
    return folder, yaml.safe_load((folder / 'warmstart.yml').read_text())


def teach(zoo: str, tmp_path: Path, home: Path) -> None:
    """Add the source, as the example says; its name is in no other zoo."""
    SupernetZoo.shipped()['joint-nasbench201-w8'].save(tmp_path / 'learned.safetensors')
    command = [sys.executable, '-m', 'nni_warmstart.cli', 'zoo', 'add', str(tmp_path / 'learned.safetensors')]
    subprocess.run([*command, '--name', 'teacher', '--zoo', zoo], env={**os.environ, 'HOME': str(home)}, check=True)


def log_of_manager(tmp_path: Path) -> str:
    return ''.join(path.read_text() for path in (tmp_path / 'experiments').glob('[!_]*/log/nnimanager.log'))


@needs_sshd
def test_cold_and_warm_trials_run_on_two_other_machines(machine, tmp_path):
    zoo = tmp_path / 'zoo'
    teach(machine.url(zoo), tmp_path, machine.home)
    folder, document = hurried('remote', tmp_path / 'code', machine.url(zoo))
    document |= {'nniManagerIp': '127.0.0.1', 'trialCodeDirectory': str(folder)}
    document |= {'experimentWorkingDirectory': str(tmp_path / 'experiments')}
    document['trainingService']['machineList'] = [machine.listed(), machine.listed()]
    (tmp_path / 'warmstart.yml').write_text(yaml.safe_dump(document))
    (tmp_path / 'home').mkdir()
    with Experiment(tmp_path / 'warmstart.yml', {**ENVIRONMENT, 'HOME': str(tmp_path / 'home')}) as experiment:
        try:
            jobs = experiment.wait(trials=2, seconds=600)
        except OSError as error:  # the server is gone: no machine could be used
            raise AssertionError(log_of_manager(tmp_path)) from error
        assert [job['status'] for job in jobs] == ['SUCCEEDED', 'SUCCEEDED']
        machines = list((machine.home / 'nni-experiments' / experiment.id / 'environments').iterdir())
        accuracies = {}
        for job in jobs:
            (point,) = experiment.metrics(job['trialJobId'], 'PERIODICAL')
            (final,) = experiment.metrics(job['trialJobId'], 'FINAL')
            assert final['default'] == point['default']
            assert 0 < final['test_accuracy'] <= 1
            (out,) = [path for path in machines if job['logPath'].endswith(f'{path.name}/trials/{job["trialJobId"]}')]
            result = json.loads((out / 'trials' / job['trialJobId'] / 'result.json').read_text())
            accuracies[result['warm_start'] and result['warm_start']['source']] = point['default']
            machines.remove(out)
        assert not machines  # each has run one
        assert accuracies.keys() == {'teacher', None}
        assert accuracies['teacher'] > accuracies[None]
        assert len(SupernetZoo(zoo)) == 3  # both supernets have come back
    for path in machine.home.rglob('trial_keeper.pid'):  # what NNI left running there ends with the experiment
        wait_for_end(int(path.read_text()))


def wait_for_end(pid: int, seconds: float = 60) -> None:
    deadline = time.time() + seconds
    while Path(f'/proc/{pid}').exists():
        assert time.time() < deadline, f'process {pid} still runs'
        time.sleep(0.1)


@needs_sshd
def test_a_zoo_behind_sftp(machine, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(machine.home))
    teach(machine.url(tmp_path / 'zoo'), tmp_path, machine.home)
    zoo = SupernetZoo(machine.url(tmp_path / 'zoo'))
    teacher = zoo['teacher']
    assert zoo.add(teacher) and zoo.names() == ['teacher']
    assert [zoo.add_numbered(teacher, 'net') for _ in range(2)] == ['net-1', 'net-2']
    assert zoo['net-2'].key == teacher.key
    zoo.remove('net-1')
    assert sorted(os.listdir(tmp_path / 'zoo')) == ['net-2.safetensors', 'teacher.safetensors']
    with pytest.raises(ZooError, match=r'cannot be opened: .*Unable to connect'):
        SupernetZoo(f'sftp://127.0.0.1:{free_port()}/zoo')


@needs_sshd
def test_of_searches_that_end_at_once_each_gets_a_number_of_its_own_over_sftp(machine, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(machine.home))
    (tmp_path / 'zoo').mkdir()
    start = threading.Barrier(4)

    def reserve(_: int) -> list[int]:
        zoo = SupernetZoo(machine.url(tmp_path / 'zoo'))  # a connection for each thread
        start.wait()
        return [number for number in range(100) if zoo._store.reserve(zoo._store.path(f'{number}'))]

    with ThreadPoolExecutor(4) as threads:
        got = [number for numbers in threads.map(reserve, range(4)) for number in numbers]
    assert sorted(got) == list(range(100))


@pytest.mark.parametrize('name', ['remote', 'kubeflow'])
def test_examples_are_what_nni_and_we_accept(name, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / '.ssh').mkdir()
    (tmp_path / '.ssh' / 'id_ed25519').touch()
    experiment = ExperimentConfig.load(EXAMPLES / name / 'warmstart.yml').canonical_copy()
    service: Any = experiment.training_service
    assert service.platform == name
    assert service.nni_manager_ip == '192.0.2.1'
    assert '-m nni_warmstart.trial --config search.yml' in service.trial_command
    assert Path(service.trial_code_directory) == EXAMPLES / name
    parse_search(yaml.safe_load((EXAMPLES / name / 'search.yml').read_text()), EXAMPLES / name)


def test_nni_refuses_the_kubernetes_example_with_another_storage():
    document = yaml.safe_load((EXAMPLES / 'kubeflow' / 'warmstart.yml').read_text())
    document['trainingService']['storage'] = {'storageType': 's3'}
    with pytest.raises(ValueError, match='must either be "azureStorage" or "nfs"'):
        ExperimentConfig(**document).canonical_copy()


def test_a_trial_in_a_container_reports_where_nnis_runner_listens(tmp_path):
    """The runner in the container writes the parameters to a file and finds metrics on the trial's standard output."""
    zoo = f'file://{tmp_path}/zoo'
    teach(zoo, tmp_path, tmp_path)
    folder, document = hurried('kubeflow', tmp_path / 'code', zoo)
    parameters = {'parameter_id': 0, 'parameters': {'strategy.source': 'teacher'}}
    (tmp_path / 'parameter.cfg').write_text(json.dumps(parameters))
    environment = {  # as in nni/tools/trial_tool/trial_runner.py and trial.py
        **ENVIRONMENT,
        'NNI_PLATFORM': 'kubeflow',
        'NNI_EXP_ID': 'experiment',
        'NNI_TRIAL_JOB_ID': 'trial',
        'NNI_TRIAL_SEQ_ID': '0',
        'NNI_SYS_DIR': str(tmp_path),
        'NNI_OUTPUT_DIR': str(tmp_path / 'nnioutput'),
        'MULTI_PHASE': 'true',
        'REUSE_MODE': 'true',
    }
    command = document['trialCommand'].replace('OMP_NUM_THREADS=4', 'OMP_NUM_THREADS=1')  # of a pod with four cores
    ended = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = re.findall(r"NNISDK_MEb'(.*)'$", ended.stdout, re.MULTILINE)  # the pattern in log_utils.py there
    metrics = [json.loads(line) for line in lines]
    assert [metric['type'] for metric in metrics] == ['PERIODICAL', 'FINAL']
    assert {metric['trial_job_id'] for metric in metrics} == {'trial'}
    assert 'test_accuracy' in json.loads(metrics[-1]['value'])
    result = json.loads((tmp_path / 'nnioutput' / 'result.json').read_text())
    assert result['warm_start']['source'] == 'teacher'
    assert len(SupernetZoo(zoo)) == 2
