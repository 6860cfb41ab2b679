"""What can be seen of a passage without a question: pure functions of its text, each from 0 (harmless) to 1 (the worst)."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Collection
from typing import NamedTuple

from ragkit.encoders.languages import language_name, stop_words
from ragkit.encoders.lexical import words

_LINK = re.compile(r"!?\[[^\][]*\]\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|<https?://[^>\s]*>|https?://[^\s)>\]]+|www\.[^\s)>\]]+")
_WINDOW, _TYPICAL = 1000, 0.45
"""Of so many bytes of prose, zlib leaves a larger share than this; of longer texts it leaves less, whatever they are."""
_COMPRESSIBLE = 200
"""Bytes below which it says nothing."""
_ENOUGH = 20
"""Words of a passage that is not short; two characters of an unspaced script count as one."""
_FUNCTION_WORDS = 0.15
"""Prose in a language with a list of stop words has at least so many of them, in every script with spaces."""


class Features(NamedTuple):
    """See `features`."""

    repeated: float
    links: float
    redundancy: float
    brevity: float
    symbols: float
    telegraphic: float


def features(text: str, repeated_lines: Collection[str], language: str = "english") -> Features:
    """The features of a passage; `repeated_lines` are those that many sources have, as `line_key` gives them."""
    tokens = words(text, language)
    return Features(
        repeated=repeated_share(text, repeated_lines),
        links=link_density(text),
        redundancy=redundancy(text),
        brevity=brevity(tokens),
        symbols=symbol_share(text),
        telegraphic=telegraphic(tokens, language),
    )


def line_key(line: str) -> str:
    """What two lines must share to count as the same: their text but for case, white space and the marks around it."""
    return " ".join(line.casefold().split()).strip("#*-_=|>.:•· `~")


def repeated_share(text: str, repeated_lines: Collection[str]) -> float:
    """The share of the text's characters (white space aside) in lines that many sources have: boilerplate, navigation."""
    sizes = [(len("".join(line.split())), line_key(line) in repeated_lines) for line in text.splitlines()]
    total = sum(size for size, _ in sizes)
    return sum(size for size, repeated in sizes if repeated) / total if total else 0.0


def link_density(text: str) -> float:
    """The share of the characters (white space aside) in links: addresses, and links of Markdown with their text.

    As in Kohlschütter, Fankhauser and Nejdl, "Boilerplate detection using shallow text features" (WSDM 2010), which found it and
    the number of words to tell boilerplate from text.
    """
    total = len("".join(text.split()))
    return sum(len("".join(link[0].split())) for link in _LINK.finditer(text)) / total if total else 0.0


def redundancy(text: str) -> float:
    """How much better the text can be compressed (zlib, 1000 bytes at a time) than prose: 0 for prose, towards 1 for the same
    over and over.

    0 for texts too short to tell. Compressibility as a sign of poor text: Ntoulas et al., "Detecting spam web pages through
    content analysis" (WWW 2006).
    """
    data = text.encode("utf-8", "replace")
    if len(data) < _COMPRESSIBLE:
        return 0.0
    left = sum(len(zlib.compress(data[at : at + _WINDOW], 9)) for at in range(0, len(data), _WINDOW))
    return max(0.0, 1 - left / len(data) / _TYPICAL)


def brevity(tokens: Collection[str]) -> float:
    """1 for a passage without words, falling to 0 at 20 words; `tokens` are its words, and the characters of unspaced scripts."""
    size = sum(0.5 if len(token) == 1 and not token.isascii() else 1.0 for token in tokens)
    return max(0.0, 1 - size / _ENOUGH)


def symbol_share(text: str) -> float:
    """The share of the characters (white space aside) that are no letters, marks or numbers, as far as it exceeds one half."""
    kinds = [unicodedata.category(char)[0] for char in text if not char.isspace()]
    share = sum(kind not in "LMN" for kind in kinds) / len(kinds) if kinds else 1.0
    return max(0.0, 2 * share - 1)


def telegraphic(tokens: Collection[str], language: str) -> float:
    """1 for a text without stop words, such as a list of names, falling to 0 at the share that any prose has.

    0 where no list of stop words is known for the language, and for a text too short to tell.
    """
    stopped = frozenset(stop_words(language_name(language)))
    if not stopped or len(tokens) < _ENOUGH:
        return 0.0
    return max(0.0, 1 - sum(token in stopped for token in tokens) / len(tokens) / _FUNCTION_WORDS)
