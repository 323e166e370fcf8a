"""The one-shot module of a search: constructed, open to modules of the user, and refusing what it cannot add itself to."""

from __future__ import annotations

import pytest
from helpers.tiny import make_task, run, small_space
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS

from nni_warmstart import ConfigError, WarmStartDARTS, WarmStartGumbelDARTS
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.search.oneshot_module import DartsSearchModule, GumbelDartsSearchModule


class OwnModule(DartsSearchModule):
    """Counts the steps."""

    steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return super().training_step(batch, batch_idx)


class Own(WarmStartDARTS):
    search_module = OwnModule


class NniModule(DartsLightningModule):
    """Of a user who has not heard of us."""


class NniStrategy(DARTS):
    def configure_oneshot_module(self, training_module):
        return NniModule(training_module)


class Both(WarmStartDARTS, NniStrategy):
    pass


def test_a_module_of_the_users_own_is_used(tmp_path):
    strategy = run(Own(average=1.0), tmp_path)
    assert type(strategy.oneshot_module) is OwnModule
    assert strategy.oneshot_module.steps == 2 * strategy.oneshot_module.trainer.num_training_batches
    assert len(strategy.curve) == 2


def test_a_module_that_a_search_cannot_be_added_to_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r'Both makes a NniModule.* derive that from DartsSearchModule'):
        run(Both(), tmp_path)


@pytest.mark.parametrize(
    ('strategy', 'kind'), [(WarmStartDARTS, DartsSearchModule), (WarmStartGumbelDARTS, GumbelDartsSearchModule)]
)
def test_the_arguments_are_those_of_nnis_module(tmp_path, strategy, kind):
    done = run(
        strategy(arc_learning_rate=0.02, gradient_clip_val=3.0, warmup_epochs=1, log_prob_every_n_step=7), tmp_path, epochs=1
    )
    module = done.oneshot_module
    assert type(module) is kind
    assert (module.arc_learning_rate, module.gradient_clip_val) == (0.02, 3.0)
    assert (module.warmup_epochs, module.log_prob_every_n_step) == (1, 7)
    if kind is GumbelDartsSearchModule:
        assert module.temperature_scheduler.init == 1.0


def test_states_are_those_of_the_callbacks(tmp_path):
    module = run(WarmStartDARTS(average=1.0), tmp_path).oneshot_module
    keys = {callback.state_key for callback in module.configure_callbacks() if callback.state_dict()}
    assert keys == {f'nni_warmstart.{name}' for name in ('identity', 'averaged', 'random', 'curve', 'fast', 'continuity')}


def test_a_trainer_that_has_run_its_epochs_is_said(tmp_path, caplog):
    task, trainer = make_task(), make_trainer(1, tmp_path, progress=False)
    evaluator = classification(split(task), 3, trainer, batch_size=8, learning_rate=0.05, weight_decay=3e-4)
    for trained in (False, True):
        strategy = WarmStartDARTS()
        strategy(RawFormatModelSpace(small_space(), evaluator), SequentialExecutionEngine())
        assert (len(strategy.curve) == 0) == trained == ('has run all of its 1 epochs' in caplog.text)
