"""Text that PostgreSQL takes: it refuses the character U+0000, so that and U+0001 are written as two characters.

The writing is lossless and keeps the order of texts by code points. Texts with neither character, nearly all there are, stay as
they are.
"""

from __future__ import annotations

import re

_SPECIAL = re.compile("[\0\1]")
_WRITTEN = re.compile("\1([\1\2])")


def written(text: str) -> str:
    """The text as PostgreSQL keeps it."""
    return _SPECIAL.sub(lambda found: "\1\1" if found[0] == "\0" else "\1\2", text)


def read(text: str) -> str:
    """Inverse of `written`."""
    return _WRITTEN.sub(lambda found: "\0" if found[1] == "\1" else "\1", text)


def encodable(text: str) -> bool:
    """Whether it is without lone surrogates, which the server refuses."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
