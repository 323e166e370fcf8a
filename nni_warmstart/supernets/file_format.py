"""Tensors and a JSON card in one safetensors file: packed, checked and written atomically. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import SupernetFileError

FORMAT = 3
"""Version of the file format (2: sketches of the datasets, 3: structure); files of a higher version are refused."""

_LONGEST_HEADER = 100_000_000
"""Largest header of a safetensors file, in bytes; the library has the same limit."""

_CARD, _CHECKSUM, _FORMAT = 'nni_warmstart.card', 'nni_warmstart.sha256', 'nni_warmstart.format'


def pack(tensors: dict[str, Tensor], card: dict[str, Any]) -> bytes:
    """Return the bytes of a safetensors file whose metadata hold ``card``, the format's version and a checksum of both."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    metadata = {_CARD: text, _CHECKSUM: _checksum(tensors, text), _FORMAT: str(FORMAT)}
    return safetensors.torch.save(tensors, metadata=metadata)


def unpack(data: bytes, origin: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the bytes that :func:`pack` returned.

    Parameters
    ----------
    data
        Content of the file.
    origin
        Name of the file in errors.

    Raises
    ------
    SupernetFileError
        If the file is truncated, altered, of another kind, or of a newer format.
    """
    metadata = _metadata(data, origin)
    if _CARD not in metadata or _FORMAT not in metadata:
        raise SupernetFileError(f'{origin} is a safetensors file, but not a supernet of nni-warmstart (it has no card).')
    version = metadata[_FORMAT]
    if not version.isdecimal() or len(version) > 9 or int(version) > FORMAT:
        shown = version[:20] if version.isdecimal() else repr(version[:20])
        raise SupernetFileError(
            f'{origin} has file format {shown}, and this version reads up to {FORMAT}; upgrade nni-warmstart.'
        )
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AssertionError) as error:
        raise SupernetFileError(f'{origin} is damaged ({error}); copy it again or rebuild it.') from error
    if _checksum(tensors, metadata[_CARD]) != metadata.get(_CHECKSUM):
        raise SupernetFileError(f'{origin} was altered: its checksum does not match; copy it again or rebuild it.')
    try:
        card = json.loads(metadata[_CARD])
    except (ValueError, RecursionError) as error:
        raise SupernetFileError(f'{origin} has a malformed card: it is not JSON.') from error
    if not isinstance(card, dict):
        raise SupernetFileError(f'{origin} has a malformed card: it is a {type(card).__name__}, not an object with keys.')
    return tensors, card


def is_foreign(file: BinaryIO) -> bool:
    """Check whether a file is a sound safetensors file of another program; nothing is known of damaged ones."""
    length = int.from_bytes(file.read(8), 'little')
    if length > _LONGEST_HEADER:
        return False
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        return False
    metadata = header.get('__metadata__') if isinstance(header, dict) else None
    return isinstance(header, dict) and not (isinstance(metadata, dict) and _CARD in metadata)


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


def _metadata(data: bytes, origin: str) -> dict[str, str]:
    """Return the metadata of a safetensors header, which is a length (8 bytes, little endian), then JSON."""
    length = int.from_bytes(data[:8], 'little')
    if len(data) < 8 or length > len(data) - 8:
        raise SupernetFileError(f'{origin} is not a supernet file, or it is truncated ({len(data)} bytes).')
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise SupernetFileError(f'{origin} is not a safetensors file.') from error
    metadata = header.get('__metadata__') if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def _checksum(tensors: dict[str, Tensor], card: str) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(safetensors.torch.save({'': tensor}))  # the library's own bytes, for any dtype and byte order
    return digest.hexdigest()
