"""Made-up corpora for measuring indexes: passages of words that are distributed like those of a language, and sparse vectors
that are distributed like those of a SPLADE model. Same seed, same corpus; a million passages take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.sparse_vectors import SparseVectors

BLOCK = 100_000  # passages made at once, which bounds memory
END = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Texts:
    """Text i is the term ids `tokens[starts[i]:starts[i + 1]]`, in order and with repeats."""

    starts: NDArray[np.int64]
    tokens: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        return self.tokens[self.starts[i] : self.starts[i + 1]]

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """These texts, in this order."""
        taken = SparseVectors(self.starts, self.tokens, np.empty(len(self.tokens), np.float32)).take(rows)
        return Texts(taken.starts, taken.terms)


def zipf(uniform: NDArray[Any], types: int, offset: float) -> NDArray[np.int32]:
    """Ranks from 0 below `types`, distributed by the law of Zipf and Mandelbrot, p(rank) ~ 1 / (rank + offset).

    `uniform` are random numbers between 0 and 1; the law's cumulative distribution, as an integral, is inverted.
    """
    ranks = offset * np.exp(uniform * np.log((types + offset) / offset)) - offset
    return np.minimum(ranks, types - 1).astype(np.int32)


def texts(
    count: int,
    *,
    types: int = 500_000,
    length: float = 60,
    source: float = 10,
    topical: float = 0.35,
    repeated: float = 0.1,
    seed: int = 0,
) -> Texts:
    """`count` passages of `length` tokens in the mean, log-normal; a term's id is its rank by frequency.

    `source` passages in the mean come from one source, one after the other, and share a vocabulary of 100 rarer terms, from
    which the share `topical` of their tokens is. The share `repeated` repeats a token of the same passage (burstiness).
    """
    parts = []
    for block in range(0, count, BLOCK):
        rng = np.random.default_rng([seed, block])
        rows = min(BLOCK, count - block)
        lengths = np.maximum(3, rng.lognormal(np.log(length) - 0.5**2 / 2, 0.5, rows).astype(np.int64))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        owner = np.repeat(np.arange(rows), lengths)
        tokens = zipf(rng.random(starts[-1], np.float32), types, 2.7)
        sources = np.cumsum(rng.random(rows) < 1 / source)
        vocabulary = 100 + zipf(rng.random((sources[-1] + 1, 100), np.float32), types - 100, 100)
        slots = (100 * rng.random(starts[-1], np.float32) ** 2).astype(np.int32)  # a source uses some of its terms more
        tokens = np.where(rng.random(starts[-1], np.float32) < topical, vocabulary[sources[owner], slots], tokens)
        since = np.arange(starts[-1]) - starts[owner]
        earlier = starts[owner] + (rng.random(starts[-1]) * since).astype(np.int64)
        tokens = np.where(rng.random(starts[-1], np.float32) < repeated, tokens[earlier], tokens)
        parts.append((lengths, tokens))
    lengths = np.concatenate([part for part, _ in parts])
    return Texts(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([part for _, part in parts]))


def questions(corpus: Texts, count: int, *, frequent: int = 50, seed: int = 1) -> Texts:
    """2 to 8 different terms each, out of one random passage, without the `frequent` most frequent terms."""
    rng = np.random.default_rng(seed)
    asked: list[NDArray[np.int32]] = []
    while len(asked) < count:
        terms = np.unique(corpus[int(rng.integers(len(corpus)))])
        terms = terms[terms >= frequent]
        if len(terms) >= 2:
            asked.append(rng.permutation(terms)[: rng.integers(2, 9)])
    return Texts(np.cumsum([0, *map(len, asked)]), np.concatenate(asked))


def splade(count: int, *, types: int = 30_522, nonzero: float = 120, source: float = 10, seed: int = 0) -> SparseVectors:
    """`count` documents of about `nonzero` terms, with weights up to 3.5, few of them large, and rarer terms heavier.

    Runs of `source` documents in the mean are of one topic; there is a topic for every 50 documents, so that topics come
    back elsewhere, and a field for every 40 topics. 30 % of a document's terms are of the 200 of its topic, which weighs some
    of them more, another 30 % are of the 1,000 of its field, the rest are any.
    """
    common = np.random.default_rng([seed, 1])
    topics = max(1, count // 50)
    of_topic = zipf(common.random((topics, 200), np.float32), types, 100)
    of_field = zipf(common.random((topics // 40 + 1, 1_000), np.float32), types, 100)
    width = int(nonzero * 2)
    parts = []
    for block in range(0, count, BLOCK // 10):
        rng = np.random.default_rng([seed, 2, block])
        rows = min(BLOCK // 10, count - block)
        sizes = np.clip(rng.lognormal(np.log(nonzero * 1.04), 0.3, rows), 8, width)  # some terms come twice
        topic = rng.integers(topics, size=rows)[np.cumsum(rng.random(rows) < 1 / source) % rows][:, None]
        uniform, kind = rng.random((2, rows, width), np.float32)
        slots = (200 * uniform**2).astype(np.int32)
        # the slot travels with the term through sorting: 1 to 200 in a topic, 201 in a field, 0 elsewhere
        keys = zipf(uniform, types, 100) * 256
        keys = np.where(kind < 0.6, of_field[topic // 40, (1_000 * uniform).astype(np.int32)] * 256 + 201, keys)
        keys = np.where(kind < 0.3, of_topic[topic, slots] * 256 + slots + 1, keys)
        keys[np.arange(width) >= sizes[:, None]] = END
        keys.sort(axis=1)
        kept = keys < END
        kept[:, :-1] &= keys[:, :-1] >> 8 != keys[:, 1:] >> 8
        flat = keys[kept]
        parts.append((kept.sum(1), flat >> 8, _weights(rng, flat >> 8, flat & 255, types)))
    starts = np.concatenate([[0], np.cumsum(np.concatenate([sizes for sizes, *_ in parts]))]).astype(np.int64)
    return SparseVectors(starts, np.concatenate([terms for _, terms, _ in parts]), np.concatenate([each for *_, each in parts]))


def splade_questions(
    documents: SparseVectors, count: int, *, types: int = 30_522, nonzero: int = 30, seed: int = 1
) -> SparseVectors:
    """About `nonzero` terms each: half out of a random document, its heavy ones rather, some out of the next, some any."""
    rng = np.random.default_rng(seed)
    rows = []
    for document in rng.integers(len(documents), size=count).tolist():
        terms, weights = _some(rng, documents, document, nonzero // 2)
        others = _some(rng, documents, (document + 1) % len(documents), nonzero // 4)
        any_ = np.unique(zipf(rng.random(nonzero // 4), types, 100))
        terms, first = np.unique(np.concatenate([terms, others[0], any_]), return_index=True)
        values = np.concatenate([weights, others[1], _weights(rng, any_, np.zeros_like(any_), types)])[first]
        rows.append((terms, np.minimum(values * rng.lognormal(0, 0.4, len(terms)), 3.5)))
    return SparseVectors.of(rows)


def _some(
    rng: np.random.Generator, documents: SparseVectors, document: int, count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    terms, weights = documents.row(document)
    picked = rng.choice(len(terms), min(len(terms), count), replace=False, p=weights / weights.sum(dtype=np.float64))
    return terms[picked], weights[picked]


def _weights(rng: np.random.Generator, terms: NDArray[np.int32], slots: NDArray[np.int32], types: int) -> NDArray[np.float32]:
    strengths = np.concatenate([[0.3], 0.3 + 1.2 * np.exp(np.arange(200) / -60), [0.45], np.zeros(54)]).astype(np.float32)
    rarity = (np.log1p(np.arange(types) / 100) / np.log1p(types / 100) + 0.5).astype(np.float32)
    noise = np.exp(0.5 * rng.standard_normal(len(terms), np.float32))
    return np.clip(strengths[slots] * rarity[terms] * noise, 0.01, 3.5)
