"""A sentence as weighted pieces that can be left out one by one: words, or characters where a script has no spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from ragkit.encoders.lexical import Analyzer, words

_LINK = re.compile(r"://|\]\(")
"""Of an address, or of a link in Markdown: nobody types these."""


class Piece(NamedTuple):
    """`weight` is 0 for a piece that nobody would search for; `attached` says that no space stands before it."""

    text: str
    weight: float
    attached: bool
    character: bool
    """Whether it is a character of an unspaced script."""


@dataclass(frozen=True)
class Splitter:
    """Cuts sentences as `analyzer` does, with weights from `idf`, which maps terms to their inverse document frequencies."""

    analyzer: Analyzer
    idf: Callable[[Sequence[str]], Mapping[str, float]]

    def __call__(self, sentence: str) -> list[Piece]:
        """The pieces of a sentence, in order.

        What stands between spaces is a piece, and weighs as much as its rarest term. A run of an unspaced script becomes its
        characters, each of which weighs the mean of the bigrams it is part of.
        """
        found: list[Piece] = []
        for chunk in sentence.split():
            found += self._unspaced(chunk) if self._is_unspaced(chunk) else self._word(chunk)
        return found

    def _is_unspaced(self, chunk: str) -> bool:
        return words(chunk, self.analyzer.language) != self._all_terms(chunk)

    def _all_terms(self, text: str) -> list[str]:
        return Analyzer(self.analyzer.language, stopwords=False, stemming=False)(text)

    def _weight(self, text: str) -> float:
        return max(self.idf(self.analyzer(text)).values(), default=0.0)

    def _word(self, chunk: str) -> list[Piece]:
        text = _trimmed(chunk)
        weight = 0.0 if _LINK.search(chunk) else self._weight(text)
        return [Piece(text, weight, attached=False, character=False)] if text else []

    def _unspaced(self, chunk: str) -> list[Piece]:
        pieces: list[Piece] = []
        for is_text, run in groupby(chunk, key=_is_text):
            if is_text:
                pieces += self._run("".join(run))
        return pieces

    def _run(self, run: str) -> list[Piece]:
        parts = words(run, self.analyzer.language)
        # of a number or a Latin word beside it a character makes no bigram
        joined = [self._all_terms(pair) == [pair] for pair in map("".join, pairwise(parts))]
        idf = self.idf(["".join(pair) for pair, is_bigram in zip(pairwise(parts), joined, strict=True) if is_bigram])
        pieces = []
        for at, part in enumerate(parts):
            sides = [n for n in (at - 1, at) if 0 <= n < len(joined) and joined[n]]
            around = [idf[parts[n] + parts[n + 1]] for n in sides]
            weight = sum(around) / len(around) if around else self._weight(part)
            pieces.append(Piece(part, weight, attached=at > 0, character=bool(around)))
        return pieces


def _trimmed(chunk: str) -> str:
    kept = [at for at, char in enumerate(chunk) if _is_text(char)]
    return chunk[kept[0] : kept[-1] + 1] if kept else ""


def _is_text(char: str) -> bool:
    """Letters, marks and numbers."""
    return unicodedata.category(char)[0] in "LMN"
