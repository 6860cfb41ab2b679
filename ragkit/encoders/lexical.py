"""Text to the terms of a sparse index: normalisation, words or character bigrams, stop words, stems; and term ids."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.languages import language_name, stop_words
from ragkit.errors import InputError

_RULES = 1  # changes with every change of what `analyze` returns

# Scripts written without spaces, and Hangul, whose particles stick to the words: kana, Han, Hangul, Thai to Khmer
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f"
_UNSPACED += "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_unspaced = re.compile(f"[{_UNSPACED}]")


@dataclass(frozen=True)
class Analyzer:
    """How a text becomes terms; documents and queries of one index must share it.

    The text is NFKC-normalised and case-folded. Runs of letters and digits are words, single characters included
    ("vitamin D" is not "vitamin"); words lose stop words and are reduced to their Snowball stems, as far as these exist for
    the language. Runs of Han, kana, Hangul, Thai, Lao, Burmese and Khmer become overlapping character bigrams, whatever the
    language; a lone character stays itself. Accents are kept.

    `language` is an English name or an ISO 639-1 code. Raises `InputError` for one that is not known.
    """

    language: str = "english"
    stopwords: bool = True
    stemming: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", language_name(self.language))

    def __call__(self, text: str) -> list[str]:
        """The terms of one text, in order."""
        return self.analyze([text])[0]

    def analyze(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text, in order."""
        split = [tokenize(_fold(text, self.language)) for text in texts]
        stopped = _stopped(self.language) if self.stopwords else frozenset[str]()
        words = list(set().union(*split) - stopped)
        terms = dict(zip(words, self._stem(words), strict=True))
        return [[terms[token] for token in tokens if token in terms] for tokens in split]

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

    def _stem(self, words: list[str]) -> list[str]:
        import Stemmer

        if not self.stemming or self.language not in Stemmer.algorithms():
            return words
        # a stemmer may not be shared between threads; a new one costs microseconds
        stems: list[str] = Stemmer.Stemmer(self.language, 0).stemWords(words)
        return stems


class Vocabulary:
    """Terms and their ids, numbered from 0 in the order in which they first came."""

    def __init__(self, terms: Sequence[str] = ()) -> None:
        self._ids = {term: i for i, term in enumerate(terms)}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """The id of each token; tokens that are new get the next ids."""
        ids = self._ids
        return np.fromiter((ids.setdefault(token, len(ids)) for token in tokens), np.int32, len(tokens))

    def lookup(self, tokens: Sequence[str]) -> NDArray[np.int32]:
        """The ids of the tokens that are known, repeats included."""
        return np.array([self._ids[token] for token in tokens if token in self._ids], np.int32)

    def save(self, file: Path) -> None:
        """Write a JSON list of the terms, in the order of their ids."""
        file.write_text(json.dumps(list(self._ids), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote."""
        return cls(json.loads(file.read_text(encoding="utf-8")))


def tokenize(text: str) -> list[str]:
    """Words, and bigrams of unspaced scripts, of a normalised text."""
    words, runs = _patterns()
    if not _unspaced.search(text):
        return words.findall(text)
    tokens: list[str] = []
    for run in runs.findall(text):
        tokens += map("".join, pairwise(run)) if len(run) > 1 and _unspaced.match(run) else [run]
    return tokens


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
