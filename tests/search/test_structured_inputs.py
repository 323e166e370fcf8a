"""Inputs and batches that are no pairs of two tensors: a search works wherever NNI's does, and says what it cannot do."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import OwnSpace, make_task
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from pytorch_lightning import LightningDataModule
from torch.utils.data import Dataset

from nni_warmstart import Supernet, SupernetZoo, TransferError, WarmStartDARTS

FORMS = {
    'dict': lambda image, label: ({'image': image, 'scale': torch.tensor(2.0)}, label),
    'list': lambda image, label: ([image, torch.tensor(2.0)], label),
    'tuple': lambda image, label: ((image, torch.tensor(2.0)), label),
    'pair of images': lambda image, label: ([image, image + 1], label),
    'nested': lambda image, label: ({'views': [image], 'scale': {'by': torch.tensor(2.0)}}, label),
}

BATCHES = {
    'dict batch': lambda image, label: {'image': image, 'label': label},
    'triple': lambda image, label: (image, label, torch.tensor(1.0)),
}


class Space(OwnSpace):
    """Takes an image and its scale in any form."""

    def forward(self, x):
        if isinstance(x, dict):
            x = [x['views'][0], x['scale']['by']] if 'views' in x else [x['image'], x['scale']]
        if not isinstance(x, torch.Tensor):
            x = x[0] * (x[1] if x[1].ndim == 4 else x[1][:, None, None, None])
        return super().forward(x)


class Formed(Dataset):
    """Images in some form."""

    def __init__(self, form, part: slice) -> None:
        task = make_task(n=96)
        self.form, self.x, self.y = form, task.train_x[part].float() / 255, task.train_y[part]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.form(self.x[index], self.y[index])


class Data(LightningDataModule):
    def __init__(self, form) -> None:
        super().__init__()
        self.form = form

    def train_dataloader(self):
        return DataLoader(Formed(self.form, slice(0, 32)), 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Formed(self.form, slice(32, 48)), 8)

    def test_dataloader(self):
        return DataLoader(Formed(self.form, slice(48, 72)), 8)


class Unpacking(ClassificationModule):
    """Takes batches apart in training; NNI never validates, so that its validation step need not fit them."""

    def training_step(self, batch, batch_idx):
        pair = (batch['image'], batch['label']) if isinstance(batch, dict) else batch[:2]
        return super().training_step(pair, batch_idx)


def search(tmp_path, strategy, form, module=ClassificationModule):
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=2, default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    evaluator = Lightning(module(num_classes=3), trainer, datamodule=Data(form))
    engine = SequentialExecutionEngine()
    strategy(RawFormatModelSpace(Space(), evaluator), engine)
    (model,) = engine.list_models()
    return {**strategy.supernet.state_dict(), 'random': torch.get_rng_state()}, model.metrics.final


@pytest.mark.parametrize('form', FORMS)
def test_inputs_of_several_tensors(tmp_path, form):
    expected, _ = search(tmp_path, DARTS(), FORMS[form])
    strategy = WarmStartDARTS(save_to=tmp_path / 'zoo', stop_on_eigenvalue=True)
    found, _ = search(tmp_path, strategy, FORMS[form])
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert all({'default', 'alpha_eigenvalue'} <= epoch.keys() for epoch in strategy.curve)
    assert 'test_accuracy' in strategy.oneshot_module.final
    (entry,) = SupernetZoo(tmp_path / 'zoo').entries()
    state = entry.build(Space()).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in strategy.supernet.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize('form', FORMS)
def test_averages_of_inputs_of_several_tensors(tmp_path, form, caplog):
    strategy = WarmStartDARTS(average=1.0, refit_head=True)
    search(tmp_path, strategy, FORMS[form])
    assert strategy.oneshot_module.evaluation.averaged is not None
    assert 'not averaged' not in caplog.text


@pytest.mark.parametrize('form', BATCHES)
def test_batches_that_only_training_can_read(tmp_path, form, caplog):
    expected, reported = search(tmp_path, DARTS(), BATCHES[form], Unpacking)
    strategy = WarmStartDARTS(save_to=tmp_path / 'zoo', average=1.0)
    torch.manual_seed(0)
    found, own = search(tmp_path, strategy, BATCHES[form], Unpacking)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert own == reported  # the training accuracy, as in NNI
    assert all('default' not in epoch and 'train_loss' in epoch for epoch in strategy.curve)
    assert len(SupernetZoo(tmp_path / 'zoo').names()) == 1
    assert caplog.text.count('The search goes on without validation, since validation_step fails') == 1


@pytest.mark.parametrize('form', FORMS)
def test_a_warm_start_refuses_inputs_of_several_tensors_in_one_line(tmp_path, form):
    source = Supernet.from_model(WarmStartDARTS().mutate_model(Space()), name='source')
    with pytest.raises(TransferError) as caught:
        search(tmp_path, WarmStartDARTS(source=source), FORMS[form])
    assert '\n' not in str(caught.value)
    assert 'of several tensors, not one tensor' in str(caught.value)
