"""Text of unknown origin."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_warmstart.utils.text import enumerated, visible


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_nothing_that_is_shown_controls_anything(text):
    shown = visible(text)
    assert not any(unicodedata.category(each) in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp') and each not in '\n\t' for each in shown)
    shown.encode()  # halves of characters cannot be written to a terminal
    assert visible(shown) == shown
    assert len(visible(text, keep='').splitlines()) <= 1


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('größe 数字 é 🙂\xa0', 'größe 数字 é 🙂\xa0'),
        ('a\x1b[31mb', r'a\x1b[31mb'),
        ('\x9b2J', r'\x9b2J'),
        ('a\rb\bc\x7f', r'a\rb\x08c\x7f'),
        ('gnp\u202eexe', r'gnp\u202eexe'),
        ('a\u200bb\ufeff', r'a\u200bb\ufeff'),
        ('\udcff', r'\udcff'),
        ('two\nlines\t', 'two\nlines\t'),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


def test_enumerated():
    assert enumerated([]) == 'none'
    assert enumerated(['a', 'b']) == 'a, b'
    assert enumerated([f'n{i}' for i in range(300)], 2) == 'n0, n1 and 298 more'
