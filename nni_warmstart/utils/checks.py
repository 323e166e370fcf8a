"""Checks of the types and ranges of settings and arguments, taken from annotations; the caller chooses the error."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ..errors import WarmStartError

_WORDS = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false', dict: 'a section with keys'}

_Init = TypeVar('_Init', bound=Callable[..., None])


class Range(NamedTuple):
    """Smallest and largest value of a number, None for no bound; ``Annotated[int, Range(1)]`` annotates an argument."""

    low: float | None = None
    high: float | None = None


class Expected(NamedTuple):
    """Requirements of an annotation: a plain type, perhaps a range, and whether None is allowed."""

    kind: type
    range: Range | None = None
    optional: bool = False


@functools.cache
def expectations(annotated: Any) -> dict[str, Expected]:
    """Return the requirements of the annotations of a dataclass or a function, by name.

    Names whose values may be of several plain types (int, float, str, bool, dict), or of none, are left out.
    """
    found = {}
    for name, hint in get_type_hints(annotated, include_extras=True).items():
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        plain = []
        for member in members:
            kind, *extras = get_args(member) if get_origin(member) is Annotated else (member,)
            if kind in _WORDS:
                plain.append(Expected(kind, next((e for e in extras if isinstance(e, Range)), None), type(None) in members))
        if len(plain) == 1:
            found[name] = plain[0]
    return found


def check(value: Any, name: str, expected: Expected, error: type[WarmStartError]) -> None:
    """Raise an error for a value of another type, a number out of its range, and a number that is not finite.

    Raises
    ------
    WarmStartError
        If the check fails, as the class ``error``; the message names the value and the requirement.
    """
    if value is None and expected.optional:
        return
    low, high = expected.range or Range()
    bounds = '' if low is None else f'{low} or more' if high is None else f'from {low} to {high}'
    none = ', or None' if expected.optional else ''
    if not _is(value, expected.kind):
        raise error(f'{name} = {value!r}, but it must be {_WORDS[expected.kind]}{bounds and ", " + bounds}{none}.')
    if expected.kind in (int, float) and not _inside(value, low, high):
        raise error(f'{name} = {value!r}, but it must be {bounds or "finite"}{none}.')


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Return ' Did you mean ...?' for the end of an error message, empty if no allowed word is like ``word``."""
    close = difflib.get_close_matches(word, list(allowed), 1)
    return f' Did you mean {close[0]}?' if close else ''


def _is(value: Any, kind: type) -> bool:
    """Check whether a value is of a plain type; integers count as floats, booleans as neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, {int: Integral, float: Real}.get(kind, kind))  # those of numpy, too


def _inside(value: Any, low: float | None, high: float | None) -> bool:
    """Check whether a number is finite and in a range."""
    finite = issubclass(type(value), Integral) or math.isfinite(value)  # isfinite fails on integers too large for a float
    return finite and (low is None or value >= low) and (high is None or value <= high)


def checks_arguments(error: type[WarmStartError]) -> Callable[[_Init], _Init]:
    """Decorate a constructor to refuse keyword arguments that are not in the :class:`Range` of their annotation.

    Parameters
    ----------
    error
        Class of the exception.
    """

    def decorate(init: _Init) -> _Init:
        @functools.wraps(init)
        def checked(self: Any, *args: Any, **kwargs: Any) -> None:
            for name, expected in expectations(init).items():
                if name in kwargs and expected.range is not None:
                    check(kwargs[name], name, expected, error)
            init(self, *args, **kwargs)

        return cast(_Init, checked)

    return decorate
