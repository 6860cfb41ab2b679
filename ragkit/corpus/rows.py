"""A document as one row of the database, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ragkit.documents.provenance import KEY, SCORE_KEY, Provenance, content_id, origin, provenance
from ragkit.errors import InputError


class IndexedText(NamedTuple):
    """What indexes see of a passage."""

    body: str
    """The passage itself."""
    headings: str = ""
    """The headings above it that the body does not show, outermost first."""
    title: str = ""
    """`metadata["title"]` of a document that a caller gave, unless its text shows it; the passages of a file have headings
    instead, and would all change with a title. Only BM25 sees it."""

    @property
    def whole(self) -> str:
        """Headings and body, as dense and learned sparse encoders read them."""
        return f"{self.headings}\n{self.body}" if self.headings else self.body


class Row(NamedTuple):
    """What is stored of a document; `digest` is that of the indexed text, `metadata` and `provenance` are JSON."""

    id: str
    digest: str
    source: str | None
    text: str
    metadata: str
    provenance: str | None

    @property
    def indexed(self) -> IndexedText:
        """What indexes see of the passage."""
        record = Provenance.from_json(json.loads(self.provenance)) if self.provenance else Provenance()
        return _indexed_text(self.text, record, json.loads(self.metadata))


def to_row(document: Document) -> Row:
    """The row of a document that has an id. Raises `InputError` for text or metadata that would not come back exactly."""
    record = provenance(document)
    text = document.page_content if record.passage is None else record.passage
    for field, value in (("page_content", text), ("id", str(document.id)), ("metadata['ragkit']['source']", record.source or "")):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"document {document.id!r}: {field} holds a lone surrogate at character {error.start}; "
                "decode the text with errors='replace'"
            ) from None
    # a score that a stage gave is no metadata of the user's
    ours = {KEY, SCORE_KEY} if record.stages else {KEY}
    place = origin(record)
    return Row(
        id=str(document.id),
        digest=content_id("\0".join(_indexed_text(text, record, document.metadata))),
        source=record.source,
        text=text,
        metadata=_exact_json({key: value for key, value in document.metadata.items() if key not in ours}, document.id),
        provenance=None if place == Provenance() else json.dumps(place.to_json()),
    )


def to_document(id_: str, text: str, metadata: str, record: str | None) -> Document:
    """Inverse of `to_row`."""
    fields = json.loads(metadata)
    if record is not None:
        fields[KEY] = json.loads(record)
    return Document(id=id_, page_content=text, metadata=fields)


def _indexed_text(text: str, record: Provenance, metadata: Mapping[str, Any]) -> IndexedText:
    context = [heading for heading in record.headings if heading not in text]
    title = metadata.get("title")
    if record.source is not None or not isinstance(title, str) or title in text or title in record.headings:
        title = ""
    return IndexedText(text, " > ".join(context), title)


def _exact_json(metadata: dict[str, Any], id_: str | None) -> str:
    for field, value in metadata.items():
        try:
            exact = isinstance(field, str) and json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError, RecursionError):
            exact = False
        if not exact:
            raise InputError(
                f"document {id_!r}: metadata field {field!r} ({type(value).__name__}) does not survive JSON; "
                "convert it to strings, finite numbers, true/false, null, lists or mappings of them"
            )
    return json.dumps(metadata)
