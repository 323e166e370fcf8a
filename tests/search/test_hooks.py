"""Hooks of the user, in callbacks and in the module of the evaluator, see the search as NNI would show it."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny import make_task, run, small_space
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback

from nni_warmstart import TransferError, WarmStartDARTS, transfer
from nni_warmstart.data import split
from nni_warmstart.evaluators.classification import CosineClassification, classification
from nni_warmstart.evaluators.trainer import make_trainer
from nni_warmstart.nni_adapter.choices import arch_parameters
from nni_warmstart.nni_adapter.mutation import mutate


def weights(model) -> torch.Tensor:
    """All weights but the alphas, as one vector."""
    alphas = {id(alpha) for alpha in arch_parameters(model)}
    return torch.cat([p.detach().flatten().clone() for p in model.parameters() if id(p) not in alphas])


class Look(Callback):
    """Notes the weights at the end of validation."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        self.seen.append(weights(pl_module.model))


def search(tmp_path, strategy, *callbacks, change=None, epochs=2):
    """Search as `run` does, with callbacks, and a change of the evaluator's module."""
    torch.manual_seed(0)
    task = make_task()
    trainer = make_trainer(epochs, tmp_path, progress=False, callbacks=list(callbacks))
    evaluator = classification(split(task), task.num_classes, trainer, batch_size=8, learning_rate=0.05, weight_decay=3e-4)
    if change is not None:
        change(evaluator.module)
    strategy(RawFormatModelSpace(small_space(task.num_classes), evaluator), SequentialExecutionEngine())
    return strategy


def test_a_callback_sees_the_weights_of_training_after_validation(tmp_path):
    seen = []
    for average in (1.0, 0.0):
        look = Look()
        search(tmp_path, WarmStartDARTS(average=average), look)
        seen.append(look.seen)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_averages_take_what_the_evaluators_hook_makes_of_the_weights(tmp_path):
    class Zeros(Callback):
        """Notes the weights that the averages begin with."""

        def on_train_start(self, trainer, pl_module) -> None:
            self.first, self.steps = weights(pl_module.model), trainer.num_training_batches

    def change(module) -> None:
        def zero(outputs, batch, batch_idx) -> None:
            with torch.no_grad():
                for parameter in module.model.parameters():
                    parameter.zero_()

        module.on_train_batch_end = zero

    zeros = Zeros()
    strategy = search(tmp_path, WarmStartDARTS(average=1.0), zeros, change=change, epochs=1)
    expected = zeros.first * (1 - 1 / zeros.steps) ** zeros.steps
    averaged = strategy.oneshot_module.evaluation.averaged
    torch.testing.assert_close(torch.cat([value.flatten() for value in averaged.values]), expected)


class Fails(CosineClassification):
    """Fails in the second validation."""

    def on_validation_epoch_end(self) -> None:
        if self.trainer.current_epoch == 1:
            raise ArithmeticError


def test_an_exception_in_validation_puts_the_weights_of_training_back(tmp_path):
    class Last(Callback):
        """Notes the weights after the last step."""

        def on_train_epoch_start(self, trainer, pl_module) -> None:
            self.module = pl_module

        def on_validation_batch_start(self, trainer, pl_module, *rest) -> None:
            self.during = weights(pl_module.model)

    last, strategy = Last(), WarmStartDARTS(average=1.0)
    with pytest.raises(ArithmeticError):
        search(tmp_path, strategy, last, change=lambda module: setattr(module, '__class__', Fails))
    after = weights(last.module.model)
    averaged = torch.cat([value.flatten() for value in last.module.evaluation.averaged.values])
    torch.testing.assert_close(last.during, averaged)
    assert not torch.allclose(after, averaged)
    assert last.module.evaluation not in last.module.trainer.callbacks


def test_a_trainer_keeps_no_callback_of_a_search_that_is_over(tmp_path):
    module = run(WarmStartDARTS(stop_on_eigenvalue=True), tmp_path).oneshot_module
    assert not set(map(type, module.configure_callbacks())) & set(map(type, module.trainer.callbacks))


def test_a_copy_of_a_module_takes_no_trainer_with_it(tmp_path):
    module = run(WarmStartDARTS(save_to=tmp_path / 'zoo'), tmp_path, epochs=1).oneshot_module
    assert module.randomness._trainer is not None
    assert copy.deepcopy(module.randomness)._trainer is None
    module.once_set_up = module.ending.keep[0]
    twin = copy.deepcopy(module)
    assert twin.held_out is module.held_out
    assert twin.ending.keep == []
    assert twin.once_set_up is None


def test_labels_that_are_too_few_are_one_line():
    target = mutate(small_space(3), 'DARTS')
    with pytest.raises(TransferError, match='48 samples and 5 labels'):
        transfer(_source(), target, data=(torch.zeros(48, 3, 8, 8), torch.zeros(5, dtype=torch.long)))


def _source():
    from nni_warmstart import Supernet

    return Supernet.from_model(mutate(small_space(3), 'DARTS'), name='fresh')
