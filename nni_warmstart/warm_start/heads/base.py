"""A way to initialise the classifier of a warm supernet, and what such ways have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import TransferError
from ...supernets.supernet import Supernet
from ..report import OriginKind, TensorOrigin

BOLDNESS = 0.3
"""Share of the calibrated logits that :func:`ridge` gives. Bold logits send large gradients into the body and undo what it
inherited: on 1,300 MNIST images, 5 warm epochs ended at 0.946 with calibrated logits, 0.954 with 0.3 of them and 0.947
with 0.07."""


class LinearHead(NamedTuple):
    """A linear classifier: logits are ``features @ weight.T + bias``.

    ``weight`` has shape ``(n_classes, d)``, ``bias`` ``(n_classes,)`` (zeros where the classifier has none).
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class HeadData:
    """What a head is fitted on.

    Attributes
    ----------
    features
        Inputs of the classifier, in the warm network, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64.
    n_classes
        Rows of the classifier that these classes have.
    bias
        Whether the classifier has one.
    source
        The supernet whose weights the network has; of several the first.
    name
        Path of the classifier.
    """

    features: Tensor
    labels: Tensor
    n_classes: int
    bias: bool
    source: Supernet
    name: str


Suits = Callable[[Supernet, dict[str, int], bool], bool]
"""Says of a source, the rows of each tensor of the target's classifier, and whether their spaces are the same, if the source
has what a head needs."""


@dataclass(frozen=True)
class Head:
    """A way to initialise the classifier of a warm supernet.

    Attributes
    ----------
    fit
        Computes it from the target's data; None where these are not needed.
    origin
        How a tensor was obtained that was fitted, in the report.
    is_inherited
        Whether the classifier's tensors are mapped from the source as those of the body are.
    suits
        Whether a source has what the head needs.
    check
        Refuses what was inherited; takes the source, the target, the path of its classifier, and the origins of its tensors.
    """

    fit: Callable[[HeadData], LinearHead] | None = None
    origin: OriginKind = 'fitted'
    is_inherited: bool = False
    suits: Suits = lambda source, rows, same: True
    check: Callable[[Supernet, nn.Module, str | None, dict[str, TensorOrigin]], None] | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether it is computed from the target's data."""
        return self.fit is not None


def head_tensors(name: str | None) -> tuple[str, ...]:
    """Names of the classifier's tensors, given its path; none without one."""
    return () if name is None else (f'{name}.weight', f'{name}.bias')


def check_every_class(labels: Tensor, n_classes: int, head: str) -> None:
    """Refuse labels that lack a class."""
    empty = (labels.bincount(minlength=n_classes) == 0).nonzero().squeeze(1).tolist()
    if empty:
        raise TransferError(f'head {head!r} needs a training image of every class; classes {empty} have none.')


def sharpness(scores: Tensor, labels: Tensor) -> float:
    """Factor on ``scores`` with the least cross-entropy, by bisection of its derivative (the loss is convex in it)."""
    low, high = 1e-2, 1e3
    for _ in range(40):
        middle = (low * high) ** 0.5
        probability = torch.softmax(middle * scores, 1)
        slope = (probability * scores).sum(1).mean() - scores.gather(1, labels[:, None]).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return (low * high) ** 0.5
