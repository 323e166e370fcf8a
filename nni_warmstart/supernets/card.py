"""Card of a supernet: what its fields must be, and a summary of an entry that needs none of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import SupernetFileError
from .header import Header
from .history import Recorded, malformed

SKETCH, STRUCTURE = 'sketch/', 'structure/zlib'
"""Beginning of the names of the tensors of sketches, and name of the one of the structure."""

NETWORK = 'network'
"""What the card of a network without choices has in the place of the strategy, and where that of a found network is."""

_KINDS: dict[str, type] = {
    'name': str, 'space': dict, 'strategy': str, 'class_names': list,
    'aliases': dict, 'alphas': dict, 'candidates': dict, 'history': dict,
}  # fmt: skip


@dataclass(frozen=True)
class Summary(Recorded):
    """Entry of a zoo without its tensors, sketches and structure.

    Attributes
    ----------
    name, space, class_names, history
        As in :class:`~nni_warmstart.Supernet`.
    num_parameters
        Number of stored values, alphas and buffers included.
    """

    name: str
    space: dict[str, Any]
    class_names: list[str] = field(repr=False)
    history: dict[str, Any] = field(repr=False)
    num_parameters: int

    @classmethod
    def from_header(cls, header: Header, origin: str) -> Summary:
        """Summarise the header of a file.

        Raises
        ------
        SupernetFileError
            If the card is malformed, as far as that can be seen without the tensors.
        """
        card = header.card
        check_fields(card, origin)
        numbers = sum(s.numel for name, s in header.slots.items() if name != STRUCTURE and not name.startswith(SKETCH))
        return cls(card['name'], card['space'], card['class_names'], card['history'], numbers)


def check_fields(card: Mapping[str, Any], origin: str) -> None:
    """Raise an error for a card whose fields are not of the right kinds.

    Raises
    ------
    SupernetFileError
        If one is not; the message names it.
    """
    if isinstance(card.get(NETWORK), dict) and 'name' not in card:
        raise SupernetFileError(
            f'{origin} holds a network, not a supernet; the supernet that it was found in is the file supernet.safetensors '
            'of its search.'
        )
    check_kinds(card, _KINDS, origin)
    if not is_description(card['space']):
        raise SupernetFileError(f'{origin} has a malformed card: space names neither a class nor a name with arguments.')
    wrong = malformed_fields(card)
    if wrong:
        raise SupernetFileError(f'{origin} has a malformed card: {wrong}.')


def malformed_fields(card: Mapping[str, Any]) -> str | None:
    """Return the fault of fields that are of the right kinds; None if they have none."""
    if not all(isinstance(name, str) for name in card['class_names']):
        return 'class_names must be text'
    return malformed(card['history'])


def check_kinds(card: Mapping[str, Any], kinds: Mapping[str, type], origin: str) -> None:
    """Raise an error for a card whose fields are not of these kinds.

    Raises
    ------
    SupernetFileError
        If one is not; the message names the first.
    """
    for key, kind in kinds.items():
        if not isinstance(card.get(key), kind):
            raise SupernetFileError(f'{origin} has a malformed card: {key} is not a {kind.__name__}.')


def is_description(value: Mapping[str, Any]) -> bool:
    """Check whether ``value`` describes a model space: by a name with arguments, or by the name of a class."""
    if 'name' in value:
        return isinstance(value['name'], str) and isinstance(value.get('arguments'), dict)
    return isinstance(value.get('class'), str)
