"""Base of the heads, which are methods to initialise the classifier of a warm supernet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import TransferError
from ...supernets.supernet import Supernet
from ..report import OriginKind, TensorOrigin

BOLDNESS = 0.3
"""Factor on calibrated logits in a fitted head. Bold logits send large gradients into the body and undo what it inherited:
on 1,300 MNIST images, 5 warm epochs ended at 0.946 with calibrated logits, 0.954 with 0.3 of them and 0.947 with 0.07."""


class LinearHead(NamedTuple):
    """Linear classifier: logits are ``features @ weight.T + bias``.

    ``weight`` has shape ``(n_classes, d)``, ``bias`` ``(n_classes,)`` (zeros where the classifier has none).
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class HeadData:
    """Data that a head is fitted on.

    Attributes
    ----------
    features
        Inputs of the classifier in the warm network, shape ``(n, d)``.
    labels
        Classes, shape ``(n,)``, int64.
    n_classes
        Rows of the classifier that these classes have.
    bias
        Whether the classifier has a bias.
    source
        Supernet whose weights the network has; the first of several.
    name
        Path of the classifier.
    dropout
        Probability with which dropout in front of the classifier zeroes a feature in training.
    """

    features: Tensor
    labels: Tensor
    n_classes: int
    bias: bool
    source: Supernet
    name: str
    dropout: float = 0.0


Suits = Callable[[Supernet, dict[str, int], bool, Sequence[str]], bool]
"""Function of a source, the rows of each tensor of the target's classifier, whether their spaces are the same, and the names
of the target's classes if they are known; tells whether the source has what a head needs."""


@dataclass(frozen=True)
class Head:
    """Method to initialise the classifier of a warm supernet.

    Attributes
    ----------
    fit
        Function that computes the classifier from the target's data; None if these are not needed.
    origin
        Origin of fitted tensors in the report.
    is_inherited
        Whether the classifier's tensors are mapped from the source like those of the body.
    suits
        Function that tells whether a source has what the head needs.
    check_inherited
        Function of the source, the target, the path of its classifier, and the origins of its tensors, which raises an error
        if the head cannot use what was inherited.
    """

    fit: Callable[[HeadData], LinearHead] | None = None
    origin: OriginKind = 'fitted'
    is_inherited: bool = False
    suits: Suits = lambda source, rows, same, names: True
    check_inherited: Callable[[Supernet, nn.Module, str | None, dict[str, TensorOrigin]], None] | None = None

    @property
    def is_fitted(self) -> bool:
        """Whether the classifier is computed from the target's data."""
        return self.fit is not None


def head_tensors(name: str | None, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the tensors of the classifier with this path; none for None.

    Those of the ``known`` tensors that its weight is computed from, such as by weight norm, are among them.
    """
    if name is None:
        return ()
    inside = (each for each in known if each.startswith(f'{name}.'))
    return tuple(dict.fromkeys((f'{name}.weight', f'{name}.bias', *inside)))


def check_every_class(labels: Tensor, n_classes: int, head: str) -> None:
    """Raise an error if a class has no label."""
    empty = (labels.bincount(minlength=n_classes) == 0).nonzero().squeeze(1).tolist()
    if empty:
        raise TransferError(f'head {head!r} needs a training image of every class; classes {empty} have none.')


def sharpness(scores: Tensor, labels: Tensor) -> float:
    """Return the factor on ``scores`` with the least cross-entropy, which is convex, by bisection of its derivative.

    Where scores make no error, it would fall without end. Then the targets are smoothed by 1 / (n + 2), as by Platt,
    *Probabilistic Outputs for Support Vector Machines*, Advances in Large Margin Classifiers, 1999.
    """
    low, high = 1e-2, 1e3
    aim = scores.gather(1, labels[:, None]).mean()
    if bool((scores.argmax(1) == labels).all()):
        smoothing = 1 / (len(labels) + 2)
        aim = (1 - smoothing) * aim + smoothing * scores.mean()
    for _ in range(40):
        middle = (low * high) ** 0.5
        probability = torch.softmax(middle * scores, 1)
        slope = (probability * scores).sum(1).mean() - aim
        low, high = (middle, high) if slope < 0 else (low, middle)
    return (low * high) ** 0.5
