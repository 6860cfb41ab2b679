"""What a prompt shows of documents: one line each, capped by relevance rather than by place, and inert."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from langchain_core.documents import Document

from ragkit.documents.blocks import text_blocks
from ragkit.documents.provenance import passage_text, provenance
from ragkit.documents.sentences import units, units_of
from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders.languages import iso_code
from ragkit.provence.titles import title_of
from ragkit.quoting import plain
from ragkit.retrievers.overlap import bm25_scores

_PIECES = 4
"""A piece of a passage has at most this part of the cap, so that a text without full stops is not all or nothing."""
_GAP = " … "


class _Piece(NamedTuple):
    """A sentence, or a part of a very long one; offsets into the shown text."""

    start: int
    end: int
    tokens: int


def shown_passages(question: str, documents: Sequence[Document], cap: int, language: str = "english") -> list[str]:
    """Each document as one line: its title, a colon, and at most `cap` tokens of its text.

    Shown is `page_content`: what a pruner has removed need not be judged. Of a text beyond the cap stay the sentences that share
    most with the question (BM25 over the sentences of all such texts), in their order, with … where something is left out;
    without any such sentence, the first ones. Tokens are those of `RegexTokenizer`. `plain` makes identifiers, fences and
    the tokens of chat templates inside the text inert.
    """
    code = iso_code(language)
    tokenizer = RegexTokenizer()
    texts = [document.page_content for document in documents]
    starts = tokenizer.starts(texts)
    long = [at for at, its_starts in enumerate(starts) if len(its_starts) > cap]
    pieces = {at: _pieces(documents[at], starts[at].tolist(), max(cap // _PIECES, 1), code) for at in long}
    scores = iter(bm25_scores(question, [texts[at][piece.start : piece.end] for at in long for piece in pieces[at]], language))
    for at in long:
        kept = _best(pieces[at], [next(scores) for _ in pieces[at]], cap)
        texts[at] = _joined(texts[at], kept)
    return [_line(_title(document, code, max(cap // _PIECES, 1)), text) for document, text in zip(documents, texts, strict=True)]


def _line(title: str, text: str) -> str:
    return ": ".join(part for part in (plain(title), plain(text)) if part) or "(empty)"


def _title(document: Document, code: str, cap: int) -> str:
    if not document.metadata.get("title") and not provenance(document).headings:
        return ""
    title = title_of(document, units_of(document, code))
    [starts] = RegexTokenizer().starts([title])
    return title if len(starts) <= cap else title[: starts[cap]].rstrip() + _GAP.rstrip()


def _pieces(document: Document, starts: list[int], longest: int, code: str) -> list[_Piece]:
    """Sentences, headings, rows and code blocks, cut at tokens where they are longer than `longest`."""
    text = document.page_content
    # the units of a document that nobody has shortened are known; those of a shortened one count in another text
    known = units_of(document, code) if text == passage_text(document) else units(text, text_blocks(text), code)
    places = np.array(starts)
    pieces = []
    for unit in known:
        first, last = np.searchsorted(places, [unit.start, unit.end])
        cuts = [unit.start, *(starts[at] for at in range(first + longest, last, longest)), unit.end]
        pieces += [
            _Piece(start, end, min(longest, int(last - first) - at * longest)) for at, (start, end) in enumerate(pairwise(cuts))
        ]
    return pieces


def _best(pieces: Sequence[_Piece], scores: Sequence[float], cap: int) -> list[_Piece]:
    """The pieces with the highest scores that fit, the earlier of equal ones, in the order of the text."""
    kept, left = [], cap
    for at in sorted(range(len(pieces)), key=lambda at: -scores[at]):
        if pieces[at].tokens <= left:
            kept.append(at)
            left -= pieces[at].tokens
    return [pieces[at] for at in sorted(kept)]


def _joined(text: str, pieces: Sequence[_Piece]) -> str:
    shown: list[str] = []
    end = 0
    for piece in pieces:
        between = text[end : piece.start]
        shown += [_GAP if between.strip() else between, text[piece.start : piece.end]]
        end = piece.end
    return "".join([*shown, _GAP if text[end:].strip() else ""]).strip()
