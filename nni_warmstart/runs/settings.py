"""Settings as a YAML file gives them: read, changed by dotted name, and checked value by value."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, reason


def flat(settings: Any, prefix: str = '') -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f'{prefix}{key}'
        found.update(flat(value, f'{name}.') if isinstance(value, dict) else {name: value})
    return found


_MOST_VALUES, _MOST_LEVELS, _LARGEST = 10_000, 20, 2**31 - 1
"""What a file of settings may hold: values, sections in sections, and the largest number besides a seed."""

_EXPONENT = re.compile(r'[+-]?\d+(\.\d*)?[eE][+-]?\d+')
"""A number that YAML 1.1 takes for text, such as 3e-4."""


def limits(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """A field of a dataclass of settings, with its default and the range that :func:`typed` checks."""
    return field(default=default, metadata={'low': low, 'high': high})


def read(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict."""
    path = Path(path)
    try:
        document = parse_yaml(path.read_text())
    except OSError as error:
        raise ConfigError(f'configuration file {path} cannot be read: {error.strerror}.') from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f'configuration file {path} is not YAML: {error}') from error
    if not isinstance(document, dict):
        raise ConfigError(f'configuration file {path} holds no keys; it needs data:, space:, evaluator: and strategy:.')
    return document


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises
    ------
    ConfigError
        If it is not YAML, or gives a key twice.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # PyYAML lets through what Python says of `!!bool x`, of 2024-13-45 or of a thousand brackets
        raise ConfigError(reason(error)) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; PyYAML takes the last one."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f'key {key.value!r} is given twice', problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def overridden(document: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``document`` with keys replaced by dotted name: ``{'strategy.source': 'letters'}``."""
    document = copy.deepcopy(document)
    for dotted, value in overrides.items():
        *parents, last = dotted.split('.')
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f'{dotted} cannot be set: {parent} is no section.')
        place[last] = value
    return document


def check_values(document: Mapping[str, Any]) -> None:
    """Refuse what could be neither copied nor shown: aliases without end, millions of values, numbers of many digits."""
    left: list[tuple[str, Any, int]] = [('', document, 0)]
    count = 0
    while left:
        where, value, level = left.pop()
        count += 1
        if count > _MOST_VALUES or level > _MOST_LEVELS:
            raise ConfigError(
                f'the settings hold more than {_MOST_VALUES} values or {_MOST_LEVELS} sections in each other; an alias (*) '
                'may contain itself.'
            )
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f'{where} is a whole number of more than 64 bits; make it smaller.')
        items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        left += [(' '.join(f'{where}.{key}'.lstrip('.').split()), item, level + 1) for key, item in items]


def section_of(document: Mapping[str, Any], key: str, default: dict[str, Any]) -> Mapping[str, Any]:
    """A section of a file, or ``default`` where there is none."""
    return mapping(document.get(key, default), key)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """``value``, which must have keys."""
    if not isinstance(value, Mapping):
        raise ConfigError(f'{where} = {value!r}, but it must be a section with keys.')
    return value


def known(section: Mapping[str, Any], where: str, allowed: Any) -> Mapping[str, Any]:
    """``section``, whose keys must be among ``allowed``."""
    for key in section:
        if key not in allowed:
            name = ' '.join((f'{where}.{key}' if where else str(key)).split())
            raise ConfigError(f'key {name} is unknown{near(str(key), allowed)}.')
    return section


def near(word: str, allowed: Any) -> str:
    """The end of an error message: what was probably meant, or what there is."""
    close = difflib.get_close_matches(word, list(allowed), 1)
    return f'; did you mean {close[0]}?' if close else f'; known are {", ".join(allowed)}'


def typed(cls: Any, section: Mapping[str, Any], where: str) -> Any:
    """A dataclass of settings, each of its type and within its limits; null leaves the default."""
    items = {item.name: item for item in fields(cls)}
    known(section, where, items)
    kinds = {'int': int, 'float': float, 'bool': bool, 'str': str, 'str | None': str, 'dict | None': dict}
    values = {
        key: checked(value, f'{where}.{key}', kinds[str(items[key].type)], items[key].metadata)
        for key, value in section.items()
        if value is not None
    }
    return cls(**values)


def checked(value: Any, where: str, kind: type, limits: Mapping[str, Any]) -> Any:
    """``value`` as ``kind``, between ``limits['low']`` and ``limits['high']``; ``where`` is named in errors."""
    words = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false', dict: 'a section with keys'}
    if kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and (isinstance(value, int) or float(value).is_integer())
    fits = (number if kind is float else whole) if kind in (int, float) else isinstance(value, kind)
    if not fits:
        raise ConfigError(f'{where} = {value!r}, but it must be {words[kind]}.')
    if number:
        value = kind(value)
        low, high = limits.get('low'), limits.get('high')
        most = _LARGEST if high is None else high
        if (low is not None and value < low) or value > most or value != value:
            wanted = f'from {low} to {high}' if high is not None else f'at most {most}' if value > most else f'{low} or more'
            raise ConfigError(f'{where} = {value}, but it must be {wanted}.')
    return value
