"""Exceptions of this package: one clear line each, with the name, the value and the remedy."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

UNREADABLE = (
    OSError, ValueError, EOFError, AttributeError, TypeError, LookupError, SyntaxError, RuntimeError, MemoryError,
    OverflowError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
"""Exceptions that numpy, its zip files and PIL raise for damaged files."""


class WarmStartError(ValueError):
    """Base class of all errors of this package, whose message the command line prints as one line without a traceback.

    Of a message of more than 1000 characters, which quotes some long value, the middle is left out.

    Attributes
    ----------
    exit_status
        Status with which the command line then ends.
    """

    exit_status = 2

    def __str__(self) -> str:
        text = Exception.__str__(self)  # that of KeyError, in classes of `as_well`, would add quotes
        return text if len(text) <= 1000 else f'{text[:700]} [...] {text[-290:]}'


class ConfigError(WarmStartError):
    """Exception for a wrong key or value in ``search.yml``, or in the same settings in Python."""


class DivergenceError(WarmStartError):
    """Exception for a training whose loss or weights are not finite, or absurdly large."""

    exit_status = 1


class DataError(WarmStartError):
    """Exception for a dataset that cannot be used."""


class SupernetFileError(WarmStartError):
    """Exception for a supernet file that is damaged, of another kind, or written by a newer version."""


class TransferError(WarmStartError):
    """Exception for a source supernet that cannot be transferred to a target."""


class ZooError(WarmStartError):
    """Exception for an entry of a zoo that is missing or cannot be written."""


def reason(error: BaseException) -> str:
    """Return the message of an error as one line."""
    return ' '.join(str(error).split()) or type(error).__name__


REFUSALS = (
    TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError, LookupError, AttributeError, NameError,
    MemoryError,
)  # fmt: skip
"""Exceptions that constructors and forward passes of model spaces raise for arguments that they do not support."""


def as_well(cls: type[WarmStartError], error: BaseException) -> type[WarmStartError]:
    """Return a subclass of an exception of this package that is a subclass of the class of ``error`` as well.

    A drop-in replacement of a class of NNI raises what that class raises.
    """
    other = type(error)
    if issubclass(cls, other):
        return cls
    return type(cls.__name__, (cls, other), {'__module__': cls.__module__})
