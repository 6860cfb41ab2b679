"""What is in a file, as a store needs it: read by whoever is asked to, and taken over by the one writer."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ragkit.corpus.changes import SourceText
from ragkit.documents.loaders import EmptyFile, UnreadableFile, load_bytes, read_file
from ragkit.documents.model import Skipped
from ragkit.documents.split import SplitSettings, split
from ragkit.documents.tokens import Tokenizer


class Known(NamedTuple):
    """A file, and the digest under which the store knows it; None if it does not."""

    file: str
    digest: str | None


@dataclass(frozen=True)
class Reading:
    """What is in a file. Nothing more is known of one that has not changed than its `digest`."""

    file: str
    digest: str | None = None
    """Of content and settings; None if there was nothing to be had."""
    reason: str | None = None
    """Why it gave no text."""
    gone: bool = False
    """Whether the text that it had is gone, too."""
    sources: tuple[SourceText, ...] = ()
    documents: tuple[Document, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-serialisable; the inverse is `from_json`."""
        return {
            **{name: getattr(self, name) for name in ("file", "digest", "reason", "gone", "sources")},
            "documents": [[document.id, document.page_content, document.metadata] for document in self.documents],
            "skipped": [[skipped.path, skipped.reason] for skipped in self.skipped],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reading:
        """What `to_json` gave, also after JSON."""
        documents = [Document(id=id_, page_content=text, metadata=metadata) for id_, text, metadata in data["documents"]]
        return cls(
            **{
                **data,
                "sources": tuple(SourceText(*source) for source in data["sources"]),
                "documents": tuple(documents),
                "skipped": tuple(Skipped(*skipped) for skipped in data["skipped"]),
            }
        )


class Unreadable(NamedTuple):
    """A file that could not be read: why, and whether it is not there any more."""

    reason: str
    gone: bool


def file_content(file: str) -> bytes | Unreadable:
    """The bytes of a file, or why they cannot be had."""
    try:
        return read_file(Path(file))
    except UnreadableFile as error:
        return Unreadable(error.reason, not os.path.lexists(file))


def digest(content: bytes, settings: SplitSettings) -> str:
    """What a store remembers of a file, to know it again."""
    return hashlib.blake2b(content + repr(settings).encode(), digest_size=16).hexdigest()


def read_content(content: bytes | Unreadable, known: Known, settings: SplitSettings, tokenizer: Tokenizer) -> Reading:
    """What a store needs of a file with this content."""
    if isinstance(content, Unreadable):
        return Reading(known.file, reason=content.reason, gone=content.gone)
    found = digest(content, settings)
    if found == known.digest:
        return Reading(known.file, found)
    try:
        sources, skipped = load_bytes(content, Path(known.file), text_field=settings.text_field)
    except UnreadableFile as error:
        return Reading(known.file, found, error.reason, isinstance(error, EmptyFile))
    sizes = {"size": settings.size, "overlap": settings.overlap}
    documents = [document for source in sources for document in split(source, tokenizer, **sizes, language=settings.language)]
    texts = tuple(SourceText(source.name, found, source.text) for source in sources)
    return Reading(known.file, found, sources=texts, documents=tuple(documents), skipped=tuple(skipped))
