"""Sentences and other units: the pieces of a passage that are kept or dropped as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

from langchain_core.documents import Document

from ragkit.documents.blocks import text_blocks
from ragkit.documents.lines import trim
from ragkit.documents.model import Block, Unit
from ragkit.documents.provenance import passage_text, provenance

_ITEM_MARKER = re.compile(r"[>\s]*(?:[-*+•]|#\.|\(?(?:\d{1,9}|[A-Za-z])[.)])\s+")
# the sentence splitter takes quadratic time on some long texts, no lone surrogates, and panics on white space outside of ASCII
# after an initial
_WINDOW = 10_000
_LONGEST_REMEMBERED = 10_000
_RARE_WHITE = re.compile("[^\\S\r\n\t ]|[\ud800-\udfff]")


def units(text: str, blocks: Iterable[Block], language: str = "en") -> tuple[Unit, ...]:
    """Sentences of the text blocks, and each heading, code block and table row as one unit, sorted.

    Together they hold every character of the blocks that is not white space. `language` is an ISO 639-1 code; for one that
    is not known the rules for English are used.
    """
    return tuple(unit for block in blocks for unit in _units(text, block, language))


def units_of(document: Document, language: str = "en") -> tuple[Unit, ...]:
    """Units of the whole passage of a document, also for one that ragkit did not split itself."""
    known = provenance(document).units
    if known is not None:
        return known
    text = passage_text(document)
    return _found_lately(text, language) if len(text) <= _LONGEST_REMEMBERED else _found(text, language)


def _found(text: str, language: str) -> tuple[Unit, ...]:
    return units(text, text_blocks(text), language)


# each stage asks anew for the units of each passage; at most, this holds 10 million characters
_found_lately = lru_cache(maxsize=1024)(_found)


def _units(text: str, block: Block, language: str) -> Iterator[Unit]:
    cuts = _sentence_ends(text[block.start : block.end], language) if block.kind == "text" else []
    for start, end in pairwise([block.start, *(block.start + cut for cut in cuts), block.end]):
        start, end = trim(text, start, end)
        if start < end:
            yield Unit(start, end, block.kind)


def _sentence_ends(text: str, language: str) -> list[int]:
    """Ascending offsets strictly inside the text at which a sentence ends."""
    marker = _ITEM_MARKER.match(text)
    at = marker.end() if marker else 0
    text = _RARE_WHITE.sub(" ", text)
    cuts: list[int] = []
    while at < len(text):
        window = text[at : at + _WINDOW]
        inside = sorted({at + end for end in _boundaries(window, language) if 0 < end < len(window)})
        cuts += inside
        # a long text goes on where its last sentence in this window began
        at = inside[-1] if inside and len(window) == _WINDOW else at + len(window)
    return cuts


def _boundaries(text: str, language: str) -> list[int]:
    from sentencex import get_sentence_boundaries

    try:
        return [sentence["end_index"] for sentence in get_sentence_boundaries(language, text)]
    except BaseException as error:
        # a panic of the compiled splitter is no Exception; the text then stays one sentence
        if type(error).__name__ != "PanicException":
            raise
        return []
