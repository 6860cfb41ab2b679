"""The three searches over the tables: by terms, by weighted terms, by vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.engines.base import Statistics
from ragkit.engines.lance.place import Place, translated
from ragkit.engines.lance.reading import Tables, lists, matrix, numbers
from ragkit.engines.lance.tables import PASSAGES, TERMS, among, key_of, token_of
from ragkit.engines.lance.weighing import Passages, Wanted, best, merge
from ragkit.indexes.base import Ranking, empty_ranking, top_k
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.bm25_formulas import Saturation, idf

_QUESTIONS = 16  # answered by one pass over the passages
_DEPTH, _LEAST = 10, 1_000  # candidates of the full-text index: so many times k, and at least so many
_NEAR, _NEAR_LEAST = 4, 64  # candidates of a vector index
_MARGIN = 16  # further hits of an exact search, among which the last one is hoped to score less than the k-th
_TOGETHER = 8  # vectors in one exact search
_LISTED = 1_000  # terms that a condition lists; for more, all passages are read


class LexicalSearch:
    """BM25 over the terms of one index.

    Below `upkeep.WORDS_FROM` passages every passage with a term of the question is scored. Above, LanceDB's full-text index over
    the same terms proposes candidates, by a BM25 of its own, and these are scored; fewer than it was asked for are all there are.
    """

    def __init__(
        self, place: Place, tables: Tables, number: int, bm25: BM25Index, collection: Statistics, by_index: bool
    ) -> None:
        self._place, self._tables, self._number, self._bm25 = place, tables, number, bm25
        self._collection, self._by_index = collection, by_index
        self._columns = ["position", f"terms_{number}", f"weights_{number}", f"length_{number}"]

    def rank(self, questions: Sequence[Mapping[str, int]], k: int, condition: str | None) -> list[Ranking]:
        """The best `k` of each question."""
        keys = [{key_of(term): count for term, count in question.items()} for question in questions]
        frequencies = self._frequencies({key for question in keys for key in question})
        floor = self._bm25.epsilon * self._mean_idf() if self._bm25.variant == "okapi" else 0.0
        wanted = [self._wanted(question, frequencies, floor) for question in keys]
        if self._by_index:
            return [self._proposed(question, k, condition) if len(question[0]) else empty_ranking() for question in wanted]
        return scan(self._tables, self._columns, self._passages, wanted, k, condition)

    def _wanted(self, question: Mapping[int, int], frequencies: Mapping[int, int], floor: float) -> Wanted:
        terms = np.array(sorted(term for term in question if frequencies.get(term)), np.int64)
        counts = np.array([question[term] for term in terms.tolist()], np.float64)
        found = np.array([frequencies[term] for term in terms.tolist()], np.int64)
        return terms, counts * idf(self._bm25.variant, found, self._collection.documents, floor)

    def _frequencies(self, terms: set[int]) -> dict[int, int]:
        """In how many passages each of these terms occurs."""
        if not terms:
            return {}
        where = f"number = {self._number}"
        if len(terms) <= _LISTED:
            where += f" AND {among('term', sorted(terms))}"
        return added_up(self._tables.arrow(TERMS, ["term", "documents"], where))

    def _mean_idf(self) -> float:
        frequencies = np.array(
            list(added_up(self._tables.arrow(TERMS, ["term", "documents"], f"number = {self._number}")).values())
        )
        return float(idf("robertson", frequencies, self._collection.documents).mean()) if len(frequencies) else 0.0

    def _passages(self, batch: Any) -> Passages:
        starts, terms = lists(batch.column(self._columns[1]))
        _, weights = lists(batch.column(self._columns[2]))
        relative = numbers(batch.column(self._columns[3])) / self._collection.mean_length
        formula: Saturation = self._bm25.formula
        worths = formula(weights, np.repeat(relative, np.diff(starts)))
        return Passages(numbers(batch.column("position")), starts, terms, worths)

    def _proposed(self, question: Wanted, k: int, condition: str | None) -> Ranking:
        words = " ".join(map(token_of, question[0].tolist()))
        limit = max(_DEPTH * k, _LEAST)
        column = f"words_{self._number}"
        query = self._tables[PASSAGES].search(words, query_type="fts", fts_columns=column).limit(limit)
        ranking = empty_ranking()
        with translated(self._place):
            if condition is not None:
                query = query.where(condition, prefilter=True)
            for batch in query.select([*self._columns, "_score"]).to_arrow().combine_chunks().to_batches():
                ranking = merge(ranking, best(self._passages(batch), [question], k)[0], k)
        return ranking


class SparseSearch:
    """Inner products with the weighted terms of one index, of every passage that shares a term."""

    def __init__(self, tables: Tables, number: int) -> None:
        self._tables = tables
        self._columns = ["position", f"terms_{number}", f"weights_{number}"]

    def rank(self, questions: Sequence[Wanted], k: int, condition: str | None) -> list[Ranking]:
        """The best `k` of each question."""
        return scan(self._tables, self._columns, self._passages, questions, k, condition)

    def _passages(self, batch: Any) -> Passages:
        starts, terms = lists(batch.column(self._columns[1]))
        _, weights = lists(batch.column(self._columns[2]))
        return Passages(numbers(batch.column("position")), starts, terms, weights.astype(np.float64))


class DenseSearch:
    """Inner products with the vectors of one index."""

    def __init__(self, place: Place, tables: Tables, number: int) -> None:
        self._place, self._tables, self._column = place, tables, f"vector_{number}"

    def exact(self, vectors: NDArray[np.float32], k: int, condition: str | None) -> list[Ranking]:
        """The best `k` for each vector [n, dimension], by reading every vector."""
        rankings: list[Ranking] = []
        for first in range(0, len(vectors), _TOGETHER):
            rankings += self._exact(vectors[first : first + _TOGETHER], k, k + _MARGIN, condition)
        return rankings

    def _exact(self, vectors: NDArray[np.float32], k: int, limit: int, condition: str | None) -> list[Ranking]:
        found = self._run(vectors, condition, limit, ["position", "_distance"], exact=True)
        asker, positions, distances = (numbers(found[name]) for name in ("query_index", "position", "_distance"))
        rankings = []
        for row in range(len(vectors)):
            mine = asker == row
            scores = 1 - distances[mine].astype(np.float64)
            ranking = top_k(positions[mine], scores, k)
            # the k-th score may be that of others beyond the limit, whose positions are lower
            if len(scores) == limit and scores.min() >= ranking.scores[-1]:
                [ranking] = self._exact(vectors[row : row + 1], k, 2 * limit, condition)
            rankings.append(ranking)
        return rankings

    def by_lists(self, vectors: NDArray[np.float32], k: int, probes: int, condition: str | None) -> list[Ranking]:
        """By LanceDB's index; the candidates it finds get exact scores. Exactly where it finds fewer than `k`."""
        rankings = []
        for vector in vectors:
            found = self._run(
                vector[np.newaxis], condition, max(_NEAR * k, _NEAR_LEAST), ["position", "_distance", self._column], probes=probes
            )
            scores = matrix(found[self._column], len(vector)) @ vector
            ranking = top_k(numbers(found["position"]), scores, k)
            if len(scores) < k:
                [ranking] = self.exact(vector[np.newaxis], k, condition)
            rankings.append(ranking)
        return rankings

    def _run(
        self,
        vectors: NDArray[np.float32],
        condition: str | None,
        limit: int,
        columns: list[str],
        *,
        exact: bool = False,
        probes: int = 1,
    ) -> Any:
        import pyarrow as pa

        given = vectors if len(vectors) > 1 else vectors[0]
        query = self._tables[PASSAGES].search(given, vector_column_name=self._column).distance_type("dot").limit(limit)
        query = query.bypass_vector_index() if exact else query.nprobes(probes)
        with translated(self._place):
            if condition is not None:
                query = query.where(condition, prefilter=True)
            found = query.select(columns).to_arrow()
        if len(vectors) > 1:
            return found
        # one vector comes back without its number
        return found.append_column("query_index", pa.array(np.zeros(found.num_rows, np.int32)))


def scan(
    tables: Tables, columns: list[str], read: Any, questions: Sequence[Wanted], k: int, condition: str | None
) -> list[Ranking]:
    """The best `k` of each question, among all passages that have a term of one; `read` makes `Passages` of a batch."""
    rankings = []
    for first in range(0, len(questions), _QUESTIONS):
        some = questions[first : first + _QUESTIONS]
        ours = [empty_ranking() for _ in some]
        terms = sorted({term for known, _ in some for term in known.tolist()})
        if terms:
            where = f"array_has_any({columns[1]}, make_array({', '.join(map(str, terms))}))" if len(terms) <= _LISTED else "true"
            for batch in tables.batches(columns, where if condition is None else f"({where}) AND ({condition})"):
                found = best(read(batch), some, k)
                ours = [merge(old, new, k) for old, new in zip(ours, found, strict=True)]
        rankings += ours
    return rankings


def added_up(changes: Any) -> dict[int, int]:
    """In how many passages each term occurs, from an Arrow table of changes; terms that none has left are left out."""
    terms, place = np.unique(numbers(changes["term"]), return_inverse=True)
    counts = np.bincount(place, numbers(changes["documents"]), len(terms)).astype(np.int64)
    return {term: count for term, count in zip(terms.tolist(), counts.tolist(), strict=True) if count > 0}
