"""Retrieval by an exact string or a regular expression: quotes, error codes, identifiers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from pydantic import Field

from ragkit.corpus.filters import Filter
from ragkit.corpus.patterns import Pattern
from ragkit.corpus.trigrams import check_available
from ragkit.errors import InputError
from ragkit.indexes.base import Ranking, top_k
from ragkit.retrievers.base import Ranked, StoreRetriever, UnknownOptionError
from ragkit.retrievers.batched import Results
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import TextIndex


class ExactRetriever(StoreRetriever):
    """Ranks passages by how often the question occurs in them, word for word; the score is that number.

    Works on every store. One with a trigram index (`ragkit index --exact`; `from_documents` with a `path`) reads only passages
    that may match; otherwise, and for patterns without three certain characters in a row, all passages are read. The idea is
    that of "Infini-gram mini: Exact n-gram Search at the Internet Scale with FM-Index" (Xu et al., 2025), in one SQLite file.

    A blank question finds nothing, as with every retriever. Take regular expressions only from people you trust: one can keep the
    process busy for hours within a single passage, and nothing can stop it there.
    """

    ignore_case: bool = False
    """Whether strings that Unicode case folding makes equal are the same."""
    regex: bool = False
    """Whether questions are regular expressions of Python's `re`; ^ and $ match at every line."""
    timeout: float | None = Field(default=30.0, gt=0)
    """Seconds a question may take; noticed between two passages, as nothing can interrupt `re` within one. None for no limit."""

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "exact"

    @property
    def score_floor(self) -> float | None:
        """No passage has fewer matches than none."""
        return 0.0

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`. Raises `InputError` for a regular expression that is not valid, or takes too long."""
        return [Ranked(self._ranking(snapshot, query, k, filter), {}) for query in queries]

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        return await asyncio.to_thread(self.rank, snapshot, queries, k, filter)

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`; there are none, and no options: the corpus itself is searched."""
        if options:
            raise UnknownOptionError(next(iter(options)))
        return {}

    @classmethod
    def from_documents(cls, documents: Iterable[Document], *, path: str | Path | None = None, **options: Any) -> Self:
        """See `StoreRetriever.from_documents`; with a `path`, the corpus gets a trigram index."""
        if path is None:
            return super().from_documents(documents, **options)
        check_available()
        retriever = super().from_documents(documents, path=path, **options)
        with retriever.store.write() as draft:
            draft.index_trigrams()
        return retriever

    def _ranking(self, snapshot: BaseSnapshot, query: str, k: int, filter: Filter | None) -> Ranking:
        pattern = Pattern(query, self.ignore_case, self.regex)
        counts = {position: len(spans) for position, spans in snapshot.find(pattern, filter, self.timeout)}
        return top_k(np.fromiter(counts, np.int64, len(counts)), np.fromiter(counts.values(), np.float64, len(counts)), k)

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        return [self._answer(query, config, k, filter) for query, config in zip(queries, configs, strict=True)]

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        return await asyncio.to_thread(self._retrieve, queries, configs, k, filter)

    def _answer(self, query: str, config: RunnableConfig, k: int, filter: Filter | None) -> list[Document] | Exception:
        """A pattern that is wrong fails its own question only."""
        try:
            [result] = super()._retrieve([query], [config], k, filter)
        except InputError as error:
            return error
        return result
