"""Files changed at random, with hypothesis: values of other kinds in plain data, and other bytes."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

WORDS = st.sampled_from(
    ['name', 'path', 'digits', 'DARTS', 'NasBench101', 'nasbench201', 'x' * 300, 'a\0b', '~no/x', 'k\nl']
)
TEXT = st.text(max_size=6) | WORDS
JSON = st.none() | st.booleans() | st.integers(-3, 8) | st.floats(-1e9, 1e9) | TEXT
BIG = st.sampled_from([2**31, 2**62, 2**64, -(2**63), 10**300, [2**40] * 3, [0, 2**62], 'F64', 'F8_E5M2'])
HUGE = st.sampled_from([10**400, -(2**63), datetime.date(2024, 1, 1), b'bytes'])
HUGE |= st.just(5000).map(lambda digits: 10**digits)  # Python does not show it
YAML = JSON | st.floats() | st.integers() | HUGE | st.builds(str.__mul__, TEXT, st.integers(0, 9999))
KEYS = TEXT | st.none() | st.booleans() | st.floats() | HUGE
"""Keys of a mapping in YAML, which may be of other kinds than text."""


def nested(leaves: st.SearchStrategy, keys: st.SearchStrategy = TEXT) -> st.SearchStrategy:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=5
    )


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in ``document`` with every key in it."""
    for key, value in list(document.items() if isinstance(document, dict) else enumerate(document)):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


@st.composite
def changed(draw: Any, document: Any, leaves: st.SearchStrategy, keys: st.SearchStrategy = TEXT) -> Any:
    """``document`` with values replaced, removed and added, at any depth."""
    root = {'document': copy.deepcopy(document)}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        container, key = places[draw(st.integers(0, len(places) - 1))]
        action = draw(st.sampled_from(['replace', 'replace', 'remove', 'add']))
        if action == 'remove' and container is not root:
            del container[key]
        elif action == 'add' and isinstance(container[key], dict):
            container[key][draw(keys)] = draw(nested(leaves, keys))
        else:
            container[key] = draw(nested(leaves, keys))
    return root['document']


@st.composite
def damaged(draw: Any, data: bytes, head: int = 0) -> bytes:
    """``data`` with bytes changed, deleted, inserted or cut off; half of the time within the first ``head``."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(changed) - 1)) | st.integers(0, min(head, max(0, len(changed) - 1))))
        action = draw(st.sampled_from(['flip', 'flip', 'delete', 'insert', 'cut']))
        if action == 'flip' and changed:
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif action == 'delete':
            del changed[place : place + draw(st.integers(1, 40))]
        elif action == 'insert':
            changed[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del changed[place:]
    return bytes(changed)
