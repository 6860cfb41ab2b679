"""Which words question and passage share, and how rare they are: the lexical evidence that a small model would otherwise lose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.model import Unit

BUCKETS = 1 << 18
UNIT_FEATURES, PASSAGE_FEATURES = 4, 3
_WORDS = re.compile(r"[^\W_]+")
# scripts written without spaces: each character is a word of its own
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
)
_K1, _B = 1.2, 0.75


class Words(NamedTuple):
    """The words of a text: where they lie, and the bucket of each one's stem."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    buckets: NDArray[np.int64]


class Match(NamedTuple):
    """What question and passage share; rarity lies between 0 (in every passage) and 1 (in none that was counted)."""

    question: Words
    title: Words
    passage: Words
    shared: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]
    """For each word of question, title and passage whether the other side has it; the title is on the passage's side."""
    units: NDArray[np.float32]
    """Lexical evidence of each unit, [units, UNIT_FEATURES]; see `unit_evidence`."""
    whole: NDArray[np.float32]
    """Lexical evidence of the passage with its title, [PASSAGE_FEATURES]: the shares of the question's words, by
    rarity, that all of it, its best unit, and its title hold."""


def words(text: str) -> Words:
    """Runs of letters and digits, English stems, hashed. A run with a character of a script without spaces falls apart."""
    spans = [found.span() for found in _WORDS.finditer(text)]
    if not text.isascii() and _UNSPACED.search(text):
        spans = [part for start, end in spans for part in _parts(text, start, end)]
    buckets = np.array([_bucket(text[start:end]) for start, end in spans], np.int64)
    edges = np.array(spans, np.int64).reshape(-1, 2)
    return Words(edges[:, 0], edges[:, 1], buckets)


def _parts(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [(at, at + 1) for at in range(start, end)] if _UNSPACED.search(text, start, end) else [(start, end)]


@lru_cache(maxsize=1 << 17)
def _bucket(word: str) -> int:
    return crc32(_stem(word.casefold()).encode()) % BUCKETS


def _stem(word: str) -> str:
    import Stemmer

    stem: str = Stemmer.Stemmer("english", 0).stemWord(word)
    return stem


def rarity_of(passages: Sequence[str]) -> NDArray[np.uint8]:
    """A table of ln((N + 1) / (df + 1)) / ln(N + 1) by bucket, in 255ths; N passages, df of them with a word of the bucket."""
    counts = np.zeros(BUCKETS)
    for passage in passages:
        counts[np.unique(words(passage).buckets)] += 1
    total = np.log(len(passages) + 1)
    table: NDArray[np.uint8] = np.round(255 * (total - np.log(counts + 1)) / total).astype(np.uint8)
    return table


def match(question: str, title: str, passage: str, units: Sequence[Unit], rarity: NDArray[np.float32]) -> Match:
    """Compare a question with a passage."""
    asked, headed, told = words(question), words(title), words(passage)
    wanted, places = np.unique(asked.buckets, return_inverse=True)
    (in_title, headed_shared), (in_passage, told_shared) = _seen(wanted, headed), _seen(wanted, told)
    there = in_title | in_passage
    weights = rarity[wanted]
    total = max(float(weights.sum()), 1e-6)
    evidence = unit_evidence(wanted, weights / total, told, units)
    covered = [
        float(weights[there].sum()) / total,
        float(evidence[:, 0].max(initial=0.0)),
        float(weights[in_title].sum()) / total,
    ]
    return Match(asked, headed, told, (there[places], headed_shared, told_shared), evidence, np.array(covered, np.float32))


def unit_evidence(
    wanted: NDArray[np.int64], weights: NDArray[np.float32], told: Words, units: Sequence[Unit]
) -> NDArray[np.float32]:
    """Four numbers between 0 and 1 per unit, [units, UNIT_FEATURES].

    The share of the question's words (by rarity) that the unit holds, the same relative to the passage's best unit, and
    BM25 (k1 = 1.2, b = .75, rarity in place of idf) likewise twice.
    """
    columns, hits = columns_of(wanted, told.buckets)
    rows = units_at(told, units)
    inside = rows >= 0
    counts = np.zeros((len(units), len(wanted)))
    np.add.at(counts, (rows[inside & hits], columns[inside & hits]), 1)
    lengths = np.bincount(rows[inside], minlength=len(units)).astype(float)
    mean = max(float(lengths.mean()) if len(lengths) else 0.0, 1.0)
    share: NDArray[np.float64] = (counts > 0).astype(float) @ weights.astype(float)
    bm25: NDArray[np.float64] = (counts / (counts + _K1 * (1 - _B + _B * lengths[:, None] / mean))) @ weights.astype(float)
    return np.stack([share, _to_best(share), bm25, _to_best(bm25)], 1).astype(np.float32)


def units_at(said: Words, units: Sequence[Unit]) -> NDArray[np.int64]:
    """For each word the unit in which it begins, -1 for none."""
    return spans_at(said.starts, *edges_of(units))


def edges_of(units: Sequence[Unit]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where units begin and end."""
    starts, ends = np.array([(unit.start, unit.end) for unit in units], np.int64).reshape(-1, 2).T
    return starts, ends


def spans_at(places: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place in which of the sorted spans it lies, -1 for none."""
    at = np.searchsorted(starts, places, side="right") - 1
    return np.where((at >= 0) & (places < np.append(ends, 0)[at]), at, -1)


def columns_of(wanted: NDArray[np.int64], buckets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each bucket where it stands in the sorted `wanted`, and whether it does."""
    if not len(wanted):
        return np.zeros(len(buckets), np.int64), np.zeros(len(buckets), bool)
    columns = np.minimum(np.searchsorted(wanted, buckets), len(wanted) - 1)
    return columns, wanted[columns] == buckets


def _seen(wanted: NDArray[np.int64], words: Words) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each of `wanted` whether it is among the words, and for each word whether it is wanted."""
    columns, hits = columns_of(wanted, words.buckets)
    seen = np.zeros(len(wanted), bool)
    seen[columns[hits]] = True
    return seen, hits


def _to_best(values: NDArray[np.float64]) -> NDArray[np.float64]:
    best = values.max(initial=0.0)
    return values / best if best > 0 else values
