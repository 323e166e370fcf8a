"""The evaluator of search.yml: labels are smoothed in training only."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from nni_warmstart.evaluators.classification import CosineClassification


@pytest.mark.parametrize('smoothing', [None, 0.0, 0.3])
def test_labels_are_smoothed_in_training_only(smoothing):
    module = CosineClassification(3, label_smoothing=smoothing)
    loss, scores, y = module.get_submodule('criterion'), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    smoothed = cross_entropy(scores, y, label_smoothing=smoothing or 0.0)
    module.train()
    assert torch.equal(loss(scores, y), smoothed)
    module.eval()
    assert torch.equal(loss(scores, y), cross_entropy(scores, y))
