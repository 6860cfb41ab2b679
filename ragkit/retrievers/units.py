"""Small to big: what is compared with the question is a sentence, what is returned is its passage."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

from ragkit.corpus.filters import Filter
from ragkit.documents.model import Unit
from ragkit.documents.provenance import passage_text, provenance, with_provenance
from ragkit.documents.sentences import units_of
from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.encoders.languages import iso_code
from ragkit.indexes.base import Scores
from ragkit.indexes.kinds import IndexKind
from ragkit.retrievers.base import Ranked, UnknownOptionError
from ragkit.retrievers.batched import Results
from ragkit.retrievers.dense import DenseRetriever
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import TextIndex
from ragkit.store.unit_index import UnitIndex, UnitRanking, indexed_units

if TYPE_CHECKING:
    from ragkit.indexes.dense import FaissIndex

_start, _end = attrgetter("start"), attrgetter("end")


class UnitRetriever(DenseRetriever):
    """Ranks passages by their best sentence, or other unit; see `UnitIndex`.

    `Provenance.unit_scores` says how near each unit of a passage is to the question, so the largest belongs to the one that was
    found. Options of `from_documents`: those of a `DenseRetriever`, whose `encoder` may be a `PropositionEncoder`, and
    `language`, by name or ISO 639-1 code, whose rules say where sentences end.
    """

    index_name: str = "units"
    """Which of the store's indexes to search."""

    @classmethod
    def indexes(
        cls,
        *,
        encoder: EncoderLike = None,
        index_kind: IndexKind | FaissIndex = "auto",
        language: str = "english",
        **unknown: Any,
    ) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        if unknown:
            raise UnknownOptionError(next(iter(unknown)))
        return {"units": UnitIndex(as_encoder(encoder), index_kind, language=iso_code(language))}

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        asked = [query for query in queries if query.strip()]

        def search(snapshot: BaseSnapshot) -> Results:
            found = snapshot.search_units(self.index_name, asked, k, filter) if asked else []
            return self._scored(snapshot, queries, found)

        return self.store.read(search)

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        asked = [query for query in queries if query.strip()]

        async def search(snapshot: BaseSnapshot) -> Results:
            found = await snapshot.asearch_units(self.index_name, asked, k, filter) if asked else []
            return await asyncio.to_thread(self._scored, snapshot, queries, found)

        return await self.store.aread(search)

    def _scored(self, snapshot: BaseSnapshot, queries: Sequence[str], found: Sequence[UnitRanking]) -> Results:
        language = snapshot.unit_language(self.index_name)
        results = self._materialise(snapshot, queries, [Ranked(each.ranking, {}) for each in found])
        answers = iter(found)
        scored: list[list[Document] | Exception] = []
        for query, documents in zip(queries, results, strict=True):
            scores = next(answers).scores if query.strip() else []
            if isinstance(documents, Exception):
                scored.append(documents)
            else:
                scored.append([_with_scores(*pair, language) for pair in zip(documents, scores, strict=True)])
        return scored


def _with_scores(document: Document, scores: Scores, language: str) -> Document:
    shown = units_of(document, language)
    return with_provenance(
        document,
        provenance(document),
        units=shown,
        unit_scores=carried_over(indexed_units(passage_text(document), language), scores.tolist(), shown),
    )


def carried_over(units: Sequence[Unit], scores: Sequence[float], others: Sequence[Unit]) -> tuple[float, ...]:
    """Scores of other units of the same text: the best of those that each overlaps; the lowest of all where there is none.

    The units of a passage from a file follow the file's structure, those of the index the passage's text alone. Scores beyond
    `units` are of no place in the text, and are ignored.
    """
    lowest = min(scores)
    spans = [(bisect_right(units, o.start, key=_end), bisect_left(units, o.end, key=_start)) for o in others]
    return tuple(max(scores[first:last], default=lowest) for first, last in spans)
