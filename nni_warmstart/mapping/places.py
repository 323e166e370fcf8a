"""Places of a model space into which layers of a network can go, and what can be there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .network_layers import Layer


@dataclass
class Candidate:
    """Layers that one architecture has at a place.

    Attributes
    ----------
    layers
        Its layers in the order of execution.
    selects
        Labels of the choices that select it -> their candidates.
    residual, shortcut
        Whether its input is added to its output, and the activation that is applied to it before ('' for none, None where it
        does not matter).
    cost
        Cost of choosing it instead of one that computes the same.
    handing_on
        Layers beside these, which hand on their input unless another candidate gives them weights.
    """

    layers: list[Layer]
    selects: dict[str, str] = field(default_factory=dict)
    residual: bool = False
    shortcut: str | None = None
    cost: float = 0.0
    handing_on: list[Layer] = field(default_factory=list)

    def selected(self, labels: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """Return the labels among some that this selects, with their candidates."""
        return tuple((label, self.selects[label]) for label in labels if label in self.selects)

    def agrees(self, decided: dict[str, str]) -> bool:
        """Check whether nothing else is selected than what is decided."""
        return all(self.selects.get(label, name) == name for label, name in decided.items())


@dataclass
class Idle:
    """What makes a place without a partner return (nearly) its input.

    Attributes
    ----------
    handing_on
        Layers that hand on their input.
    silenced
        Norms that make zeros.
    block
        Path of the block that this is needed for unless the end of its residual branch can be set to zero; '' for a cell.
    """

    handing_on: list[Layer]
    silenced: list[str]
    block: str = ''


@dataclass
class Place:
    """Place of a model space.

    Attributes
    ----------
    candidates
        What can be at the place.
    block, repeat, index
        Path of the block in a repeated stage, path of that stage, and the block's number in it; '' and 0 elsewhere.
    idle
        What makes a cell return its input; None for other places.
    """

    candidates: list[Candidate]
    block: str = ''
    repeat: str = ''
    index: int = 0
    idle: Idle | None = None
