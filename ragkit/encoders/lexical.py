"""Text to the terms of a sparse index: normalisation, words or character bigrams, stop words, stems."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.languages import language_name, stop_words
from ragkit.errors import InputError

_RULES = 1  # changes with every change of what `analyze` returns

# Scripts written without spaces, and Hangul, whose particles stick to the words: kana, Han, Hangul, Thai to Khmer
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f"
_UNSPACED += "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_unspaced = re.compile(f"[{_UNSPACED}]")

# Letters and digits in lower case, and a space for every other ASCII byte; bytes of other characters stay
_SEPARATE = "".join(chr(c).lower() if chr(c).isalnum() else " " for c in range(128)).encode() + bytes(range(128, 256))
_SLICE = 2**21
"""Characters of text that `analyze_flat` takes at a time: what it needs besides its result stays below some 250 MB."""


class Analysis(NamedTuple):
    """Text i has the terms `terms[j]` for j in `tokens[starts[i]:starts[i + 1]]`, in order, repeats included."""

    starts: NDArray[np.int64]
    """[texts + 1]."""
    tokens: NDArray[np.int32]
    """[tokens] places in `terms`."""
    terms: list[str]
    """Each once, in the order in which they first came."""


@dataclass(frozen=True)
class Analyzer:
    """How a text becomes terms; documents and queries of one index must share it.

    The text is NFKC-normalised and case-folded. Runs of letters and digits are words, single characters included
    ("vitamin D" is not "vitamin"); words lose stop words and are reduced to their Snowball stems, as far as these exist for
    the language. Runs of Han, kana, Hangul, Thai, Lao, Burmese and Khmer become overlapping character bigrams, whatever the
    language; a lone character stays itself. Accents are kept.

    `language` is an English name or an ISO 639-1 code. Raises `InputError` for one that is not known, and for
    switches that are not True or False.
    """

    language: str = "english"
    stopwords: bool = True
    stemming: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", language_name(self.language))
        for field, value in (("stopwords", self.stopwords), ("stemming", self.stemming)):
            if not isinstance(value, bool):
                raise InputError(f"{field}: must be True or False, not {value!r}")

    def __call__(self, text: str) -> list[str]:
        """The terms of one text, in order."""
        return self.analyze([text])[0]

    def analyze(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text, in order."""
        split = [self._pieces(text) for text in texts]
        terms = self._terms(set().union(*split))
        return [list(chain.from_iterable(map(terms.__getitem__, pieces))) for pieces in split]

    def analyze_flat(self, texts: Iterable[str]) -> Analysis:
        """Like `analyze`, for any number of texts: 4 bytes per token, one string per term, and bounded memory besides."""
        terms: defaultdict[str, int] = defaultdict(count().__next__)
        lengths, tokens = [np.zeros(1, np.int64)], [np.empty(0, np.int32)]
        for part in _slices(texts):
            its_lengths, its_tokens = self._part(part, terms)
            lengths.append(its_lengths)
            tokens.append(its_tokens)
        return Analysis(np.cumsum(np.concatenate(lengths)), np.concatenate(tokens), list(terms))

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-serialisable facts that are equal if and only if two analyzers give the same terms."""
        return {
            "kind": "lexical",
            "rules": _RULES,
            "language": self.language,
            "stopwords": self.stopwords,
            "stemming": self.stemming,
        }

    @classmethod
    def from_fingerprint(cls, fingerprint: Mapping[str, Any]) -> Self:
        """The analyzer that has this fingerprint; raises `InputError` if this version of ragkit has none."""
        if fingerprint.get("kind") != "lexical" or fingerprint.get("rules") != _RULES:
            raise InputError("fingerprint: was made by other lexical rules than this version's; index again")
        return cls(fingerprint["language"], fingerprint["stopwords"], fingerprint["stemming"])

    def _part(self, texts: Iterable[str], ids: defaultdict[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """How many tokens each text has, and all their ids; `ids` numbers a term when it is first asked for it."""
        number: defaultdict[str, int] = defaultdict(count().__next__)
        bounds = [0]

        def split() -> Iterator[list[str]]:
            for text in texts:
                pieces = self._pieces(text)
                bounds.append(bounds[-1] + len(pieces))
                yield pieces

        # one text at a time: a piece is looked up while it is still in the processor's cache
        pieces = np.fromiter(map(number.__getitem__, chain.from_iterable(split())), np.int64)
        terms = list(map(self._terms(number).__getitem__, number))
        # from here on numbers only: what each piece became is laid end to end, and copied to wherever the piece stood
        known = np.fromiter(map(ids.__getitem__, chain.from_iterable(terms)), np.int32)
        sizes = np.fromiter(map(len, terms), np.int64, len(terms))
        ends = np.append(0, np.cumsum(sizes[pieces]))
        offsets = (np.cumsum(sizes) - sizes)[pieces] - ends[:-1]
        tokens = known[np.repeat(offsets, sizes[pieces]) + np.arange(ends[-1])]
        return np.diff(ends[bounds]), tokens

    def _pieces(self, text: str) -> list[str]:
        """The folded text, split at what is certainly no part of a token. A piece of ASCII is a word; others may be several."""
        if not text.isascii() or self.language == "turkish":
            text = _fold(text, self.language)
        # surrogates pair up in UTF-16 alone: they come back as they were
        return text.encode("utf-8", "surrogatepass").translate(_SEPARATE).decode("utf-8", "surrogatepass").split()

    def _terms(self, pieces: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What becomes of each of these distinct pieces; nothing of stop words."""
        several = {piece: tokenize(piece) for piece in pieces if not piece.isascii()}
        stopped = _stopped(self.language) if self.stopwords else frozenset[str]()
        words = list(set(pieces).difference(several, stopped).union(*several.values()) - stopped)
        terms: dict[str, tuple[str, ...]] = dict.fromkeys(stopped, ())
        terms.update(zip(words, zip(self._stem(words), strict=True), strict=True))
        for piece, tokens in several.items():
            terms[piece] = tuple(chain.from_iterable(map(terms.__getitem__, tokens)))
        return terms

    def _stem(self, words: list[str]) -> list[str]:
        import Stemmer

        if not self.stemming or self.language not in Stemmer.algorithms():
            return words
        # a stemmer may not be shared between threads; a new one costs microseconds
        stems: list[str] = Stemmer.Stemmer(self.language, 0).stemWords(words)
        return stems


def tokenize(text: str) -> list[str]:
    """Words, and bigrams of unspaced scripts, of a normalised text."""
    words, runs = _patterns()
    if not _unspaced.search(text):
        return words.findall(text)
    tokens: list[str] = []
    for run in runs.findall(text):
        tokens += map(operator.add, run, run[1:]) if len(run) > 1 and _unspaced.match(run) else [run]
    return tokens


def words(text: str, language: str) -> list[str]:
    """The folded words of a text, stop words included and whole; characters of unspaced scripts stand alone.

    A text has a phrase literally if the words of the phrase are among its words, one after the other. Raises `InputError`
    for a language that is not known.
    """
    return tokenize(_unspaced.sub(r" \g<0> ", _fold(text, language_name(language))))


def _slices(texts: Iterable[str]) -> Iterator[list[str]]:
    part, size = list[str](), 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= _SLICE:
            yield part
            part, size = [], 0
    if part:
        yield part


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    # `re` counts vowel signs and accents (categories Mn and Mc) as no letters, which would tear Hindi words apart
    marks = "".join(c for c in map(chr, range(0x0300, 0xFE30)) if unicodedata.category(c) in ("Mn", "Mc"))
    letter = rf"[^\W_{_UNSPACED}]"
    word = f"{letter}+(?:[{marks}]+{letter}*)*"
    return re.compile(word), re.compile(f"[{_UNSPACED}]+|{word}")


def _fold(text: str, language: str) -> str:
    if language == "turkish":
        text = text.replace("I", "ı").replace("İ", "i")
    return unicodedata.normalize("NFKC", text).casefold()


@cache
def _stopped(language: str) -> frozenset[str]:
    # an apostrophe leaves two common words; of a phrase, either word alone may well mean something
    words = (word for word in stop_words(language) if not re.search(r"[\s-]", word))
    return frozenset(token for word in words for token in tokenize(_fold(word, language)))
