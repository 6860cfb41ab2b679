"""Long units: neighbouring passages of a source as one, so that few units hold much of what is around an answer.

Jiang et al., "LongRAG: Enhancing Retrieval-Augmented Generation with Long-context LLMs" (2024, arXiv:2406.15319).
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from pydantic import Field, PrivateAttr

from ragkit.corpus.filters import Filter, both
from ragkit.documents.model import Mark, Unit
from ragkit.documents.provenance import content_id, provenance, with_provenance
from ragkit.documents.tokens import count_tokens
from ragkit.indexes.base import Ranking
from ragkit.retrievers.base import Ranked
from ragkit.retrievers.batched import Results
from ragkit.retrievers.documents import GroupingRetriever
from ragkit.retrievers.grouping import Group
from ragkit.store.base import BaseSnapshot


class LongUnitRetriever(GroupingRetriever):
    """Searches for passages, and gives long units: as many neighbouring passages of one source as fit into `size` tokens.

    Units do not depend on the question: each source is cut into them from its beginning. One is scored by its passages that were
    found, see `aggregation`. It is a slice of the decoded source, with its place, lines or pages and sentences in its provenance,
    an id of its own, and the metadata of its best passage. A passage that does not pass the filter is never part of one. Passages
    that come from no file are units as they are.

    The first questions that find a source have its passages' tokens counted, with the tokenizer of the store's encoder.
    """

    size: int = Field(default=4000, gt=0)
    """How many tokens a unit may have; a longer passage is a unit alone."""

    _lengths: dict[int, int] = PrivateAttr(default_factory=dict)  # in tokens, by position, at which a text never changes

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "long-units"

    def keys(self, snapshot: BaseSnapshot, passages: Mapping[int, Document], filter: Filter | None) -> Mapping[int, Hashable]:
        """See `GroupingRetriever.keys`: the position of the first passage of the unit."""
        firsts: dict[int, int] = {}
        for source in dict.fromkeys(provenance(document).source for document in passages.values()):
            for unit in self._units(snapshot, source, filter):
                firsts |= dict.fromkeys(unit, unit[0])
        return {position: firsts.get(position, position) for position in passages}

    def regrouped(self, ranking: Ranking, groups: Sequence[Group], k: int) -> tuple[Ranking, dict[str, Ranking]]:
        """See `GroupingRetriever.regrouped`: the best passage of each unit, with the unit's score."""
        best = groups[:k]
        hits = np.array([group.hits[0] for group in best], np.int64)
        return Ranking(ranking.positions[hits], np.array([group.score for group in best], np.float64)), {}

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        asked = [query for query in queries if query.strip()]

        def search(snapshot: BaseSnapshot) -> Results:
            ranked = self.rank(snapshot, asked, k, filter) if asked else []
            return self._lengthened(snapshot, queries, ranked, filter)

        return self.store.read(search)

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        asked = [query for query in queries if query.strip()]

        async def search(snapshot: BaseSnapshot) -> Results:
            ranked = await self.arank(snapshot, asked, k, filter) if asked else []
            return await asyncio.to_thread(self._lengthened, snapshot, queries, ranked, filter)

        return await self.store.aread(search)

    def _units(self, snapshot: BaseSnapshot, source: str | None, filter: Filter | None) -> list[list[int]]:
        """Positions of the passages of each of a source's units."""
        runs = [] if source is None else snapshot.runs(source, filter)
        fresh = [position for run in runs for position in run if position not in self._lengths]
        texts = [document.page_content for document in snapshot.documents(fresh)]
        self._lengths.update(zip(fresh, count_tokens(self.store.tokenizer, texts), strict=True))
        return [unit for run in runs for unit in packed(run, [self._lengths[position] for position in run], self.size)]

    def _lengthened(
        self, snapshot: BaseSnapshot, queries: Sequence[str], ranked: Sequence[Ranked], filter: Filter | None
    ) -> Results:
        """The best passages of units as documents, and then as these units."""
        filter = both(self.retriever.filter, filter)
        texts: dict[str, str | None] = {}
        units: dict[str, dict[int, list[int]]] = {}

        def long(document: Document, position: int) -> Document:
            source = provenance(document).source
            if source is None:
                return document
            if source not in units:
                texts[source] = snapshot.source_text(source)
                units[source] = {each: unit for unit in self._units(snapshot, source, filter) for each in unit}
            return joined(document, snapshot.documents(units[source].get(position, [position])), texts[source])

        answers = iter(ranked)
        lengthened: list[list[Document] | Exception] = []
        for query, found in zip(queries, self._materialise(snapshot, queries, ranked), strict=True):
            positions = next(answers).ranking.positions.tolist() if query.strip() else []
            if isinstance(found, Exception):
                lengthened.append(found)
            else:
                lengthened.append([long(*pair) for pair in zip(found, positions, strict=True)])
        return lengthened


def packed(items: Sequence[int], sizes: Sequence[int], most: int) -> list[list[int]]:
    """Neighbouring items together as long as their sizes sum up to `most` or less; one that is larger is alone."""
    packs: list[list[int]] = []
    room = 0
    for item, size in zip(items, sizes, strict=True):
        if packs and size <= room:
            packs[-1].append(item)
            room -= size
        else:
            packs.append([item])
            room = most - size
    return packs


def joined(best: Document, passages: Sequence[Document], text: str | None) -> Document:
    """Neighbouring passages of one source, of which `best` is one, as one slice of the source's text.

    Scores, stages and metadata are those of `best`; headings are those that all share. It is `best` itself if there is no other,
    or if the text is not there or not the one that the passages are slices of.
    """
    records = [provenance(passage) for passage in passages]
    spans = [(record.start, record.start + len(passage.page_content)) for record, passage in zip(records, passages, strict=True)]
    whole = [text is not None and text[a:b] == each.page_content for (a, b), each in zip(spans, passages, strict=True)]
    if text is None or len(passages) == 1 or not all(whole):
        return best
    start, end = min(a for a, _ in spans), max(b for _, b in spans)
    record = provenance(best)
    merged: dict[str, Any] = {name: {} for name in ("lines", "pages")}
    units: list[Unit] = []
    for each in records:
        shift = each.start - start
        for name, marks in merged.items():
            marks |= {mark.offset + shift: mark.number for mark in getattr(each, name)}
        done = units[-1].end if units else 0  # passages may overlap, by whole units
        shifted = [Unit(unit.start + shift, unit.end + shift, unit.kind) for unit in each.units or ()]
        units += [unit for unit in shifted if unit.start >= done]
    long = Document(id=content_id(record.source, start, text[start:end]), page_content=text[start:end], metadata=best.metadata)
    return with_provenance(
        long,
        record,
        start=start,
        end=end,
        headings=_shared([each.headings for each in records]),
        lines=tuple(Mark(*pair) for pair in sorted(merged["lines"].items())),
        pages=tuple(Mark(*pair) for pair in sorted(merged["pages"].items())),
        units=None if any(each.units is None for each in records) else tuple(units),
    )


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all of them begin with."""
    return tuple(names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False)))
