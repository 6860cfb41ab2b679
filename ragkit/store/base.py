"""What users of a store may ask of it, whichever engine keeps the passages: a store, one state of it, and the next one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from langchain_core.documents import Document
from numpy.typing import NDArray

from ragkit.corpus.changes import SourceText
from ragkit.corpus.filters import Filter
from ragkit.corpus.patterns import Pattern
from ragkit.documents.spans import Span
from ragkit.documents.tokens import RegexTokenizer, Tokenizer
from ragkit.encoders.base import Encoder, Progress
from ragkit.encoders.languages import iso_code
from ragkit.errors import InputError, StaleSnapshotError
from ragkit.indexes.base import Positions, Ranking

if TYPE_CHECKING:
    from ragkit.store.text_index import TextIndex
    from ragkit.store.unit_index import UnitRanking

T = TypeVar("T")
DENSE, LEXICAL = "dense", "lexical"
"""What the settings of an index have as `kind` if it holds one vector of a dense encoder for a passage, and if it is BM25's."""


def check_ids(ids: Sequence[str]) -> None:
    """Raise `InputError` for one id where several are taken: its characters would be looked for."""
    if isinstance(ids, str):
        raise InputError(f"ids: must be a list of ids, not one string; give [{ids!r}]")


class BaseSnapshot(ABC):
    """One state of a store: what a search runs on from its first to its last step. Safe to use from several threads.

    A position is the number of a passage: given once, never reused; a passage whose indexed text changes gets a new one. What
    an engine does not override raises `InputError`, which says what to use instead.
    """

    engine: str
    """What messages call the kind of store."""
    settings: Mapping[str, Mapping[str, Any]]
    """What each index was built with, by its name; `kind` is "lexical", "dense", "sparse", or another of `text_index.KINDS`."""

    # -- searching ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def search(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """At most `k` hits per query in the index of that name, among the passages that pass the filter; best first.

        Equal scores are ordered by position, also at the cut. Raises `InputError` for an index that is not there, a malformed
        filter, or one that names a metadata field which no passage has.
        """

    async def asearch(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[Ranking]:
        """Like `search`, without blocking the event loop."""
        return await asyncio.to_thread(self.search, name, queries, k, filter)

    def search_vectors(self, name: str, vectors: Any, k: int, filter: Filter | None = None) -> list[Ranking]:
        """Like `search`, for vectors of questions, whoever made them."""
        raise self._absent("search_vectors")

    def search_units(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[UnitRanking]:
        """Like `search` in an index of units, with the scores of the units of what is found."""
        raise self._absent("search_units")

    async def asearch_units(self, name: str, queries: Sequence[str], k: int, filter: Filter | None = None) -> list[UnitRanking]:
        """Like `search_units`, without blocking the event loop."""
        return await asyncio.to_thread(self.search_units, name, queries, k, filter)

    def find(
        self, pattern: Pattern, filter: Filter | None = None, seconds: float | None = None
    ) -> Iterator[tuple[int, list[Span]]]:
        """Every passage that matches and passes the filter, by position, with the spans of all matches; see `Corpus.find`."""
        raise self._absent("find")

    # -- vectors ------------------------------------------------------------------------------------------------------

    def encode(self, name: str, queries: Sequence[str]) -> NDArray[Any]:
        """The queries' vectors [n, dimension], as the dense index of that name compares them with passages."""
        raise self._absent("encode")

    async def aencode(self, name: str, queries: Sequence[str]) -> NDArray[Any]:
        """Like `encode`, without blocking the event loop."""
        return await asyncio.to_thread(self.encode, name, queries)

    def vectors(self, name: str, positions: Positions) -> NDArray[Any]:
        """The vectors [n, dimension] that the dense index of that name holds for the passages at these positions."""
        raise self._absent("vectors")

    def query_vectors(self, name: str, queries: Sequence[str]) -> Any:
        """Questions as the index of that name compares them; see `VectorIndex.query_vectors`."""
        raise self._absent("query_vectors")

    async def aquery_vectors(self, name: str, queries: Sequence[str]) -> Any:
        """Like `query_vectors`, without blocking the event loop."""
        return await asyncio.to_thread(self.query_vectors, name, queries)

    def passage_vectors(self, name: str, positions: Sequence[int]) -> Any:
        """The passages at these positions as the index of that name keeps them; see `VectorIndex.passage_vectors`."""
        raise self._absent("passage_vectors")

    def text_vectors(self, name: str, texts: Sequence[str]) -> Any:
        """Like `passage_vectors`, for texts that are in no passage."""
        raise self._absent("text_vectors")

    def index(self, name: str) -> TextIndex:
        """The index of that name. Raises `InputError` if there is none, or its engine does not give it away."""
        self._check_name(name)
        raise self._absent("index")

    def unit_language(self, name: str) -> str:
        """ISO 639-1 code of the language whose sentences are the units of the index of that name."""
        raise self._absent("unit_language")

    # -- passages -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def __len__(self) -> int:
        """Number of passages."""

    @abstractmethod
    def documents(self, positions: Iterable[int]) -> list[Document]:
        """The passages at these positions, in this order. Raises `StaleSnapshotError` if one is gone."""

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[Document]:
        """The passages with these ids, in this order; unknown ids are left out, repeated ones given once."""

    @abstractmethod
    def positions(self) -> Positions:
        """All positions, ascending."""

    @abstractmethod
    def runs(self, source: str, filter: Filter | None = None) -> list[list[int]]:
        """Positions of a source's passages in the order of its text; one that does not pass the filter ends a run."""

    @abstractmethod
    def check_field(self, field: str, place: str = "field") -> None:
        """Raise `InputError`, which begins with `place`, if there are passages but none with this metadata field."""

    @abstractmethod
    def sources(self) -> list[str]:
        """Names of all sources whose text is kept, sorted by code points."""

    @abstractmethod
    def source_text(self, source: str) -> str | None:
        """The decoded text of a source; None if the store does not hold it."""

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check_name(self, name: str) -> None:
        if name not in self.settings:
            raise InputError(f"this store has no {name!r} index; it has: {', '.join(self.settings) or 'none'}")

    def _absent(self, operation: str) -> InputError:
        return InputError(
            f"{operation}: {self.engine} has no such operation; index into a directory (ragkit index PATH --out DIR) for it"
        )


class BaseDraft(ABC):
    """The next state of a store, while it is being written: its reads see its own writes, other readers none of them."""

    split: dict[str, Any] | None
    """The settings by which files were split so far; None if no file ever was."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of passages."""

    @abstractmethod
    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """Add or replace documents by id; returns their ids in order. If encoding fails, nothing has changed.

        A document may be given twice. Raises `InputError` for different ones with the same id, and for metadata that JSON cannot
        hold exactly.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> list[str]:
        """Forget passages by id; returns the ids that were there."""

    @abstractmethod
    def replace_sources(self, sources: Mapping[str, Sequence[SourceText]]) -> None:
        """For each file, make these its source texts; none forgets the file."""

    @abstractmethod
    def split_with(self, settings: dict[str, Any]) -> None:
        """Remember how files are split from now on."""

    @abstractmethod
    def file_digests(self) -> dict[str, str]:
        """Digest of every file that has sources here."""

    @abstractmethod
    def ids_of_file(self, file: str) -> list[str]:
        """Ids of the passages whose source came from `file`, in order of position."""

    def index_trigrams(self) -> None:
        """From now on keep an index for exact search. Raises `InputError` where the engine has none."""
        raise InputError("exact: only a store in a directory has an index for exact search; leave it out")


class BaseStore(ABC):
    """Passages and their indexes, wherever they are kept."""

    path: Path | None = None
    """The directory it lies in; None if it lies in none."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Where the passages are, as messages may show it: no password is in it."""

    @property
    @abstractmethod
    def snapshot(self) -> BaseSnapshot:
        """The state that reads begin with."""

    @abstractmethod
    def refresh(self) -> bool:
        """Move on to the state that is published now; returns whether it is a later one."""

    @abstractmethod
    def write(self) -> AbstractContextManager[BaseDraft]:
        """A draft of the next state: published as a whole if the block ends well, discarded if it raises."""

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds; later reads fail."""

    @abstractmethod
    def discard(self) -> None:
        """Delete what is stored, and close the store."""

    @abstractmethod
    def _encoder(self, name: str, kind: str) -> Any:
        """The encoder of the index of that name and kind."""

    def read(self, use: Callable[[Any], T]) -> T:
        """What `use` makes of the snapshot; asked again if the snapshot turns out to be too old to be read."""
        snapshot = self.snapshot
        try:
            return use(snapshot)
        except StaleSnapshotError:
            if not self.refresh() and self.snapshot is snapshot:
                raise
        return self.read(use)

    async def aread(self, use: Callable[[Any], Awaitable[T]]) -> T:
        """Like `read`, without blocking the event loop."""
        snapshot = self.snapshot
        try:
            return await use(snapshot)
        except StaleSnapshotError:
            if not await asyncio.to_thread(self.refresh) and self.snapshot is snapshot:
                raise
        return await self.aread(use)

    def upsert(self, documents: Sequence[Document], progress: Progress | None = None) -> list[str]:
        """Add or replace documents by id, published when this returns; returns their ids in order."""
        with self.write() as draft:
            return draft.upsert(documents, progress)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Forget passages by id, published when this returns; returns the ids that were there.

        Raises `InputError` for a single string.
        """
        check_ids(ids)
        with self.write() as draft:
            return draft.delete(ids)

    def __deepcopy__(self, memo: Any) -> Self:
        """The store itself: it is a handle, and what it stands for is there once."""
        return self

    def __reduce__(self) -> Any:
        """For pickling, which only a store in a directory allows. Raises `InputError`."""
        raise InputError(
            f"store: one in {self.name} cannot be pickled; save it to a directory (from_documents(..., path=DIR)), "
            "or open it where it is needed"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.read(len)

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of the first dense index; None if there is none."""
        settings = self.snapshot.settings
        return next((self._encoder(name, DENSE) for name in settings if settings[name]["kind"] == DENSE), None)

    @property
    def language(self) -> str | None:
        """ISO 639-1 code of the language that the first lexical index analyses; None if there is none."""
        settings = self.snapshot.settings.values()
        return next((iso_code(its["analyzer"]["language"]) for its in settings if its["kind"] == LEXICAL), None)

    @property
    def tokenizer(self) -> Tokenizer:
        """What sizes are counted in: the tokens of the dense encoder, or an estimate where there is none."""
        encoder = self.encoder
        return RegexTokenizer() if encoder is None else encoder.tokenizer
