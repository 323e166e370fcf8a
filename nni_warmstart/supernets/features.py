"""Embedding of images by the features of a supernet."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..distance.embeddings import Embedding


def own_features(model: nn.Module, key: str, channels: int, image_size: int, *, keeps_statistics: bool = False) -> Embedding:
    """Make an embedding by the inputs of a supernet's classifier, with batch norm re-estimated on the embedded images.

    Parameters
    ----------
    model
        Mutated model space; it is copied, not changed.
    key
        Identifier of its weights.
    channels, image_size
        Shape of its images; 0 takes images of any shape.
    keeps_statistics
        Whether batch norm keeps its statistics, as that of a pretrained network does.
    """
    from ..nni_adapter import batchnorm
    from ..nni_adapter.classifier import features_of, find_head
    from ..nni_adapter.paths import best_path

    def features(x: Tensor) -> Tensor:
        network = copy.deepcopy(model).float()  # as the images are, whatever the precision of the search
        device = next(network.parameters()).device
        batches = x.to(device).split(256)
        with best_path(network):
            if not keeps_statistics:
                batchnorm.reestimate(network, batches)
            head = find_head(network, batches[0])
            return features_of(network, head, [(part, torch.zeros(len(part))) for part in batches], device)[0].cpu()

    return Embedding(key, channels, image_size, features, whole=True)
