"""The folder of a run: new runs forget older ones, and runs that go on keep their settings and their source."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from helpers.tiny import make_task, small_space
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_warmstart import ConfigError, WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.folder import RESULTS, RunFolder

SETTINGS = {'seed': 1, 'evaluator': {'max_epochs': 2, 'learning_rate': 0.1}, 'base': 'left out'}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    found = RunFolder(tmp_path / 'run')
    found.make()
    found.checkpoint.parent.mkdir()
    for path in (found.checkpoint, *(found.path / name for name in RESULTS)):
        path.write_text('of an older run')
    return found


def test_a_new_run_forgets_an_older_one(folder):
    folder.begin(SETTINGS, resume=True)
    assert folder.has_checkpoint()
    folder.begin(SETTINGS, resume=False)
    assert not folder.has_checkpoint()
    assert [path.name for path in folder.path.iterdir() if path.is_file()] == ['settings.json']
    assert json.loads(folder.settings.read_text()) == {'seed': 1, 'evaluator': SETTINGS['evaluator']}


def test_a_run_goes_on_with_its_settings(folder):
    folder.check_settings(SETTINGS)  # an older version wrote none down
    folder.begin(SETTINGS, resume=True)
    folder.check_settings({**SETTINGS, 'evaluator': {'max_epochs': 3, 'learning_rate': 0.1}})
    with pytest.raises(ConfigError, match=r'has evaluator.learning_rate = 0.1 and should go on with 0.2; put it back'):
        folder.check_settings({**SETTINGS, 'evaluator': {'max_epochs': 2, 'learning_rate': 0.2}})
    folder.settings.write_text('{')
    with pytest.raises(ConfigError, match='is damaged; delete it to go on with these settings'):
        folder.check_settings(SETTINGS)


def test_a_run_of_an_older_version_goes_on(folder):
    """Its file lacks settings that came later."""
    older = {'data': {'name': 'digits'}, 'evaluator': {'max_epochs': 2, 'devices': 1}, 'seed': 0}
    folder.begin(older, resume=True)
    config = parse_search({'data': {'name': 'digits'}, 'evaluator': {'num_workers': 2, 'prefetch': 4}}, folder.path)
    now = {'data': asdict(config.data), 'evaluator': asdict(config.evaluator), 'seed': 0}
    folder.check_settings(now)
    with pytest.raises(ConfigError, match=r'has data.cache_mb = 512.0 and should go on with 1.0'):
        folder.check_settings({**now, 'data': {**now['data'], 'cache_mb': 1.0}})


def test_a_checkpoint_must_fit(folder, caplog):
    model = torch.nn.Linear(2, 3)
    parts = dict.fromkeys(('global_step', 'loops', 'optimizer_states', 'lr_schedulers', 'pytorch-lightning_version'), 0)
    state = {f'net.{name}': tensor for name, tensor in model.state_dict().items()}
    torch.save({**parts, 'epoch': 1, 'state_dict': state}, folder.checkpoint)
    assert folder.checkpoint_for(model, 'net.', 2) == folder.checkpoint
    with pytest.raises(ConfigError, match=r'has 2 epochs and evaluator.max_epochs = 1; raise it'):
        folder.checkpoint_for(model, 'net.', 1)
    with pytest.raises(ConfigError, match='belongs to another run: its tensors differ'):
        folder.checkpoint_for(torch.nn.Linear(2, 4), 'net.', 2)
    folder.checkpoint.unlink()
    assert folder.checkpoint_for(model, 'net.', 2) is None
    assert 'Nothing to resume' in caplog.text


def test_a_resumed_search_starts_from_no_source_and_keeps_what_follows_from_it(folder):
    task = make_task()
    evaluator = classification(split(task), task.num_classes, make_trainer(1, folder.path, progress=False), batch_size=8)
    strategy = WarmStartDARTS(source='which is there no more')
    strategy.resume_from(folder.checkpoint)
    strategy.initialize(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
    assert strategy.report is None
    kept = strategy.settings
    assert (kept.average, kept.refit_head, kept.paced, kept.parameter_free_cap) == (1, True, True, 2)
    assert strategy._mutated_model_space.evaluator.fit_kwargs['ckpt_path'] == str(folder.checkpoint)
