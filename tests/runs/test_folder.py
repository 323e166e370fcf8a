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
from nni_warmstart.evaluators.checkpoints import check_checkpoint
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.runs.config import parse_search
from nni_warmstart.runs.folder import RunFolder
from nni_warmstart.runs.provenance import Provenance

SETTINGS = {
    'data': {}, 'space': {}, 'strategy': {}, 'seed': 1, 'base': 'left out',
    'evaluator': {'max_epochs': 2, 'learning_rate': 0.1},
}  # fmt: skip


def provenance(data=None, **evaluator) -> Provenance:
    return Provenance.of({**SETTINGS, 'evaluator': {**SETTINGS['evaluator'], **evaluator}}, data or {})


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    found = RunFolder(tmp_path / 'run')
    found.make()
    found.checkpoint.parent.mkdir()
    found.settings.write_text(json.dumps(provenance().settings))
    for path in (found.checkpoint, *(found.path / name for name in found.results)):
        path.write_text('of an older run')
    return found


def test_a_new_run_forgets_an_older_one(folder):
    folder.begin(provenance(), resume=True)
    assert folder.has_checkpoint()
    (folder.path / 'network.onnx').write_text('of somebody else')
    folder.begin(provenance(), resume=False)
    assert not folder.has_checkpoint()
    files = {path.name for path in folder.path.iterdir() if path.is_file()}
    assert files == {'run.json', 'settings.json', 'network.onnx'}
    assert json.loads(folder.settings.read_text()) == {key: value for key, value in SETTINGS.items() if key != 'base'}


def test_a_run_goes_on_with_its_settings(folder):
    folder.checkpoint.unlink()
    folder.resumed(provenance())
    folder.settings.unlink()  # an older version wrote none down
    folder.resumed(provenance())
    folder.begin(provenance(), resume=True)
    folder.resumed(provenance(max_epochs=3))
    with pytest.raises(ConfigError, match=r'has evaluator.learning_rate = 0.1 and should go on with 0.2; put it back'):
        folder.resumed(provenance(learning_rate=0.2))
    folder.settings.write_text('{')
    with pytest.raises(ConfigError, match='is damaged; delete it to go on with these settings'):
        folder.resumed(provenance())


def test_a_run_of_an_older_version_goes_on(folder):
    """Its file lacks settings that came later."""
    older = Provenance.of({'data': {'name': 'digits'}, 'evaluator': {'max_epochs': 2, 'devices': 1}, 'seed': 0}, {})
    config = parse_search({'data': {'name': 'digits'}, 'evaluator': {'num_workers': 2, 'prefetch': 4}}, folder.path)
    now = {'data': asdict(config.data), 'evaluator': asdict(config.evaluator), 'seed': 0}
    Provenance.of(now, {}).check_goes_on(older, 'here')
    with pytest.raises(ConfigError, match=r'has data.cache_mb = 512.0 and should go on with 1.0'):
        Provenance.of({**now, 'data': {**now['data'], 'cache_mb': 1.0}}, {}).check_goes_on(older, 'here')


def test_a_checkpoint_must_fit(folder, caplog):
    model = torch.nn.Linear(2, 3)
    state = {f'net.{name}': tensor for name, tensor in model.state_dict().items()}
    checkpoint = {'epoch': 1, 'state_dict': state}
    check_checkpoint(folder.checkpoint, checkpoint, model, 'net.', 2)
    with pytest.raises(ConfigError, match=r'has 2 epochs and evaluator.max_epochs = 1; raise it'):
        check_checkpoint(folder.checkpoint, checkpoint, model, 'net.', 1)
    with pytest.raises(ConfigError, match='belongs to another run: its tensors differ'):
        check_checkpoint(folder.checkpoint, checkpoint, torch.nn.Linear(2, 4), 'net.', 2)
    with pytest.raises(ConfigError, match='damaged or of another kind'):
        check_checkpoint(folder.checkpoint, {**checkpoint, 'epoch': 'x'}, model, 'net.', 2)
    folder.checkpoint.unlink()
    assert folder.resumed(provenance())[1] is None
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
