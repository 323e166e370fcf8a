"""Tensors and a JSON card in one safetensors file: packed, checked and written atomically. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SupernetFileError, reason
from ..utils.files import open_regular
from ..utils.limits import Budget
from ..utils.strict_json import parse
from . import header as _header
from .header import CARD, CHECKSUM, VERSION, Slot, header_length, memory_of, read_header

_DTYPES = {
    'BOOL': torch.bool, 'U8': torch.uint8, 'I8': torch.int8, 'I16': torch.int16, 'I32': torch.int32, 'I64': torch.int64,
    'F16': torch.float16, 'BF16': torch.bfloat16, 'F32': torch.float32, 'F64': torch.float64, 'C64': torch.complex64,
}  # fmt: skip


def pack(tensors: Mapping[str, Tensor], card: dict[str, Any]) -> bytes:
    """Return the bytes of a safetensors file whose metadata hold ``card``, the format's version and a checksum of both.

    The library that reads and writes such files takes thrice the memory.

    Raises
    ------
    SupernetFileError
        If a tensor has a type, or the card a value, that :func:`unpack` does not read.
    """
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    slots: dict[str, tuple[Slot, memoryview]] = {}
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):  # so all are aligned
        if tensor.dtype not in codes:
            raise SupernetFileError(f'tensor {name!r} has the type {tensor.dtype}, which no file of this package holds.')
        slot = Slot(codes[tensor.dtype], tuple(tensor.shape), place, place + tensor.nbytes)
        slots[name] = slot, _bytes_of(tensor)
        place = slot.end
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    try:
        parse(text.encode(), Budget('a card', SupernetFileError))
    except ValueError as error:
        raise SupernetFileError(f'a card cannot be written ({reason(error)}); leave such values out of history.') from error
    described: dict[str, Any] = {
        name: {'dtype': slot.dtype, 'shape': slot.shape, 'data_offsets': [slot.begin, slot.end]}
        for name, (slot, _) in slots.items()
    }
    metadata = {CARD: text, CHECKSUM: _checksum(text, slots), VERSION: str(_header.FORMAT)}
    header = _padded(json.dumps({'__metadata__': metadata, **described}, separators=(',', ':')))
    return b''.join([*header, *(part for _, part in slots.values())])


def read_bytes(path: str | os.PathLike[str], budget: Budget) -> bytearray:
    """Read a regular file that is no larger than the budget.

    Raises
    ------
    SupernetFileError
        If it is missing, too large, no regular file, or unreadable.
    """
    try:
        with open_regular(path) as (file, size):
            budget.spend(memory_of(size))
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
        budget.spend(memory_of(len(data)))
    view = memoryview(data)
    start = 8 + header_length(bytes(view[:8]), len(data), origin)
    header = read_header(bytes(view[8:start]), len(data), origin, budget)
    slots = {name: (slot, view[start + slot.begin : start + slot.end]) for name, slot in header.slots.items()}
    if _checksum(header.card_text, slots) != header.checksum:
        raise SupernetFileError(f'{origin} was altered: its checksum does not match; copy it again or rebuild it.')
    return {name: _tensor(slot, part) for name, (slot, part) in slots.items()}, header.card


def _tensor(slot: Slot, part: memoryview) -> Tensor:
    dtype = _DTYPES[slot.dtype]
    if not slot.numel:
        return torch.empty(slot.shape, dtype=dtype)
    values = torch.frombuffer(bytearray(part) if part.readonly else part, dtype=torch.uint8)
    if values.data_ptr() % dtype.itemsize:
        values = values.clone()
    return _little_endian(values, dtype).view(dtype).reshape(slot.shape)


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, little endian; without a copy where it is possible."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return _little_endian(values, tensor.dtype).numpy().data


def _little_endian(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the bytes of numbers in the order of files, or from it, on a machine that has the other one."""
    if sys.byteorder == 'little':
        return values
    return values.reshape(-1, dtype.itemsize // (2 if dtype.is_complex else 1)).flip(1).reshape(-1)


def _checksum(card: str, tensors: Mapping[str, tuple[Slot, memoryview]]) -> str:
    """Return the checksum of a card and of tensors, each of which counts as a file with it alone, under the name ''."""
    digest = hashlib.sha256(card.encode())
    for name, (slot, part) in sorted(tensors.items()):
        digest.update(f'{name} {_DTYPES[slot.dtype]} {slot.shape}'.encode())
        shape = ','.join(map(str, slot.shape))
        for each in _padded(f'{{"":{{"dtype":"{slot.dtype}","shape":[{shape}],"data_offsets":[0,{len(part)}]}}}}'):
            digest.update(each)
        digest.update(part)
    return digest.hexdigest()


def _padded(header: str) -> list[bytes]:
    """Return the length of a header, and the header, which spaces bring to a multiple of eight bytes."""
    text = header.encode()
    text += b' ' * (-len(text) % 8)
    return [len(text).to_bytes(8, 'little'), text]
