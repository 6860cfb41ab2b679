"""How rare terms are among the passages of a store."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError
from ragkit.store.snapshot import Snapshot
from ragkit.store.text_index import LexicalIndex


class Rarity:
    """The inverse document frequency of terms, as the first lexical index of a snapshot counts them.

    It is that of Lucene's BM25, ln(1 + (N - df + 0.5) / (df + 0.5)), so never negative, and highest for a term that no passage
    has. Raises `InputError` for a store without a lexical index.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._index = _lexical(snapshot)
        self._passages = len(snapshot)

    @property
    def analyzer(self) -> Analyzer:
        """How the index makes terms of a text."""
        return self._index.analyzer

    def of_terms(self, terms: Iterable[str]) -> dict[str, float]:
        """Each distinct term with its inverse document frequency, in the order given."""
        distinct = list(dict.fromkeys(terms))
        frequencies = self._index.index.frequencies(self._index.vocabulary.lookup_all([distinct])[1])
        values = np.log1p((self._passages - frequencies + 0.5) / (frequencies + 0.5))
        return dict(zip(distinct, values.tolist(), strict=True))

    def of_text(self, text: str) -> dict[str, float]:
        """Each distinct term of a text with its inverse document frequency."""
        return self.of_terms(self.analyzer(text))


def _lexical(snapshot: Snapshot) -> LexicalIndex:
    for name, settings in snapshot.settings.items():
        if settings["kind"] == LexicalIndex.kind:
            index = snapshot.index(name)
            assert isinstance(index, LexicalIndex)
            return index
    raise InputError(f"store: has no BM25 index, which says how rare terms are; it has: {', '.join(snapshot.settings) or 'none'}")
