"""Plain data mutated at random: keys lost, renamed and exchanged, values of other types, sizes and places."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

STRANGE = (
    None, -1, 0, 1, 2, 7, 10**6, 10**12, 2.5, -0.5, float(1 << 70), True, '', 'x', 'out', 'in', 'a.' * 300, [], [1], [[1]],
    {}, {'start': 0, 'length': 3}, {'start': 2**24 - 5, 'length': 4}, {'channels': [5, 1, 2]}, [None, None],
)  # fmt: skip


def mutated(plain: Any, seed: int) -> Any:
    """Return a copy with one to four mutations, which begin in any part of it with the same probability."""
    generator, plain = random.Random(seed), copy.deepcopy(plain)
    for _ in range(generator.choice([1, 1, 1, 2, 4])):
        part = generator.choice(sorted(plain, key=str))
        paths = list(_paths(plain[part], (part,)))
        path = generator.choice(paths)
        parent, key = _at(plain, path[:-1]), path[-1]
        match generator.randrange(7):
            case 0:
                del parent[key]
            case 1:
                parent[key] = copy.deepcopy(_at(plain, generator.choice(paths)))
            case 2 if isinstance(parent, dict):
                parent[str(generator.choice(paths)[-1])] = parent.pop(key)
            case 3 if type(parent[key]) is int:
                parent[key] += generator.choice([-3, -1, 1, 2, 100])
            case 4 if isinstance(parent[key], list):
                generator.shuffle(parent[key])
            case 5 if isinstance(parent, dict):
                other = generator.choice(sorted(parent))
                parent[key], parent[other] = parent[other], parent[key]
            case _:
                parent[key] = copy.deepcopy(generator.choice(STRANGE))
    return plain


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _paths(value[key], (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value
