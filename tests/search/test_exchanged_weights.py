"""Callbacks and evaluators that validate weights of their own: these are validated, and the training goes on as in NNI."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny import OwnSpace, make_task
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.nn import functional as F

from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split
from nni_warmstart.nni_adapter import batchnorm


class Shadow:
    """Half of the way from the first weights to the present ones, by a store and a restore."""

    def begin(self, model) -> None:
        self.first = copy.deepcopy(model.state_dict())

    def put_in(self, model) -> None:
        self.stored = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(self.first[name], 0.5)

    def put_back(self, model) -> None:
        model.load_state_dict(self.stored)


class OfValidation(Shadow, Callback):
    """Exchanges the weights around the whole of validation."""

    def on_fit_start(self, trainer, pl_module) -> None:
        self.begin(pl_module.model)

    def on_validation_start(self, trainer, pl_module) -> None:
        self.put_in(pl_module.model)

    def on_validation_end(self, trainer, pl_module) -> None:
        self.put_back(pl_module.model)


class Own(ClassificationModule):
    """An evaluator that looks at what it validates."""

    def on_validation_batch_start(self, *args) -> None:
        self.validated.append(copy.deepcopy(self.model.state_dict()))


class OfTheEvaluator(Own):
    """An evaluator that exchanges the weights itself."""

    def on_fit_start(self) -> None:
        self.shadow = Shadow()
        self.shadow.begin(self.model)

    def on_validation_epoch_start(self) -> None:
        self.shadow.put_in(self.model)

    def on_validation_epoch_end(self) -> None:
        self.shadow.put_back(self.model)


class Last(Callback):
    """Notes what the callbacks before it have made of the model, and what the training had."""

    def __init__(self) -> None:
        self.exchanged: list = []
        self.trained: list = []

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        self.during_training = copy.deepcopy(pl_module.model.state_dict())

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        self.exchanged.append(copy.deepcopy(pl_module.model.state_dict()))

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.trained.append((self.during_training, copy.deepcopy(pl_module.model.state_dict())))


def search(strategy, tmp_path, module_class, *callbacks, epochs=3):
    torch.manual_seed(3)
    splits, module = split(make_task(n=64)), module_class(num_classes=3, learning_rate=0.01)
    module.validated = []
    trainer = Trainer(
        max_epochs=epochs, callbacks=list(callbacks), default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
    )  # fmt: skip
    loaders = [DataLoader(part, 8) for part in (splits.train, splits.val)]
    strategy(RawFormatModelSpace(OwnSpace(), Lightning(module, trainer, *loaders)), SequentialExecutionEngine())
    return strategy, module, loaders


def loss_of(model, weights, train, val) -> float:
    """The validation loss of weights, with batch norm estimated for them."""
    model.load_state_dict(weights)
    batchnorm.reestimate(model, (x for x, _ in train))
    model.eval()
    with torch.no_grad():
        losses = [(float(F.cross_entropy(model(x), y)), len(y)) for x, y in val]
    return sum(loss * n for loss, n in losses) / sum(n for _, n in losses)


KINDS = {
    'Lightning, exponential': (Own, lambda: EMAWeightAveraging(decay=0.8)),
    'Lightning, without buffers': (Own, lambda: EMAWeightAveraging(decay=0.8, use_buffers=False)),
    'Lightning, stochastic': (Own, WeightAveraging),
    'around validation': (Own, OfValidation),
    'the evaluator': (OfTheEvaluator, Callback),
}


@pytest.mark.parametrize('average', [0.0, 1.0])
@pytest.mark.parametrize(('module_class', 'exchange'), KINDS.values(), ids=KINDS.keys())
def test_what_is_validated_are_the_exchanged_weights_with_their_own_statistics(
    tmp_path, caplog, module_class, exchange, average
):
    last = Last()
    strategy, module, loaders = search(WarmStartDARTS(average=average), tmp_path, module_class, exchange(), last)
    validated = module.validated[1:]  # without the sanity check
    batches = len(loaders[1])
    assert len(validated) == 3 * batches
    model, expected = copy.deepcopy(strategy.supernet), []
    for epoch in range(3):
        weights = validated[batches * epoch]
        if module_class is Own:
            others = last.exchanged[1 + epoch]
            names = [name for name, _ in model.named_parameters()]
            assert all(torch.equal(weights[name], others[name]) for name in names)
            assert not all(torch.equal(weights[name], last.trained[epoch][0][name]) for name in names)
        expected.append(loss_of(model, weights, *loaders))
    assert [figures['val_loss'] for figures in strategy.curve] == pytest.approx(expected, rel=1e-5)
    for trained, kept in last.trained:
        assert all(torch.equal(tensor, kept[name]) for name, tensor in trained.items())
    assert ('a callback or the evaluator validates weights of its own' in caplog.text) == bool(average)
    nnis, *_ = search(DARTS(), tmp_path, module_class, exchange())
    mine = strategy.supernet.state_dict()
    assert [name for name, tensor in nnis.supernet.state_dict().items() if not torch.equal(tensor, mine[name])] == []


def test_stochastic_weight_averaging_is_refused_as_by_nni(tmp_path):
    for strategy in (DARTS(), WarmStartDARTS()):
        with pytest.raises(MisconfigurationException, match='SWA currently works with 1 `optimizer`'):
            search(strategy, tmp_path, Own, StochasticWeightAveraging(0.1))


def test_the_architecture_of_an_epoch_is_the_one_that_is_validated(tmp_path):
    last = Last()
    strategy, *_ = search(WarmStartDARTS(arc_learning_rate=0.5), tmp_path, Own, EMAWeightAveraging(decay=0.8), last)
    for epoch, alphas in enumerate(strategy.oneshot_module.alphas):
        logits = next(tensor for name, tensor in last.exchanged[1 + epoch].items() if 'first' in name and 'alpha' in name)
        assert list(alphas['first'].values()) == pytest.approx(torch.softmax(logits, -1).tolist(), abs=1e-4)


def test_a_copy_of_the_module_shares_the_data(tmp_path):
    strategy, *_ = search(WarmStartDARTS(), tmp_path, Own, epochs=1)
    module = strategy.oneshot_module
    assert copy.deepcopy(module).evaluation.loaders is module.evaluation.loaders
