"""Tensors and a JSON card in one safetensors file: packed, checked and written atomically. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..errors import SupernetFileError, reason
from ..utils.files import open_regular
from ..utils.limits import Budget
from . import header as _header
from .header import CARD, CHECKSUM, VERSION, Slot, header_length, read_header

_DTYPES = {
    'BOOL': torch.bool, 'U8': torch.uint8, 'I8': torch.int8, 'I16': torch.int16, 'I32': torch.int32, 'I64': torch.int64,
    'F16': torch.float16, 'BF16': torch.bfloat16, 'F32': torch.float32, 'F64': torch.float64, 'C64': torch.complex64,
}  # fmt: skip


def pack(tensors: dict[str, Tensor], card: dict[str, Any]) -> bytes:
    """Return the bytes of a safetensors file whose metadata hold ``card``, the format's version and a checksum of both.

    Raises
    ------
    SupernetFileError
        If a tensor has a type that :func:`unpack` does not read.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES.values():
            raise SupernetFileError(f'tensor {name!r} has the type {tensor.dtype}, which no file of this package holds.')
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    # the library's own bytes of each tensor alone, for any byte order of the machine
    alone = ((name, tensors[name], safetensors.torch.save({'': tensors[name]})) for name in sorted(tensors))
    checksum = _checksum(text, ((name, tensor.dtype, tensor.shape, [data]) for name, tensor, data in alone))
    return safetensors.torch.save(tensors, metadata={CARD: text, CHECKSUM: checksum, VERSION: str(_header.FORMAT)})


def read_bytes(path: str | os.PathLike[str], budget: Budget) -> bytearray:
    """Read a regular file that is no larger than the budget.

    Raises
    ------
    SupernetFileError
        If it is missing, too large, no regular file, or unreadable.
    """
    try:
        with open_regular(path) as (file, size):
            budget.spend(size)
            data = bytearray(size)
            del data[file.readinto(data) :]  # another process may have made it shorter
            return data
    except OSError as error:
        raise SupernetFileError(f'{path} cannot be read: {error.strerror or reason(error)}.') from error


def unpack(data: bytes | bytearray, origin: str, budget: Budget | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the bytes that :func:`pack` returned.

    Parameters
    ----------
    data
        Content of the file; the tensors share the memory of a bytearray.
    origin
        Name of the file in errors.
    budget
        Memory that may be taken besides ``data``; None for what the limit leaves.

    Raises
    ------
    SupernetFileError
        If the file is truncated, altered, of another kind, or of a newer format, or takes more memory than the limit.
    """
    if budget is None:
        budget = Budget(origin, SupernetFileError)
        budget.spend(len(data))
    view = memoryview(data)
    start = 8 + header_length(bytes(view[:8]), len(data), origin)
    header = read_header(bytes(view[8:start]), len(data), origin, budget)
    slots = {name: (slot, view[start + slot.begin : start + slot.end]) for name, slot in header.slots.items()}
    described = ((name, _DTYPES[slot.dtype], slot.shape, _alone(slot, part)) for name, (slot, part) in sorted(slots.items()))
    if _checksum(header.card_text, described) != header.checksum:
        raise SupernetFileError(f'{origin} was altered: its checksum does not match; copy it again or rebuild it.')
    return {name: _tensor(slot, part) for name, (slot, part) in slots.items()}, header.card


def _tensor(slot: Slot, part: memoryview) -> Tensor:
    dtype = _DTYPES[slot.dtype]
    if not slot.numel:
        return torch.empty(slot.shape, dtype=dtype)
    if part.readonly or sys.byteorder == 'big':
        part = memoryview(bytearray(part))
    tensor = torch.frombuffer(part, dtype=dtype)
    if sys.byteorder == 'big':
        tensor = torch.from_numpy(tensor.numpy().byteswap())
    return tensor.reshape(slot.shape)


def _checksum(card: str, tensors: Iterable[tuple[str, torch.dtype, Iterable[int], Iterable[bytes | memoryview]]]) -> str:
    """Return the checksum of a card, and of the names, types, shapes and bytes of tensors, sorted by name."""
    digest = hashlib.sha256(card.encode())
    for name, dtype, shape, parts in tensors:
        digest.update(f'{name} {dtype} {tuple(shape)}'.encode())
        for part in parts:
            digest.update(part)
    return digest.hexdigest()


def _alone(slot: Slot, part: memoryview) -> list[bytes | memoryview]:
    """Return the bytes of a safetensors file with this tensor alone, under the name ''."""
    shape = ','.join(map(str, slot.shape))
    text = f'{{"":{{"dtype":"{slot.dtype}","shape":[{shape}],"data_offsets":[0,{len(part)}]}}}}'.encode()
    text += b' ' * (-len(text) % 8)
    return [len(text).to_bytes(8, 'little'), text, part]
