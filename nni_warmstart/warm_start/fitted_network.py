"""The network that a search found, with the weights of its supernet, fitted to what the supernet computes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from ..mapping.discretisation import refit
from ..supernets.network import inherited
from ..supernets.supernet import Supernet
from ..utils.modules import modes_kept

FITTED = 512
"""Largest number of images of a fit."""

_PIXELS = 2**22  # of all of these images: their activations are in memory at once


def fitted(
    supernet: Supernet, architecture: dict[str, Any] | None = None, space: ModelSpace | None = None, *, images: Tensor
) -> nn.Module:
    """Return the network that ``supernet`` found (or another one of its space), fitted to the outputs of the supernet.

    A supernet computes mixtures, so that :func:`~nni_warmstart.supernets.network.inherited`, a network of some of its
    candidates with its weights, loses accuracy, sometimes all of it. The fit
    (:func:`~nni_warmstart.mapping.discretisation.refit`) needs no labels. It takes up to 512 images of 64 pixels, or 83 of
    224. Where its logits differ more from those of the supernet than before, it is undone. A supernet around a pretrained
    network is not fitted: it computes nearly what the network does, and a fit would lose the statistics of far more images.

    Parameters
    ----------
    supernet
        Supernet that contains the network.
    architecture
        Label of a choice -> chosen candidate or value; None for the most probable architecture.
    space
        Fresh model space; None for the space named in the supernet's card.
    images
        Training images, normalised as in the search, shape ``(n, channels, height, width)``; a few hundred are enough.

    Raises
    ------
    TransferError
        If the space or the architecture does not fit, or the network has weights that the supernet lacks.
    """
    fresh = copy.deepcopy(space)
    network = inherited(supernet, architecture, space)
    if supernet.holds_statistics:
        return network
    mixed, before = supernet.build(fresh), copy.deepcopy(network)
    images = images[: max(32, min(FITTED, _PIXELS // images[0, 0].numel()))]
    refit(network, mixed, images)
    goal = _logits(mixed, images)
    return min(network, before, key=lambda each: float((_logits(each, images) - goal).square().sum()))


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits in evaluation mode."""
    with modes_kept(model):
        model.eval()
        return torch.cat([model(x) for x in images.split(64)])
