"""A document as one row of the database, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ragkit.documents.provenance import KEY, SCORE_KEY, Provenance, content_id, origin, provenance
from ragkit.errors import InputError


class Row(NamedTuple):
    """What is stored of a document; `digest` is that of the indexed text, `metadata` and `provenance` are JSON."""

    id: str
    digest: str
    source: str | None
    text: str
    metadata: str
    provenance: str | None

    @property
    def indexed(self) -> str:
        """What indexes see of the passage."""
        record = Provenance.from_json(json.loads(self.provenance)) if self.provenance else Provenance()
        return _indexed_text(self.text, record.headings)


def to_row(document: Document) -> Row:
    """The row of a document that has an id. Raises `InputError` for text or metadata that would not come back exactly."""
    record = provenance(document)
    text = document.page_content if record.passage is None else record.passage
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"document {document.id!r}: page_content holds a lone surrogate at character {error.start}; "
            "decode the text with errors='replace'"
        ) from None
    # a score that a stage gave is no metadata of the user's
    ours = {KEY, SCORE_KEY} if record.stages else {KEY}
    place = origin(record)
    return Row(
        id=str(document.id),
        digest=content_id(_indexed_text(text, record.headings)),
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


def _indexed_text(text: str, headings: Sequence[str]) -> str:
    """The passage, preceded by the headings above it that its text does not already show."""
    context = [heading for heading in headings if heading not in text]
    return f"{' > '.join(context)}\n{text}" if context else text


def _exact_json(metadata: dict[str, Any], id_: str | None) -> str:
    for field, value in metadata.items():
        try:
            exact = isinstance(field, str) and json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            exact = False
        if not exact:
            raise InputError(
                f"document {id_!r}: metadata field {field!r} ({type(value).__name__}) does not survive JSON; "
                "convert it to strings, finite numbers, true/false, null, lists or mappings of them"
            )
    return json.dumps(metadata)
