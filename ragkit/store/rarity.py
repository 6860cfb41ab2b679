"""How rare terms are among the passages of a store."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError
from ragkit.indexes.bm25_formulas import lucene_idf
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import LexicalIndex


class Rarity:
    """The inverse document frequency of terms, as the first lexical index of a snapshot counts them.

    It is that of Lucene's BM25, ln(1 + (N - df + 0.5) / (df + 0.5)), so never negative, and highest for a term that no passage
    has. Raises `InputError` for a store without a lexical index, or if the one of that name is none.
    """

    def __init__(self, snapshot: BaseSnapshot, index_name: str | None = None) -> None:
        self._index = _lexical(snapshot) if index_name is None else _named(snapshot, index_name)
        self._passages = len(snapshot)

    @property
    def analyzer(self) -> Analyzer:
        """How the index makes terms of a text."""
        return self._index.analyzer

    def of_terms(self, terms: Iterable[str]) -> dict[str, float]:
        """Each distinct term with its inverse document frequency, in the order given."""
        distinct = list(dict.fromkeys(terms))
        frequencies = self._index.index.frequencies(self._index.vocabulary.lookup_all([distinct])[1])
        values = lucene_idf(frequencies, self._passages)
        return dict(zip(distinct, values.tolist(), strict=True))

    def of_text(self, text: str) -> dict[str, float]:
        """Each distinct term of a text with its inverse document frequency."""
        return self.of_terms(self.analyzer(text))

    def shares(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        """For each term id of the index's vectors [n], its inverse document frequency by that of a term of one passage.

        So it lies between 0 and 1 for terms that some passage has.
        """
        frequencies = np.append(self._index.index.frequencies(ids), 1)
        values = lucene_idf(frequencies, self._passages)
        shares: NDArray[np.float64] = values[:-1] / values[-1]
        return shares


def _named(snapshot: BaseSnapshot, name: str) -> LexicalIndex:
    index = snapshot.index(name)
    if not isinstance(index, LexicalIndex):
        raise InputError(f"index_name: {name!r} has no words; name a BM25 index")
    return index


def _lexical(snapshot: BaseSnapshot) -> LexicalIndex:
    for name, settings in snapshot.settings.items():
        if settings["kind"] == LexicalIndex.kind:
            index = snapshot.index(name)
            assert isinstance(index, LexicalIndex)
            return index
    raise InputError(f"store: has no BM25 index, which says how rare terms are; it has: {', '.join(snapshot.settings) or 'none'}")
