"""BM25 that looks for a similar term where no passage has a term of the question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from ragkit.corpus.filters import Filter
from ragkit.encoders.vocabulary import Vocabulary
from ragkit.errors import InputError
from ragkit.retrievers.base import Ranked
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.similar_terms import SimilarTerms, edits_allowed
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import LexicalIndex

_SIMILAR: WeakKeyDictionary[Vocabulary, SimilarTerms] = WeakKeyDictionary()


class TypoTolerantRetriever(BM25Retriever):
    """BM25 in which a term that no passage has counts as the nearest term that some have.

    Nearest is by edits (at most 1 in terms of 3 to 5 characters, 2 in longer ones, none in those with digits), then by the number
    of passages with the term. Terms are those of the index, stems mostly; both a word and its stem are compared with them. A
    question whose terms are all known is searched for as ever. The first unknown one has all terms of the index put in order,
    which takes a few seconds for a million.
    """

    def corrections(self, query: str) -> dict[str, str]:
        """The words of a question that no passage has, and the terms of the index they count as."""
        return self.store.read(lambda snapshot: corrections(self._index(snapshot), [query]))

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        vectors = corrected(self._index(snapshot), queries)
        return [Ranked(ranking, {}) for ranking in snapshot.search_vectors(self.index_name, vectors, k, filter)]

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        return await asyncio.to_thread(self.rank, snapshot, queries, k, filter)

    def _index(self, snapshot: BaseSnapshot) -> LexicalIndex:
        index = snapshot.index(self.index_name)
        if not isinstance(index, LexicalIndex):
            raise InputError(f"index_name: {self.index_name!r} is no BM25 index")
        return index


def corrections(index: LexicalIndex, queries: Sequence[str]) -> dict[str, str]:
    """Each word of the questions whose term no passage has, with the nearest term that some have; others are left out."""
    terms = {pair for pairs in _words(index, queries) for pair in pairs}
    ids = index.vocabulary.lookup_all([[term for _, term in terms]])[1]
    absent = index.index.frequencies(ids) == 0
    unknown = sorted(pair for pair, lost in zip(terms, absent.tolist(), strict=True) if lost and any(map(edits_allowed, pair)))
    if not unknown:
        return {}
    similar = _similar(index.vocabulary)
    nearest: dict[str, str] = {}
    for word, term in unknown:
        # the stem of a misspelt word may be further from the right stem than the word itself
        near, distances = map(np.concatenate, zip(similar.near(term), similar.near(word), strict=True))
        passages = index.index.frequencies(near.astype(np.int32))
        order = np.lexsort((near, -passages, distances))
        best = order[passages[order] > 0]
        if len(best):
            [nearest[word]] = index.vocabulary.terms(near[best[:1]])
    return nearest


def corrected(index: LexicalIndex, queries: Sequence[str]) -> SparseVectors:
    """The questions' vectors, with those terms in place of the unknown ones."""
    right = corrections(index, queries)
    terms = [[right.get(word, term) for word, term in pairs] for pairs in _words(index, queries)]
    return SparseVectors.count_flat(*index.vocabulary.lookup_all(terms))


def _words(index: LexicalIndex, queries: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Each word of each question, folded, and the term it becomes."""
    words, terms = replace(index.analyzer, stemming=False).analyze(queries), index.analyzer.analyze(queries)
    return [list(zip(*pair, strict=True)) for pair in zip(words, terms, strict=True)]


def _similar(vocabulary: Vocabulary) -> SimilarTerms:
    """What is known of a vocabulary, built anew when it has grown: terms are only ever added."""
    known = _SIMILAR.get(vocabulary)
    if known is None or len(known) < len(vocabulary):
        known = _SIMILAR[vocabulary] = SimilarTerms(vocabulary.terms(range(len(vocabulary))))
    return known
