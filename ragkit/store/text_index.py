"""Joins an encoder to an index, so that the store can treat every kind of index alike: texts in, rankings out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.base import Encoder, Progress
from ragkit.encoders.lexical import Analysis, Analyzer
from ragkit.encoders.vocabulary import Vocabulary
from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking
from ragkit.indexes.bm25 import BM25Index
from ragkit.indexes.kinds import IndexKind
from ragkit.sparse_vectors import SparseVectors
from ragkit.store.encoded_index import EncodedVectorIndex, check_encoder
from ragkit.store.multi_vector_index import LateInteractionIndex
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.unit_index import UnitIndex

if TYPE_CHECKING:
    from ragkit.indexes.dense import FaissIndex

_INDEX, _VOCABULARY = "postings", "vocabulary"


class TextIndex(Protocol):
    """An index over texts. `prepare` does the slow, fallible part (encoding); `add` then cannot fail half-way."""

    kind: str
    """What a manifest calls this class."""

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-serialisable settings; two indexes with equal settings give equal results."""
        ...

    def __len__(self) -> int: ...

    def prepare(self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None) -> Any:
        """Encode texts. A twin is the position of a passage with the very same text, whose vector may be reused."""
        ...

    def add(self, positions: Positions, prepared: Any) -> None:
        """Add what `prepare` returned."""
        ...

    def remove(self, positions: Positions) -> None:
        """Forget these positions."""
        ...

    def search(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """At most `k` hits per query, best first; see `indexes.base.Index.search`."""
        ...

    async def asearch(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """Like `search`, without blocking the event loop."""
        ...

    def save(self, directory: Path) -> None:
        """Write into an existing, empty directory."""
        ...

    @classmethod
    def load(
        cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Encoder], *, writable: bool = False
    ) -> Self:
        """Read what `save` wrote. `encoder` gives the encoder of this index, for kinds that have one.

        Raises `StoreError` if the index was built with another encoder.
        """
        ...


@runtime_checkable
class VectorIndex(TextIndex, Protocol):
    """A `TextIndex` in which a question and a passage are one vector each, so that questions can be changed on the way."""

    def query_vectors(self, queries: Sequence[str]) -> Any:
        """Questions as the index compares them: float32 [n, dimension], or `SparseVectors`."""
        ...

    async def aquery_vectors(self, queries: Sequence[str]) -> Any:
        """Like `query_vectors`, without blocking the event loop."""
        ...

    def passage_vectors(self, texts: Sequence[IndexedText], twins: Sequence[int | None]) -> Any:
        """Passages as the index keeps them, in the form of `query_vectors`; twins as in `prepare`. Changes nothing."""
        ...

    def search_vectors(self, vectors: Any, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """Like `search`, for vectors of questions, whoever made them."""
        ...


class LexicalIndex:
    """BM25 over analysed text."""

    kind = "lexical"

    def __init__(
        self,
        analyzer: Analyzer | None = None,
        index: BM25Index | None = None,
        vocabulary: Vocabulary | None = None,
        *,
        heading_weight: float = 1.0,
        title_weight: float = 1.0,
    ) -> None:
        """Defaults: English analysis and Lucene's BM25.

        A term that occurs in the headings above a passage or in its title counts there `heading_weight` or `title_weight` times,
        in its frequency as in the passage's length (the simple form of Robertson et al., "Simple BM25 extension to multiple
        weighted fields", CIKM 2004). Raises `InputError` for a weight below 0.
        """
        for field, weight in (("heading_weight", heading_weight), ("title_weight", title_weight)):
            if not isinstance(weight, Real) or not 0 <= weight <= 1000:
                raise InputError(f"{field}: must be a number from 0 to 1000, not {weight!r}")
        self.heading_weight, self.title_weight = heading_weight, title_weight
        self.analyzer = analyzer or Analyzer()
        self.index = BM25Index() if index is None else index  # an empty one is false
        self.vocabulary = Vocabulary() if vocabulary is None else vocabulary

    @property
    def settings(self) -> dict[str, Any]:
        """See `TextIndex.settings`."""
        fields = {"heading_weight": self.heading_weight, "title_weight": self.title_weight}
        return {"analyzer": self.analyzer.fingerprint, "bm25": self.index.settings, **fields}

    def __len__(self) -> int:
        return len(self.index)

    def prepare(
        self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None
    ) -> list[tuple[Analysis, float]]:
        """See `TextIndex.prepare`; analysing again is cheaper than copying postings, so twins are not used."""
        fields = [
            ([text.body for text in texts], 1.0),
            ([text.headings for text in texts], self.heading_weight),
            ([text.title for text in texts], self.title_weight),
        ]
        return [(self.analyzer.analyze_flat(field), weight) for field, weight in fields if weight and any(field)]

    def add(self, positions: Positions, prepared: list[tuple[Analysis, float]]) -> None:
        """See `TextIndex.add`."""
        self.index.add(
            positions, SparseVectors.weighted_sum([(self._count(field), weight) for field, weight in prepared], len(positions))
        )

    def _ids(self, terms: Sequence[str]) -> NDArray[np.int32]:
        """The id of each term, -1 for one that is not known."""
        return self.vocabulary.lookup_all([terms])[1]

    def _count(self, field: Analysis) -> SparseVectors:
        return SparseVectors.count_flat(field.starts, self.vocabulary.add(field.terms)[field.tokens])

    def remove(self, positions: Positions) -> None:
        """See `TextIndex.remove`."""
        self.index.remove(positions)

    def search(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `TextIndex.search`."""
        return self.search_vectors(self.query_vectors(queries), k, allowed)

    async def asearch(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `TextIndex.asearch`."""
        return await asyncio.to_thread(self.search, queries, k, allowed)

    def query_vectors(self, queries: Sequence[str]) -> SparseVectors:
        """See `VectorIndex.query_vectors`: how often a question has each term; -1 is all terms that no passage ever had."""
        return SparseVectors.count_flat(*self.vocabulary.lookup_all(self.analyzer.analyze(queries)))

    async def aquery_vectors(self, queries: Sequence[str]) -> SparseVectors:
        """See `VectorIndex.aquery_vectors`."""
        return await asyncio.to_thread(self.query_vectors, queries)

    def passage_vectors(self, texts: Sequence[IndexedText], twins: Sequence[int | None]) -> SparseVectors:
        """See `VectorIndex.passage_vectors`: the frequency of each term, that in headings and titles with its weight."""
        fields = [
            (SparseVectors.count_flat(field.starts, self._ids(field.terms)[field.tokens]), weight)
            for field, weight in self.prepare(texts, twins)
        ]
        return SparseVectors.weighted_sum(fields, len(texts))

    def search_vectors(self, vectors: SparseVectors, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `VectorIndex.search_vectors`."""
        return self.index.search(vectors, k, allowed)

    def save(self, directory: Path) -> None:
        """See `TextIndex.save`."""
        for part, name in ((self.index, _INDEX), (self.vocabulary, _VOCABULARY)):
            (directory / name).mkdir()
            part.save(directory / name)

    @classmethod
    def load(
        cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Encoder], *, writable: bool = False
    ) -> Self:
        """See `TextIndex.load`."""
        index = cls.empty(settings, encoder)
        index.index, index.vocabulary = BM25Index.load(directory / _INDEX), Vocabulary.load(directory / _VOCABULARY)
        return index

    @classmethod
    def empty(cls, settings: Mapping[str, Any], encoder: Callable[[], Encoder]) -> Self:
        """One with these settings and no texts."""
        return cls(
            Analyzer.from_fingerprint(settings["analyzer"]),
            BM25Index(**settings["bm25"]),
            heading_weight=settings["heading_weight"],
            title_weight=settings["title_weight"],
        )

    def frequencies(self, texts: Sequence[IndexedText]) -> list[dict[str, float]]:
        """How often each text has each of its terms, as the index counts: those in headings and titles with their weights."""
        fresh = LexicalIndex(self.analyzer, heading_weight=self.heading_weight, title_weight=self.title_weight)
        fields = [(fresh._count(field), weight) for field, weight in self.prepare(texts, [])]
        counted = SparseVectors.weighted_sum(fields, len(texts)).without_zeros()
        terms = fresh.vocabulary.terms(counted.terms)
        pairs = list(zip(terms, counted.weights.tolist(), strict=True))
        return [dict(pairs[start:end]) for start, end in pairwise(counted.starts.tolist())]


class DenseIndex(EncodedVectorIndex):
    """Vectors of a dense encoder."""

    kind = "dense"
    encoder: Encoder
    index: FaissIndex

    def __init__(self, encoder: Encoder, vectors: IndexKind | FaissIndex = "auto") -> None:
        """`vectors` is the index to fill, or its kind; "auto" chooses by size, see `FaissIndex`."""
        from ragkit.indexes.dense import FaissIndex

        self.encoder = encoder
        self.index = vectors if isinstance(vectors, FaissIndex) else FaissIndex(encoder.dimension, vectors)
        if self.index.dimension != encoder.dimension:
            raise InputError(f"vectors: has dimension {self.index.dimension}, the encoder has {encoder.dimension}")

    @property
    def settings(self) -> dict[str, Any]:
        """See `TextIndex.settings`."""
        return {"encoder": dict(self.encoder.fingerprint), "vectors": self.index.settings}

    def prepare(self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None) -> Any:
        """See `TextIndex.prepare`; a text whose twin is indexed is not encoded again. Returns float32 [n, dimension]."""
        known = [(row, twin) for row, twin in enumerate(twins) if twin is not None]
        fresh = [row for row, twin in enumerate(twins) if twin is None]
        vectors = np.empty((len(texts), self.index.dimension), np.float32)
        if known:
            rows, positions = zip(*known, strict=True)
            vectors[list(rows)] = self.index.reconstruct(np.asarray(positions, np.int64))
        if fresh:
            encoded = np.asarray(self.encoder.encode_documents([texts[row].whole for row in fresh], progress))
            if encoded.shape != (len(fresh), self.index.dimension) or not np.isfinite(encoded).all():
                raise InputError(
                    f"encoder {self.encoder.fingerprint.get('model')!r}: gave vectors of shape {encoded.shape}, or not finite; "
                    f"needed are finite ones of shape {(len(fresh), self.index.dimension)}"
                )
            self.index.check(encoded)
            vectors[fresh] = encoded
        return vectors

    def vectors_at(self, positions: Positions) -> NDArray[np.float32]:
        """The vectors at these positions, [n, dimension]. Raises `InputError` if one is not there."""
        return self.index.reconstruct(positions)

    @classmethod
    def load(
        cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Encoder], *, writable: bool = False
    ) -> Self:
        """See `TextIndex.load`."""
        from ragkit.indexes.dense import FaissIndex

        own = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, FaissIndex.load(directory, writable=writable))

    @classmethod
    def empty(cls, settings: Mapping[str, Any], encoder: Callable[[], Encoder]) -> Self:
        """One with these settings and no texts. Raises `StoreError` if they are those of another encoder."""
        from ragkit.indexes.dense import FaissIndex

        own = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, FaissIndex(**settings["vectors"]))


KINDS: dict[str, type[TextIndex]] = {
    kind.kind: kind for kind in (LexicalIndex, DenseIndex, SparseIndex, LateInteractionIndex, UnitIndex)
}
"""Every kind of index that a directory may hold, by the name that its manifest has for it."""
