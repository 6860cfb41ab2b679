"""A set that indexes are measured on: documents, questions, and the exact answers; on disk, so that processes can share it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from retrieval import DATA
from synthetic import Texts, questions, splade, splade_questions, texts

from ragkit.encoders.lexical import Analyzer
from ragkit.encoders.vocabulary import Vocabulary
from ragkit.evaluation.datasets import load_dataset
from ragkit.indexes.base import top_k
from ragkit.sparse_vectors import SparseVectors

K1, B = 1.2, 0.75
DEPTH = 100
SIZES = {"20k": 20_000, "100k": 100_000, "1m": 1_000_000, "4m": 4_000_000}
Hits = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True)
class Problem:
    """A folder of arrays. BM25 gets texts as `documents` and `questions`, learned sparse retrieval vectors."""

    folder: Path
    learned: bool

    @cached_property
    def documents(self) -> Any:
        """`Texts`, or `SparseVectors` if `learned`."""
        return self._read("documents")

    @cached_property
    def questions(self) -> Any:
        """Of the same kind."""
        return self._read("questions")

    @cached_property
    def exact(self) -> tuple[list[Hits], SparseVectors, SparseVectors]:
        """The best `DEPTH` documents of each question, and documents and questions whose inner products are the scores."""
        found = [np.load(self.folder / f"exact_{name}.npy", "r") for name in ("ends", "positions", "scores")]
        starts = [0, *found[0].tolist()]
        hits = [(found[1][a:b], found[2][a:b]) for a, b in pairwise(starts)]
        return hits, self._vectors("weighted_documents"), self._vectors("weighted_questions")

    @classmethod
    def make(cls, name: str, folder: Path, count: int) -> Problem:
        """`name` is a dataset and its split, as in "scifact:test", or like "zipf-100k" or "splade-1m-shuffled"."""
        kind, _, size = name.partition("-")
        size, _, shuffled = size.partition("-")
        documents: Any
        asked: Any
        if kind == "splade":
            documents = splade(SIZES[size])
            asked = splade_questions(documents, count)
        elif kind == "zipf":
            documents = texts(SIZES[size])
            asked = questions(documents, count)
        else:
            documents, asked = _dataset(name, count)
        if shuffled:
            documents = documents.take(np.random.default_rng(2).permutation(len(documents)))
        problem = cls(folder, kind == "splade")
        problem._write("documents", documents)
        problem._write("questions", asked)
        return problem

    def solve(self) -> None:
        """Score every document that shares a term with a question, in float64, and keep the best. Writes `exact`."""
        from scipy.sparse import csr_matrix

        if self.learned:
            documents, asked = self.documents, self.questions
        else:
            documents, asked = (
                bm25_weights(self.documents),
                SparseVectors.count_flat(self.questions.starts, self.questions.tokens),
            )
        for name, vectors in (("weighted_documents", documents), ("weighted_questions", asked)):
            self._write_arrays(name, starts=vectors.starts, terms=vectors.terms, weights=vectors.weights)
        width = int(max(documents.terms.max(), asked.terms.max())) + 1
        lists = csr_matrix((documents.weights, documents.terms, documents.starts), (len(documents), width)).tocsc()
        scores = np.zeros(len(documents))
        best = []
        for i in range(len(asked)):
            scores[:] = 0
            for term, weight in zip(*asked.row(i), strict=True):
                span = slice(lists.indptr[term], lists.indptr[term + 1])
                scores[lists.indices[span]] += float(weight) * lists.data[span].astype(np.float64)
            hits = np.flatnonzero(scores)
            best.append(top_k(hits, scores[hits], DEPTH))
        self._write_arrays(
            "exact",
            ends=np.cumsum([len(each.positions) for each in best]),
            positions=np.concatenate([each.positions for each in best]),
            scores=np.concatenate([each.scores for each in best]),
        )

    def _read(self, name: str) -> Any:
        if self.learned:
            return self._vectors(name)
        return Texts(*(np.load(self.folder / f"{name}_{part}.npy", "r") for part in ("starts", "tokens")))

    def _vectors(self, name: str) -> SparseVectors:
        return SparseVectors(*(np.load(self.folder / f"{name}_{part}.npy", "r") for part in ("starts", "terms", "weights")))

    def _write(self, name: str, value: Any) -> None:
        self._write_arrays(name, **vars(value))

    def _write_arrays(self, name: str, **arrays: NDArray[Any]) -> None:
        for part, array in arrays.items():
            np.save(self.folder / f"{name}_{part}.npy", array)


def _dataset(name: str, count: int) -> tuple[Texts, Texts]:
    folder, _, split = name.partition(":")
    dataset = load_dataset(DATA / folder, split)
    analyzer, vocabulary = Analyzer(), Vocabulary()
    documents = [vocabulary.add(tokens) for tokens in analyzer.analyze([each.page_content for each in dataset.documents])]
    asked = list(dataset.queries.values())
    asked = asked[:: max(1, len(asked) // count)][:count]
    # a question none of whose words is in the corpus says nothing about speed, and some systems refuse it
    found = [ids for ids in map(vocabulary.lookup, analyzer.analyze(asked)) if len(ids)]
    return tuple(  # type: ignore[return-value]
        Texts(np.cumsum([0, *map(len, lists)]).astype(np.int64), np.concatenate(lists)) for lists in (documents, found)
    )


def bm25_weights(documents: Texts) -> SparseVectors:
    """What each term adds to the score of each document that has it: Lucene's BM25, with weights in float64."""
    counts = SparseVectors.count_flat(documents.starts, documents.tokens)
    lengths = np.diff(documents.starts)
    having = np.bincount(counts.terms)
    idf = np.log1p((len(documents) - having + 0.5) / (having + 0.5))
    norms = np.repeat(K1 * (1 - B + B * lengths / lengths.mean()), np.diff(counts.starts))
    frequencies = counts.weights.astype(np.float64)
    weights: Any = idf[counts.terms] * frequencies / (frequencies + norms)
    return SparseVectors(counts.starts, counts.terms, weights)


def agreement(problem: Problem, answers: list[Hits], k: int) -> tuple[float, float]:
    """The share of the exact top `k` that was found, and the largest difference of a score.

    A document counts as one of the exact top `k` if its exact score is that of the k-th, or higher, so that systems may order
    ties as they like; scores that differ by less than 1e-5 of their size are tied. The difference is relative to the highest
    exact score of the question, and not a number if the system gives no scores.
    """
    hits, documents, asked = problem.exact
    found = wanted = 0
    difference = 0.0
    for i, (positions, scores) in enumerate(answers):
        real = min(k, len(hits[i][0]))
        wanted += real
        positions, scores = positions[:k], scores[:k]
        if not len(positions) or not real:
            continue
        terms, weights = asked.row(i)
        rows = documents.take(positions)
        at = np.minimum(np.searchsorted(terms, rows.terms), len(terms) - 1)
        shared = terms[at] == rows.terms
        owner = np.repeat(np.arange(len(positions)), np.diff(rows.starts))
        values = rows.weights.astype(np.float64) * weights[at] * shared
        exact = np.bincount(owner, values, len(positions))
        best, last = hits[i][1][0], hits[i][1][real - 1]
        found += min(real, int((exact >= last - 1e-5 * best).sum()))
        difference = np.maximum(difference, np.abs(exact - scores).max() / best)  # keeps NaN
    return found / max(wanted, 1), float(difference)
