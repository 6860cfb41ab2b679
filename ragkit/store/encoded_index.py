"""What the text indexes share that join an encoder to an index of its vectors."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.base import Progress
from ragkit.errors import StoreError
from ragkit.indexes.base import Positions, Ranking


class EncodedIndex:
    """A `TextIndex`, but for its kind and settings, and for how texts become vectors and files an index."""

    encoder: Any
    """Has `encode_queries` and `aencode_queries`."""
    index: Any
    """Takes what the encoder gives; see `indexes.base.Index`."""

    def __len__(self) -> int:
        return len(self.index)

    def add(self, positions: Positions, prepared: Any) -> None:
        """See `TextIndex.add`."""
        self.index.add(positions, prepared)

    def remove(self, positions: Positions) -> None:
        """See `TextIndex.remove`."""
        self.index.remove(positions)

    def search(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `TextIndex.search`."""
        rankings: list[Ranking] = self.index.search(self.encoder.encode_queries(queries), k, allowed)
        return rankings

    async def asearch(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `TextIndex.asearch`."""
        vectors = await self.encoder.aencode_queries(queries)
        return await asyncio.to_thread(self.index.search, vectors, k, allowed)

    def save(self, directory: Path) -> None:
        """See `TextIndex.save`."""
        self.index.save(directory)


class EncodedVectorIndex(EncodedIndex, ABC):
    """One with a single vector for a text, and so a `VectorIndex` too."""

    @abstractmethod
    def prepare(self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None) -> Any:
        """See `TextIndex.prepare`."""

    def query_vectors(self, queries: Sequence[str]) -> Any:
        """See `VectorIndex.query_vectors`."""
        return self.encoder.encode_queries(queries)

    async def aquery_vectors(self, queries: Sequence[str]) -> Any:
        """See `VectorIndex.aquery_vectors`."""
        return await self.encoder.aencode_queries(queries)

    def passage_vectors(self, texts: Sequence[IndexedText], twins: Sequence[int | None]) -> Any:
        """See `VectorIndex.passage_vectors`."""
        return self.prepare(texts, twins)

    def search_vectors(self, vectors: Any, k: int, allowed: Positions | None = None) -> list[Ranking]:
        """See `VectorIndex.search_vectors`."""
        rankings: list[Ranking] = self.index.search(vectors, k, allowed)
        return rankings


def check_encoder(built: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `StoreError` if an index was built with another encoder than the given one, by their fingerprints."""
    given = json.loads(json.dumps(dict(given)))  # as it was written: a tuple has become a list
    differing = sorted(key for key in built.keys() | given.keys() if built.get(key) != given.get(key))
    # a digest of the weights says more than the name of the folder they lie in
    if differing and not (differing == ["model"] and "digest" in given):
        raise StoreError(
            f"this index was built with encoder {built.get('model')!r}, not {given.get('model')!r} "
            f"(different: {', '.join(differing)}); open it with that encoder, or index again"
        )
