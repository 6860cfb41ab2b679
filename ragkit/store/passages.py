"""The passages of a store as plain text, with their sources and their sentences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from langchain_core.documents import Document

from ragkit.corpus.rows import to_row
from ragkit.documents.model import Unit
from ragkit.documents.provenance import passage_text, provenance
from ragkit.documents.sentences import units_of
from ragkit.store.base import BaseStore


@dataclass(frozen=True)
class Passage:
    """`headings` are those above the text that it does not show, or the document's title."""

    id: str
    source: str
    headings: str
    text: str
    units: tuple[Unit, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The text, cut where a unit begins: joined, they are the passage."""
        cuts = [0, *(unit.start for unit in self.units[1:]), len(self.text)]
        return tuple(self.text[start:end] for start, end in pairwise(cuts))

    @property
    def prose(self) -> list[int]:
        """The places of the units that are sentences, rather than headings, code or rows of a table."""
        return [at for at, unit in enumerate(self.units) if unit.kind == "text"]

    def unit(self, at: int) -> str:
        """The text of one unit."""
        return self.text[self.units[at].start : self.units[at].end]


def passages(store: BaseStore) -> list[Passage]:
    """All passages, in the order in which they were added; those that are blank are left out."""
    language = store.language or "en"
    documents = store.read(lambda snapshot: snapshot.documents(snapshot.positions()))
    return [_passage(document, language) for document in documents if passage_text(document).strip()]


def _passage(document: Document, language: str) -> Passage:
    indexed = to_row(document).indexed
    named = document.metadata.get("source")
    source = provenance(document).source or (named if isinstance(named, str) and named else str(document.id))
    return Passage(
        str(document.id), source, indexed.headings or indexed.title, passage_text(document), units_of(document, language)
    )
