"""What the retrievers over a store share: questions to rankings, rankings to documents, and the store's upsert and delete."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from langchain_core.documents import Document
from langchain_core.indexing.base import DeleteResponse, DocumentIndex, UpsertResponse
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig

from ragkit.corpus.filters import Filter
from ragkit.documents.provenance import StageResult, with_stages
from ragkit.engines.opening import create_store, open_store
from ragkit.errors import InputError
from ragkit.indexes.base import Ranking, empty_ranking
from ragkit.retrievers.batched import BatchedRetriever, Results
from ragkit.store.base import BaseSnapshot, BaseStore, check_ids
from ragkit.store.store import Store
from ragkit.store.text_index import TextIndex

_NOT_FOR_OPTIONS = {*BaseRetriever.model_fields, "store"}


class UnknownOptionError(InputError):
    """An option of `from_documents` that neither the retriever nor its indexes have."""

    def __init__(self, option: str) -> None:
        super().__init__(f"unknown option {option!r}")
        self.option = option


class Ranked(NamedTuple):
    """One question's ranking, and the rankings it was made from by the name of their stage (empty for a single source)."""

    ranking: Ranking
    sources: dict[str, Ranking]


class StoreRetriever(BatchedRetriever, DocumentIndex):
    """A retriever over a `Store`. It is also a LangChain `DocumentIndex`, so that `index()` can keep it up to date."""

    model_config = BatchedRetriever.model_config  # DocumentIndex's would let typos through

    store: BaseStore
    """Where the passages live; several retrievers may share one."""

    @property
    @abstractmethod
    def stage(self) -> str:
        """Name under which scores and ranks are recorded in `metadata["ragkit"]`."""

    @property
    def score_floor(self) -> float | None:
        """The lowest score that can occur at all, where that is known; fusion may scale by it."""
        return None

    @abstractmethod
    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """Positions and scores for each question, at most `k`. The retriever's own filter is already part of `filter`."""

    @abstractmethod
    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """Like `rank`, without blocking the event loop."""

    @classmethod
    @abstractmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """The empty indexes this retriever needs, made from the options of `from_documents` that are meant for them."""

    @classmethod
    def from_documents(cls, documents: Iterable[Document], *, path: str | Path | None = None, **options: Any) -> Self:
        """Index documents and return a retriever over them.

        `path` keeps the index in a new directory, or at the URL of an engine, instead of memory. Options that are fields of
        the retriever (`k`, `filter`, ...) go to it, the others to its indexes (`encoder`, `language`, ...). Metadata must
        survive JSON. Raises `InputError` for an option that neither has.
        """
        fields = {name: options.pop(name) for name in list(options) if name in cls.model_fields}
        try:
            indexes = cls.indexes(**options)
        except UnknownOptionError as error:  # an index does not know whose it is
            own = ", ".join(name for name in cls.model_fields if name not in _NOT_FOR_OPTIONS)
            raise InputError(
                f"unknown option {error.option!r}: {cls.__name__} has the fields {own}, and the options of its indexes, "
                "which its description names"
            ) from None
        documents = list(documents)
        store: BaseStore = Store.memory(indexes) if path is None else create_store(path, indexes)
        try:
            retriever = cls(store=store, **fields)
            store.upsert(documents)
        except BaseException:
            store.discard()  # an empty index would stand in the way of the next try
            raise
        return retriever

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        ids: Iterable[str] | None = None,
        **options: Any,
    ) -> Self:
        """Like `from_documents`, from plain texts. Raises `InputError` if the lengths differ."""
        if isinstance(texts, str):
            raise InputError("texts must be a list of texts, not one string")
        texts = list(texts)
        metas: list[dict[str, Any]] = [{} for _ in texts] if metadatas is None else list(metadatas)
        names: list[str | None] = [None] * len(texts) if ids is None else list(ids)
        for field, values in (("metadatas", metas), ("ids", names)):
            if len(values) != len(texts):
                raise InputError(f"{field} has {len(values)} entries for {len(texts)} texts; give one for each")
        documents = [
            Document(id=id_, page_content=text, metadata=metadata)
            for text, metadata, id_ in zip(texts, metas, names, strict=True)
        ]
        return cls.from_documents(documents, **options)

    @classmethod
    def load(cls, path: str | Path, *, encoder: Any = None, **fields: Any) -> Self:
        """A retriever over an index directory or URL. `encoder` must be the one it was built with (dense: the packaged one)."""
        return cls(store=open_store(path, encoder=encoder), **fields)

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Add documents, or replace those with the same id; searchable when this returns."""
        return UpsertResponse(succeeded=self.store.upsert(items), failed=[])

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Delete by id; ids that are not there are ignored."""
        if ids is None:
            raise InputError("delete needs ids: a list of document ids")
        gone = self.store.delete(ids)
        return DeleteResponse(succeeded=gone, failed=[], num_deleted=len(gone), num_failed=0)

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Documents by id, as they were given; unknown ids are left out."""
        check_ids(ids)
        return self.store.read(lambda snapshot: snapshot.get(ids))

    def _retrieve(self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None) -> Results:
        asked = [query for query in queries if query.strip()]

        def search(snapshot: BaseSnapshot) -> Results:
            return self._materialise(snapshot, queries, self.rank(snapshot, asked, k, filter) if asked else [])

        return self.store.read(search)

    async def _aretrieve(
        self, queries: Sequence[str], configs: Sequence[RunnableConfig], k: int, filter: Filter | None
    ) -> Results:
        asked = [query for query in queries if query.strip()]

        async def search(snapshot: BaseSnapshot) -> Results:
            ranked = await self.arank(snapshot, asked, k, filter) if asked else []
            return await asyncio.to_thread(self._materialise, snapshot, queries, ranked)

        return await self.store.aread(search)

    def _materialise(self, snapshot: BaseSnapshot, queries: Sequence[str], ranked: Sequence[Ranked]) -> Results:
        """Rankings to documents, with one look-up for all questions; a blank question has no hits."""
        answers = iter(ranked)
        per_query = [next(answers) if query.strip() else Ranked(empty_ranking(), {}) for query in queries]
        positions = dict.fromkeys(int(p) for answer in per_query for p in answer.ranking.positions)
        found = dict(zip(positions, snapshot.documents(positions), strict=True))
        return [self._documents(answer, found) for answer in per_query]

    def _documents(self, answer: Ranked, found: dict[int, Document]) -> list[Document]:
        places = {
            name: {int(p): (rank, float(s)) for rank, (p, s) in enumerate(zip(*ranking, strict=True), 1)}
            for name, ranking in answer.sources.items()
        }
        documents = []
        for rank, (position, score) in enumerate(zip(*answer.ranking, strict=True), 1):
            earlier = [
                StageResult(name, place[int(position)][1], place[int(position)][0])
                for name, place in places.items()
                if int(position) in place
            ]
            documents.append(with_stages(found[int(position)], *earlier, StageResult(self.stage, float(score), rank)))
        return documents
