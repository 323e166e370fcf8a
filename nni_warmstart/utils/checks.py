"""Types and ranges of settings and arguments, read from annotations by one checker; the caller chooses the error."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ..errors import WarmStartError

_WORDS = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false', dict: 'a section with keys'}

_Init = TypeVar('_Init', bound=Callable[..., None])


class Range(NamedTuple):
    """Least and largest value of a number, None for any; ``Annotated[int, Range(1)]`` says it of an argument or a field."""

    low: float | None = None
    high: float | None = None


class Expected(NamedTuple):
    """What an annotation asks of a value: a plain type, perhaps a range, and whether it may be None."""

    kind: type
    range: Range | None = None
    optional: bool = False


@functools.cache
def expectations(annotated: Any) -> dict[str, Expected]:
    """Return what the annotations of a dataclass or a function ask for, by name.

    Left out are names whose values may be of several plain types (int, float, str, bool, dict), or of none.
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
    """Refuse a value of another type, a number out of its range, and one that is not finite.

    Raises
    ------
    WarmStartError
        Of the class ``error``, naming the value and what was needed.
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


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of a plain type; whole numbers are numbers, true and false are not."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, {int: Integral, float: Real}.get(kind, kind))  # those of numpy, too


def _inside(value: Any, low: float | None, high: float | None) -> bool:
    """Whether a number is finite and in a range."""
    finite = issubclass(type(value), Integral) or math.isfinite(
        value
    )  # which fails on whole numbers beyond those of a float
    return finite and (low is None or value >= low) and (high is None or value <= high)


def checks_arguments(error: type[WarmStartError]) -> Callable[[_Init], _Init]:
    """Let a constructor refuse keyword arguments that are not in the :class:`Range` of their annotation.

    Parameters
    ----------
    error
        Class of what it then raises.
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
