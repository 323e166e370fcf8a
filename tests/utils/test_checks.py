"""One checker of types and ranges, for settings and for arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from nni_warmstart import ConfigError, DataError
from nni_warmstart.utils.checks import Expected, Range, check, checks_arguments, expectations


@dataclass
class Settings:
    steps: Annotated[int, Range(1)] = 1
    share: Annotated[float, Range(0, 1)] | None = None
    flag: bool | None = None
    source: Path | str | list[str] | None = None
    alpha: str | float = 'transfer'
    place: Path | None = None


def test_annotations_say_what_is_expected():
    assert expectations(Settings) == {
        'steps': Expected(int, Range(1)),
        'share': Expected(float, Range(0, 1), optional=True),
        'flag': Expected(bool, optional=True),
        'source': Expected(str, optional=True),
    }  # others may be of several plain types, or of none


@pytest.mark.parametrize(
    ('value', 'expected', 'wanted'),
    [
        (1, Expected(int, Range(1)), None),
        (0, Expected(int, Range(1)), '1 or more'),
        (1.0, Expected(int, Range(1)), 'a whole number, 1 or more'),
        (10**400, Expected(int, Range(1)), None),
        (True, Expected(int), 'a whole number'),
        (0, Expected(float, Range(0, 1)), None),
        (1, Expected(float, Range(0, 1)), None),
        (1.001, Expected(float, Range(0, 1)), 'from 0 to 1'),
        (-0.001, Expected(float, Range(0, 1)), 'from 0 to 1'),
        ('1', Expected(float, Range(0, 1)), 'a number, from 0 to 1'),
        (float('nan'), Expected(float, Range(0)), '0 or more'),
        (float('inf'), Expected(float), 'finite'),
        (None, Expected(float, optional=True), None),
        (None, Expected(float), 'a number'),
        (0, Expected(bool), 'true or false'),
        (False, Expected(bool), None),
        (['a'], Expected(str), 'text'),
        ([], Expected(dict), 'a section with keys'),
    ],
)
def test_values_on_both_sides_of_each_bound(value, expected, wanted):
    if wanted is None:
        check(value, 'it', expected, ConfigError)
        return
    with pytest.raises(ConfigError) as caught:
        check(value, 'it', expected, ConfigError)
    assert str(caught.value) == f'it = {value!r}, but it must be {wanted}.'


def test_a_constructor_refuses_arguments_out_of_their_range():
    class Trained:
        @checks_arguments(DataError)
        def __init__(self, *, steps: Annotated[int, Range(1)] = 0, name: str = 'a') -> None:
            self.steps, self.name = steps, name

    assert (Trained().steps, Trained(steps=2, name=5).name) == (0, 5)  # only what is given, and has a range
    with pytest.raises(DataError, match='steps = 0, but it must be 1 or more'):
        Trained(steps=0)
    with pytest.raises(TypeError, match='sters'):
        Trained(sters=1)
