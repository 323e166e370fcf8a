"""Header of a safetensors file with a card: read and checked before, and without, any of the tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import SupernetFileError, reason
from ..utils.limits import Budget
from ..utils.strict_json import parse
from .pickles import is_pickle, refusal

FORMAT = 3
"""Version of the file format (2: sketches of the datasets, 3: structure); files of a higher version are refused."""

CARD, CHECKSUM, VERSION = 'nni_warmstart.card', 'nni_warmstart.sha256', 'nni_warmstart.format'
"""Keys of the metadata."""

SIZES = {
    'BOOL': 1, 'U8': 1, 'I8': 1, 'I16': 2, 'I32': 4, 'I64': 8, 'F16': 2, 'BF16': 2, 'F32': 4, 'F64': 8, 'C64': 8,
}  # fmt: skip
"""Bytes of a number by its type; other types of safetensors (float8, say) are no weights of a supernet."""

_PARTS = {'dtype', 'shape', 'data_offsets'}

_LONGEST = 100_000_000
"""Largest header of a safetensors file, in bytes; the library has the same limit."""

_MOST_AXES, _LARGEST = 64, 2**62  # of a tensor: axes, and values


def memory_of(size: int) -> int:
    """Return the memory in bytes that a file of ``size`` bytes takes: it is read, and what is made of it is as large."""
    return size * 5 // 2


class Slot(NamedTuple):
    """Place of a tensor in the file: its type, its shape, and its first and last byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """Content of a file besides the tensors.

    Attributes
    ----------
    card
        Card, as plain data.
    card_text, checksum
        Card as the JSON that it was read from, and the checksum of it and the tensors.
    slots
        Places of the tensors, by name.
    """

    card: dict[str, Any]
    card_text: str
    checksum: str
    slots: Mapping[str, Slot]


def header_length(first: bytes, size: int | None, origin: str) -> int:
    """Return the bytes of the header of a file that begins with ``first`` (8 bytes); ``size`` is its own, if known.

    Raises
    ------
    SupernetFileError
        If the file is shorter.
    """
    length = int.from_bytes(first, 'little')
    if len(first) < 8 or (size is not None and length > size - 8):
        if is_pickle(first):
            raise SupernetFileError(refusal(origin))
        raise SupernetFileError(f'{origin} is not a supernet file, or it is truncated ({size or len(first)} bytes).')
    return length


def is_foreign(read: Callable[[int], bytes]) -> bool:
    """Check whether ``read``, which returns the next bytes of a file, reads a sound safetensors file of another program.

    Nothing is known of damaged files.
    """
    length = int.from_bytes(read(8), 'little')
    if length > _LONGEST:
        return False
    try:
        header = parse(read(length), Budget('file', SupernetFileError))
    except ValueError:  # or too large to be looked at
        return False
    metadata = header.get('__metadata__') if isinstance(header, dict) else None
    return isinstance(header, dict) and not (isinstance(metadata, dict) and CARD in metadata)


def read_header(text: bytes, size: int | None, origin: str, budget: Budget) -> Header:
    """Read the header of a file.

    Parameters
    ----------
    text
        The header, which is JSON; it follows its length in the file.
    size
        Bytes of the whole file; None if unknown.
    origin
        Name of the file in errors.
    budget
        Memory that the header may take.

    Raises
    ------
    SupernetFileError
        If the file is of another kind or of a newer format, its tensors do not fill it, its card is malformed, or it takes
        more memory than the budget allows.
    """
    try:
        header = parse(text, budget)
    except SupernetFileError:
        raise
    except ValueError as error:
        raise SupernetFileError(f'{origin} is not a safetensors file ({reason(error)}).') from error
    if not isinstance(header, dict):
        raise SupernetFileError(f'{origin} is not a safetensors file (its header is a {type(header).__name__}).')
    card, checksum = _metadata(header.pop('__metadata__', None), origin)
    slots = _slots(header, None if size is None else size - 8 - len(text), origin)
    return Header(_card(card, origin, budget), card, checksum, slots)


def _metadata(metadata: Any, origin: str) -> tuple[str, str]:
    """Return the card's text and the checksum."""
    metadata = metadata if isinstance(metadata, dict) else {}
    card, version, checksum = (metadata.get(key) for key in (CARD, VERSION, CHECKSUM))
    if not isinstance(card, str) or not isinstance(version, str):
        raise SupernetFileError(
            f'{origin} is a safetensors file, but not a supernet of nni-warmstart (it has no card); weights of a network go '
            'with the function that builds it: python:package.module:function@FILE.'
        )
    if not version.isdecimal() or len(version) > 9 or int(version) > FORMAT:
        shown = version[:20] if version.isdecimal() else repr(version[:20])
        raise SupernetFileError(
            f'{origin} has file format {shown}, and this version reads up to {FORMAT}; upgrade nni-warmstart.'
        )
    return card, checksum if isinstance(checksum, str) else ''


def _slots(header: dict[str, Any], size: int | None, origin: str) -> dict[str, Slot]:
    """Return the places of the tensors, which fill ``size`` bytes without gaps and without sharing any.

    None for ``size`` stands for any.
    """
    slots = {}
    for name, entry in header.items():
        wrong = _wrong(entry) or (not _is_text(name) and 'has half a character in its name')
        if wrong:
            raise SupernetFileError(f'{origin} is damaged (tensor {name[:100]!r} {wrong}); copy it again or rebuild it.')
        slots[name] = Slot(entry['dtype'], tuple(entry['shape']), *entry['data_offsets'])
    place = 0
    for slot in sorted(slots.values(), key=lambda slot: (slot.begin, slot.end)):
        if slot.begin != place:
            break
        place = slot.end
    else:
        if size in (None, place):
            return slots
    raise SupernetFileError(f'{origin} is damaged (its tensors do not fill its {size} bytes); copy it again or rebuild it.')


def _wrong(entry: Any) -> str | None:
    """Return what is wrong with the description of a tensor; None if nothing is."""
    if not isinstance(entry, dict) or entry.keys() != _PARTS:
        return 'has no type, shape and place'
    dtype, shape, offsets = entry['dtype'], entry['shape'], entry['data_offsets']
    if not isinstance(dtype, str) or dtype not in SIZES:
        return f'holds numbers of type {str(dtype)[:20]!r}; supernets hold {", ".join(SIZES)}'
    if not _are_sizes(shape) or len(shape) > _MOST_AXES or math.prod([size or 1 for size in shape]) >= _LARGEST:
        return f'has the shape {str(shape)[:60]}'
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * SIZES[dtype]:
        return f'of shape {str(shape)[:60]} does not take the bytes {str(offsets)[:60]}'
    return None


def _are_sizes(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return not value or (set(map(type, value)) == {int} and min(value) >= 0 and max(value) < _LARGEST)


def _is_text(name: str) -> bool:
    """Check whether a name can be written as UTF-8; JSON can spell halves of characters."""
    return name.isascii() or not any('\ud800' <= each <= '\udfff' for each in name)


def _card(text: str, origin: str, budget: Budget) -> dict[str, Any]:
    try:
        card = parse(text.encode(), budget)
    except SupernetFileError:
        raise
    except ValueError as error:
        raise SupernetFileError(f'{origin} has a malformed card: it is not JSON ({reason(error)}).') from error
    if not isinstance(card, dict):
        raise SupernetFileError(f'{origin} has a malformed card: it is a {type(card).__name__}, not an object with keys.')
    return card
