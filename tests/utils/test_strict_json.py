"""JSON of unknown origin: what is sound is read as by the library, what is not costs neither memory nor time."""

from __future__ import annotations

import json
import time
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_warmstart.errors import ConfigError, SupernetFileError
from nni_warmstart.utils import limits
from nni_warmstart.utils.limits import Budget, limited, most_bytes, most_seconds
from nni_warmstart.utils.strict_json import DEEPEST, parse, parse_compressed

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def budget() -> Budget:
    return Budget('file', SupernetFileError)


@settings(max_examples=100, deadline=None)
@given(value=VALUES, ascii_only=st.booleans())
def test_sound_text_is_read_as_by_the_library(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only).encode('utf-8', 'surrogatepass')
    with suppress(UnicodeDecodeError):  # halves of characters cannot be written as UTF-8
        assert parse(text, budget()) == value
        assert parse_compressed(zlib.compress(text), budget()) == value


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60) | st.text('[]{}",:0-.eNaN\\u1', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_an_error(data):
    with suppress(ValueError):
        parse(data, budget())


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": 1, "a": 2}', 'a key twice'),
        ('[NaN]', 'NaN is no finite number'),
        ('[-Infinity]', 'no finite number'),
        ('[1e999]', '1e999 is no finite number'),
        ('9' * 301, 'has 301 digits'),
        ('[' * 101 + ']' * 101, 'more than 100 lists and objects'),
        ('{"a":' * 101 + '1' + '}' * 101, 'more than 100 lists and objects'),
        ('[' * 10**6 + ']' * 10**6, 'more than 100 lists and objects'),
        ('["]]]]' + '","[[[[' * 60 + '"]' + ' ', None),
    ],
)
def test_what_json_must_not_say(text, message):
    if message is None:
        assert parse(text.encode(), budget()) == json.loads(text)
        return
    with pytest.raises(ValueError, match=message):
        parse(text.encode(), budget())


def test_depth_is_seen_behind_brackets_in_text():
    text = '["[[[[",' * 101 + '1' + ']' * 101
    assert text.count('[') > DEEPEST
    with pytest.raises(ValueError, match='inside each other'):
        parse(text.encode(), budget())


BOMBS = {
    'lists': b'[' + b'[],' * 3_000_000 + b'[]]',
    'objects': b'[' + b'{"a":{}},' * 1_000_000 + b'1]',
    'numbers': b'[' + b'1.5,' * 3_000_000 + b'1]',
    'texts': b'[' + b'"ab",' * 2_000_000 + b'1]',
    'wide': '["\U0001f600'.encode() + b'a' * 10_000_000 + b'"]',
}


@pytest.mark.parametrize('name', BOMBS)
def test_memory_stays_within_the_limit(name):
    """10 MB may be spent, and more than that is never in use."""
    with limited(20):
        for read, data in ((parse, BOMBS[name]), (parse_compressed, zlib.compress(BOMBS[name], 1))):
            tracemalloc.start()
            began = time.perf_counter()
            with pytest.raises(SupernetFileError, match=f'file is too large.*limit of 20 MB.*{limits.VARIABLE}'):
                read(data, budget())
            assert time.perf_counter() - began < 5
            assert tracemalloc.get_traced_memory()[1] < 20e6
            tracemalloc.stop()


@settings(max_examples=10, deadline=None)
@given(value=VALUES, times=st.integers(300, 600))
def test_what_is_spent_is_no_less_than_what_is_used(value, times):
    text = json.dumps([value] * times).encode()
    spent = budget()
    before = spent.left
    tracemalloc.start()
    kept = parse(text, spent)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) == times
    assert used <= before - spent.left


def test_compressed_megabytes_are_not_made():
    stream = zlib.compressobj(1)
    bomb = b''.join(stream.compress(bytes(10**6)) for _ in range(100)) + stream.flush()
    tracemalloc.start()
    with limited(10), pytest.raises(SupernetFileError, match='too large'):
        parse_compressed(bomb, budget())
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    for damaged in (bomb[:100], b'no zlib', b''):
        with pytest.raises(zlib.error):
            parse_compressed(damaged, budget())


def test_the_limit(monkeypatch):
    monkeypatch.delenv(limits.VARIABLE, raising=False)
    assert most_bytes() == 500e6
    with limited(2000):
        assert most_bytes() == 2e9
        assert most_seconds() == 210
    assert most_bytes() == 500e6
    for wrong in ('', '0', '-1', '1.5', 'many', '9' * 30, '٣'):
        monkeypatch.setenv(limits.VARIABLE, wrong)
        with pytest.raises(ConfigError, match=f'{limits.VARIABLE} = .*whole number of megabytes'):
            most_bytes()
