"""Text of unknown origin, made safe to show."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_HIDDEN = {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}  # controls, formats (directions, joiners of no width), surrogates, separators


def visible(text: str, keep: str = '\n\t') -> str:
    r"""Return text whose control characters are written out, so that it can neither steer a terminal nor hide a part.

    Parameters
    ----------
    text
        Text, such as a name in a card or of a file.
    keep
        Control characters that stay as they are; '' for text that has to be one line.

    Examples
    --------
    >>> print(visible('a\x1b]0;title\x07b'))
    a\x1b]0;title\x07b
    """
    if text.isprintable():
        return text
    return ''.join(
        each if each in keep or unicodedata.category(each) not in _HIDDEN else each.encode('unicode_escape').decode()
        for each in text
    )


def enumerated(names: Sequence[str], most: int = 20) -> str:
    """Return the first ``most`` names and the number of the others, for an error; 'none' if there are none."""
    shown = ', '.join(names[:most])
    if len(names) > most:
        shown += f' and {len(names) - most} more'
    return shown or 'none'
