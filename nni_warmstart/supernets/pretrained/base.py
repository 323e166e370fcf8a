"""Base of the schemes by which pretrained networks are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn


@dataclass(frozen=True)
class Pretrained:
    """Network that was read by its name.

    Attributes
    ----------
    network
        The network, with its weights.
    name
        Name for an entry of a zoo.
    input_shape
        Shape of the images that it was trained on, ``(channels, height, width)``; None where that is not known.
    class_names
        Names of the classes, in the order of the classifier's rows; empty where they are not known.
    facts
        Entries of the record: origin, licence, dataset, normalisation.
    """

    network: nn.Module
    name: str
    input_shape: tuple[int, int, int] | None = None
    class_names: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class Scheme(NamedTuple):
    """Kind of names, such as those of torchvision's models.

    Attributes
    ----------
    make
        Function that makes the network of a name, with random weights.
    read
        Function that reads the network of a name with its own weights: of the name, the name of the weights ('' for the
        usual ones), and whether weights that are not on the disk may be fetched.
    """

    make: Callable[[str], nn.Module]
    read: Callable[[str, str, bool], Pretrained]
