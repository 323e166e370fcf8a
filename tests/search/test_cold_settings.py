"""A cold search is NNI's to the bit, with the same images in the same order, for many settings of trainer and loaders."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import make_task, small_space
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS
from torch.utils.data import RandomSampler, WeightedRandomSampler

from nni_warmstart import WarmStartDARTS
from nni_warmstart.data import split

WORKERS = {'num_workers': 1, 'persistent_workers': True}

SETTINGS = {
    'validation twice an epoch': ({'val_check_interval': 0.5}, {}),
    'persistent workers': ({}, WORKERS),
    'persistent workers, validation twice an epoch': ({'val_check_interval': 0.5}, WORKERS),
    'validation every second epoch': ({'check_val_every_n_epoch': 2}, {}),
    'few batches': ({'limit_train_batches': 3, 'limit_val_batches': 2}, {}),
    'steps': ({'max_epochs': -1, 'max_steps': 14}, {}),
    'sanity check': ({'num_sanity_val_steps': 2}, {}),
    'new loaders every epoch': ({'reload_dataloaders_every_n_epochs': 1}, {}),
    'own generator': ({}, {'generator': 5}),
    'weighted samples': ({}, {'sampler': 'weighted'}),
    'samples again': ({}, {'sampler': 'again'}),
    'last batch left out': ({}, {'drop_last': True}),
}


class Module(ClassificationModule):
    """Notes the classes of the images that it is trained on."""

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[1].tolist())
        return super().training_step(batch, batch_idx)


def searched(strategy, tmp_path, trainer: dict, loader: dict):
    torch.manual_seed(3)
    splits, module, loader = split(make_task(n=64)), Module(num_classes=3), dict(loader)
    module.seen = []
    if 'generator' in loader:
        loader['generator'] = torch.Generator().manual_seed(loader['generator'])
    sampler = {
        'weighted': lambda data: WeightedRandomSampler([1.0] * len(data), len(data)),
        'again': lambda data: RandomSampler(data, replacement=True, num_samples=40),
    }.get(loader.pop('sampler', None))
    order = {'shuffle': True} if sampler is None else {'sampler': sampler(splits.train)}
    settings = {'max_epochs': 2, 'num_sanity_val_steps': 0, **trainer}
    made = Trainer(
        default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip
    loaders = DataLoader(splits.train, 4, **order, **loader), DataLoader(splits.val, 4)
    strategy(RawFormatModelSpace(small_space(), Lightning(module, made, *loaders)), SequentialExecutionEngine())
    return module.seen, strategy.supernet.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(('trainer', 'loader'), SETTINGS.values(), ids=SETTINGS.keys())
def test_images_weights_and_alphas_are_those_of_nni(tmp_path, trainer, loader):
    (seen, expected), (own, found) = (searched(cls(), tmp_path, trainer, loader) for cls in (DARTS, WarmStartDARTS))
    assert own == seen
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
