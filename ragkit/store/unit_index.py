"""Joins a dense encoder to an index of units: a passage has a vector for each of its sentences, and is as near as the nearest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from ragkit.corpus.rows import IndexedText
from ragkit.documents.blocks import text_blocks
from ragkit.documents.model import Unit
from ragkit.documents.sentences import units
from ragkit.encoders.base import Encoder, Progress
from ragkit.errors import InputError
from ragkit.indexes.base import Positions, Ranking, Scores
from ragkit.indexes.kinds import IndexKind
from ragkit.store.encoded_index import EncodedIndex, check_encoder

if TYPE_CHECKING:
    from ragkit.indexes.dense import FaissIndex
    from ragkit.indexes.grouped import GroupedIndex

_CHUNK = 256  # passages whose units are encoded at a time


@runtime_checkable
class MakesUnits(Protocol):
    """An encoder that knows further texts by which a passage can be found, such as propositions."""

    def further_units(self, texts: Sequence[IndexedText]) -> Sequence[Sequence[str]]:
        """For each passage its further units; none if there are none."""
        ...


class UnitRanking(NamedTuple):
    """One question's ranking of passages, and for each of them the scores of its units [units], sentences first, in order."""

    ranking: Ranking
    scores: list[Scores]


class UnitIndex(EncodedIndex):
    """Vectors of a dense encoder, one for each sentence, heading, code block or table row of a passage; a `TextIndex`.

    Each is read below the title and the headings of its passage. What an encoder that `MakesUnits` has beside them is read as it
    stands. A passage's score is that of its best unit.
    """

    kind = "units"
    encoder: Encoder
    index: GroupedIndex

    def __init__(
        self, encoder: Encoder, vectors: IndexKind | FaissIndex | GroupedIndex = "auto", *, language: str = "en"
    ) -> None:
        """`vectors` is the index to fill, or its kind, see `FaissIndex`; `language` (ISO 639-1) is that of the sentences."""
        from ragkit.indexes.grouped import GroupedIndex

        self.encoder, self.language = encoder, language
        self.index = vectors if isinstance(vectors, GroupedIndex) else GroupedIndex(encoder.dimension, vectors)
        if self.index.dimension != encoder.dimension:
            raise InputError(f"vectors: has dimension {self.index.dimension}, the encoder has {encoder.dimension}")

    @property
    def settings(self) -> dict[str, Any]:
        """See `TextIndex.settings`."""
        return {"encoder": dict(self.encoder.fingerprint), "vectors": self.index.settings, "language": self.language}

    def prepare(self, texts: Sequence[IndexedText], twins: Sequence[int | None], progress: Progress | None = None) -> list[Any]:
        """See `TextIndex.prepare`; a text whose twin is indexed is not encoded again. Returns a matrix for each text."""
        matrices: list[Any] = [None] * len(texts)
        known = [(row, twin) for row, twin in enumerate(twins) if twin is not None]
        for (row, _), matrix in zip(known, self.index.vectors(np.array([twin for _, twin in known], np.int64)), strict=True):
            matrices[row] = matrix
        fresh = [row for row, twin in enumerate(twins) if twin is None]
        for start in range(0, len(fresh), _CHUNK):
            rows = fresh[start : start + _CHUNK]
            for row, matrix in zip(rows, self._encoded([texts[row] for row in rows]), strict=True):
                matrices[row] = matrix
            if progress:
                progress(len(rows))
        return matrices

    def _encoded(self, texts: Sequence[IndexedText]) -> list[Any]:
        groups = [_sentences(text, self.language) for text in texts]
        if isinstance(self.encoder, MakesUnits):
            further = self.encoder.further_units(texts)
            groups = [[*group, *others] for group, others in zip(groups, further, strict=True)]
        flat = [unit for group in groups for unit in group]
        vectors = np.asarray(self.encoder.encode_documents(flat), np.float32)
        if vectors.shape != (len(flat), self.index.dimension) or not np.isfinite(vectors).all():
            raise InputError(
                f"encoder {self.encoder.fingerprint.get('model')!r}: gave vectors of shape {vectors.shape}, or not finite; "
                f"needed are finite ones of shape {(len(flat), self.index.dimension)}"
            )
        self.index.check(vectors)
        return np.split(vectors, np.cumsum([len(group) for group in groups])[:-1])

    def search_units(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[UnitRanking]:
        """Like `search`, with the scores of the units of what is found."""
        return self._search(self.encoder.encode_queries(queries), k, allowed)

    async def asearch_units(self, queries: Sequence[str], k: int, allowed: Positions | None = None) -> list[UnitRanking]:
        """Like `search_units`, without blocking the event loop."""
        return await asyncio.to_thread(self._search, await self.encoder.aencode_queries(queries), k, allowed)

    def _search(self, vectors: Any, k: int, allowed: Positions | None) -> list[UnitRanking]:
        found = self.index.search(vectors, k, allowed)
        return [UnitRanking(each, self.index.scores(vector, each.positions)) for vector, each in zip(vectors, found, strict=True)]

    @classmethod
    def load(
        cls, directory: Path, settings: Mapping[str, Any], encoder: Callable[[], Encoder], *, writable: bool = False
    ) -> Self:
        """See `TextIndex.load`."""
        from ragkit.indexes.grouped import GroupedIndex

        own = encoder()
        check_encoder(settings["encoder"], own.fingerprint)
        return cls(own, GroupedIndex.load(directory, writable=writable), language=settings["language"])


@lru_cache(maxsize=1024)
def indexed_units(body: str, language: str) -> tuple[Unit, ...]:
    """The units of a passage that have vectors, in their order; the whole passage if it has none."""
    return units(body, text_blocks(body), language) or (Unit(0, len(body)),)


def _sentences(text: IndexedText, language: str) -> list[str]:
    context = " > ".join(filter(None, (text.title, text.headings)))
    pieces = [text.body[unit.start : unit.end] for unit in indexed_units(text.body, language)]
    return [f"{context}\n{piece}" for piece in pieces] if context else pieces
