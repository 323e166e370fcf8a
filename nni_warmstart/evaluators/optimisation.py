"""SGD with momentum and a cosine rate, as in DARTS."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.evaluator.pytorch import LightningModule
from torch.optim.lr_scheduler import CosineAnnealingLR


def sgd_with_cosine(module: LightningModule, learning_rate: float, weight_decay: float) -> dict[str, Any]:
    """Make SGD with momentum 0.9 and a rate that falls to 0 along a cosine, epoch by epoch, over the trainer's run."""
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    return {'optimizer': optimizer, 'lr_scheduler': Cosine(optimizer, max(1, module.trainer.max_epochs or 1))}


class Cosine(CosineAnnealingLR):
    """Cosine rate of torch that, in a run resumed with another number of epochs, follows the curve of the new length."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        epochs = self.T_max
        super().load_state_dict(state_dict)
        if self.T_max != epochs:  # torch computes each rate from the previous one, which is on the old curve
            self.T_max = epochs
            self._last_lr = self._get_closed_form_lr()
            for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
                group['lr'] = rate
