"""Settings in YAML files: read, changed by dotted name, and checked value by value."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, reason
from ..utils.checks import Expected, Range, check, expectations, suggestion
from ..utils.files import open_regular


def flat(settings: Any, prefix: str = '') -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f'{prefix}{key}'
        found.update(flat(value, f'{name}.') if isinstance(value, dict) else {name: value})
    return found


def as_written(key: str) -> str:
    """Return the dotted name of a setting as in a YAML file, where arguments stand beside the name that they belong to.

    >>> as_written('space.arguments.width')
    'space.width'
    """
    return _ARGUMENTS.sub(r'\1.', key)


_ARGUMENTS = re.compile(r'^(space|strategy)\.arguments\.')

_MOST_VALUES, _MOST_LEVELS, _LARGEST = 10_000, 20, 2**31 - 1
"""Limits of a file of settings: values, nesting of sections, and the largest number without a range of its own."""

_LARGEST_FILE = 2**17
"""Largest size of a file of settings, in bytes."""

_EXPONENT = re.compile(r'[+-]?\d+(\.\d*)?[eE][+-]?\d+')
"""Pattern of numbers that YAML 1.1 takes for text, such as 3e-4."""


def read(path: str | Path) -> dict[str, Any]:
    """Read a YAML file as a dict.

    Raises
    ------
    ConfigError
        If it cannot be read, is too large, or is not YAML with keys.
    """
    try:
        with open_regular(path) as (file, _):
            text = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the path
        why = getattr(error, 'strerror', None) or reason(error)
        raise ConfigError(f'configuration file {path} cannot be read: {why}.') from error
    if len(text) > _LARGEST_FILE:
        raise ConfigError(f'configuration file {path} has more than {_LARGEST_FILE // 1024} kB; settings take one or two.')
    try:
        document = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f'configuration file {path} is not YAML: {error}') from error
    if not isinstance(document, dict):
        raise ConfigError(f'configuration file {path} holds no keys; it needs data:, space:, evaluator: and strategy:.')
    return document


def parse_yaml(text: str | bytes) -> Any:
    """Parse a YAML text; bytes are UTF-8, or UTF-16 with its mark.

    Raises
    ------
    ConfigError
        If the text is not YAML, has a key twice, or holds too many values.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # PyYAML does not catch Python's exceptions for `!!bool x`, 2024-13-45 or a thousand brackets
        raise ConfigError(reason(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys, of which PyYAML takes the last one, and more values than settings have."""

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self.count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        node: Any = super().compose_node(parent, index)
        self._counted(1, node)
        return node

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)  # copies what merge keys (<<) refer to, and what merge keys therein refer to
        self._counted(len(node.value), node)

    def _counted(self, number: int, node: Any) -> None:
        self.count += number
        if self.count > 3 * _MOST_VALUES:  # keys are counted like values, and both again as a pair
            problem = f'more than {_MOST_VALUES} values'
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)

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
    """Return a copy of ``document`` with keys replaced by dotted name: ``{'strategy.source': 'letters'}``."""
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


def chosen(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters of NNI with the keys of its nested choices, ``{_name: ..., key: value}``, beside the others.

    The name of such a choice is for NNI's page.

    >>> chosen({'start': {'_name': 'warm', 'strategy.source': 'auto'}, 'seed': 3})
    {'strategy.source': 'auto', 'seed': 3}
    """
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        nested = isinstance(value, Mapping) and '_name' in value
        found |= chosen({name: item for name, item in value.items() if name != '_name'}) if nested else {key: value}
    return found


def check_values(document: Mapping[str, Any]) -> None:
    """Raise an error for values that cannot be copied or shown: endless aliases, millions of values, huge numbers."""
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
        if isinstance(value, Mapping) and any(isinstance(key, int) and abs(key) >= 2**63 for key in value):
            raise ConfigError(f'{where or "the file"} has a key that is a whole number of more than 64 bits.')
        left += [(' '.join(f'{where}.{key}'.lstrip('.').split()), item, level + 1) for key, item in items]


@dataclass(frozen=True)
class NamedConfig:
    """Name with its arguments, as in ``{name: nasbench201, width: 16}``."""

    name: str
    arguments: dict[str, Any]


def named(section: Mapping[str, Any], where: str) -> NamedConfig:
    """Split a section into its name and the rest."""
    arguments = dict(section)
    name = arguments.pop('name', None)
    if not isinstance(name, str):
        raise ConfigError(f'{where}.name = {name!r}, but it must be a name; see `nni-warmstart spaces`.')
    return NamedConfig(name, arguments)


def section_of(document: Mapping[str, Any], key: str, default: dict[str, Any]) -> Mapping[str, Any]:
    """Return a section of a file, or ``default`` if the file lacks it."""
    return mapping(document.get(key, default), key)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return ``value``, which must be a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f'{where} = {value!r}, but it must be a section with keys.')
    return value


def known(section: Mapping[str, Any], where: str, allowed: Any) -> Mapping[str, Any]:
    """Return ``section``, whose keys must be among ``allowed``."""
    for key in section:
        if key not in allowed:
            name = ' '.join((f'{where}.{key}' if where else str(key)).split())
            raise ConfigError(f'key {name} is unknown{near(str(key), allowed)}')
    return section


def near(word: str, allowed: Any) -> str:
    """Return the end of an error message with its full stop: the word that was probably meant, or all allowed words."""
    meant = suggestion(word, allowed).strip()
    return f'; {meant[0].lower()}{meant[1:]}' if meant else f'; known are {", ".join(allowed)}.'


def typed(cls: Any, section: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass from settings, each checked against the type and range of its annotation; null is the default."""
    expected = expectations(cls)
    known(section, where, [item.name for item in fields(cls)])
    return cls(**{
        key: checked(value, f'{where}.{key}', expected[key].kind, expected[key].range)
        for key, value in section.items()
        if value is not None
    })  # fmt: skip


def checked(value: Any, where: str, kind: type, limits: Range | None = None) -> Any:
    """Convert a value from YAML to type ``kind`` and check its limits; ``where`` is named in errors.

    Integers are accepted as floats, 2.0 as an integer, and 3e-4, which YAML takes for text, as a number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and (is_number or (isinstance(value, str) and _EXPONENT.fullmatch(value))):
        value = float(value)
    elif kind is int and is_number and float(value).is_integer():
        value = int(value)
    if kind in (int, float) and isinstance(value, kind) and value > _LARGEST and (limits or Range()).high is None:
        raise ConfigError(f'{where} = {value}, but it must be at most {_LARGEST}.')
    check(value, where, Expected(kind, limits), ConfigError)
    return value
