"""The exceptions of this package: one clear line each, naming the thing, its value and the way out."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

UNREADABLE = (
    OSError, ValueError, EOFError, AttributeError, TypeError, LookupError, SyntaxError, RuntimeError, MemoryError,
    OverflowError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
"""What damaged files make numpy, its zip files and PIL raise."""


class WarmStartError(ValueError):
    """Base class; the command line prints its message as one line instead of a traceback."""


class ConfigError(WarmStartError):
    """A key or a value of ``search.yml`` (or of the same settings in Python) is wrong."""


class DataError(WarmStartError):
    """A dataset cannot be used as it is."""


class SupernetFileError(WarmStartError):
    """A supernet file is damaged, foreign, or written by a newer version."""


class TransferError(WarmStartError):
    """A source supernet cannot be carried over to this target."""


class ZooError(WarmStartError):
    """An entry of a zoo is missing or cannot be written."""


def reason(error: BaseException) -> str:
    """What an error says, as one line."""
    return ' '.join(str(error).split()) or type(error).__name__


REFUSALS = (
    TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError, LookupError, AttributeError, NameError,
    MemoryError,
)  # fmt: skip
"""What constructors and forward passes of model spaces raise for arguments that they were not made for."""


def as_well(cls: type[WarmStartError], error: BaseException) -> type[WarmStartError]:
    """Return the class of an exception that is one of ours, and of the class of ``error`` as well.

    What takes the place of a class of NNI raises what that raises, too.
    """
    other = type(error)
    if issubclass(cls, other):
        return cls
    # KeyError would print its message in quotes
    return type(cls.__name__, (cls, other), {'__module__': cls.__module__, '__str__': Exception.__str__})
