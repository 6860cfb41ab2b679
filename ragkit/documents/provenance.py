"""`metadata["ragkit"]`: where a passage comes from and what each stage did to it, typed.

LangChain's `Document` is what flows; this is the only place that knows how ragkit's own part of its metadata is laid out.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ragkit.documents.model import Mark, Unit
from ragkit.documents.spans import join_spans
from ragkit.errors import InputError

KEY = "ragkit"
SCORE_KEY = "relevance_score"


class StageResult(NamedTuple):
    """What one stage said of a document: its score and its 1-based rank."""

    stage: str
    score: float | None
    rank: int


@dataclass(frozen=True)
class Provenance:
    """Typed view of `metadata["ragkit"]`. All offsets count characters.

    `start` and `end` place the passage in its source text; everything else is relative to the passage. `passage` holds the whole
    passage once a pruner has shortened `page_content`, `spans` the kept slices of it, `unit_scores` one score per unit.
    """

    source: str | None = None
    start: int = 0
    end: int | None = None
    headings: tuple[str, ...] = ()
    lines: tuple[Mark, ...] = ()
    pages: tuple[Mark, ...] = ()
    units: tuple[Unit, ...] | None = None
    stages: tuple[StageResult, ...] = ()
    passage: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    unit_scores: tuple[float, ...] | None = None
    rewritten: bool = False
    """Whether somebody has changed the text so that it is no slice of the source any more."""

    def line(self, offset: int, text: str) -> int | None:
        """1-based line of the original file at `offset` of the passage `text`; None where the format has no lines."""
        mark = _last_mark(self.lines, offset)
        return None if mark is None else mark.number + text.count("\n", mark.offset, offset)

    def page(self, offset: int) -> int | None:
        """1-based page at `offset` of the passage; None where the format has no pages."""
        mark = _last_mark(self.pages, offset)
        return None if mark is None else mark.number

    def to_json(self) -> dict[str, Any]:
        """The JSON-serialisable dict that lives under `metadata["ragkit"]`; fields at their default are left out, but `start`
        stands beside every `source`.
        """
        return {
            name: _plain(value)
            for name, value in self.__dict__.items()
            if value != self.__dataclass_fields__[name].default or (name == "start" and self.source is not None)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Provenance:
        """Inverse of `to_json`. Raises `InputError` for data that it did not write."""
        if not isinstance(data, Mapping) or not data.keys() <= cls.__dataclass_fields__.keys():
            raise InputError(f"metadata[{KEY!r}] belongs to ragkit and holds something else; rename that field")
        fields = dict(data)
        try:
            for name, kind in (("lines", Mark), ("pages", Mark), ("units", Unit), ("stages", StageResult)):
                if name in fields:
                    fields[name] = tuple(kind(*item) for item in fields[name])
            if "spans" in fields:
                fields["spans"] = tuple((start, end) for start, end in fields["spans"])
            for name in ("headings", "unit_scores"):
                if name in fields:
                    fields[name] = tuple(fields[name])
        except (TypeError, ValueError) as error:
            raise InputError(f"metadata[{KEY!r}] is not as ragkit wrote it ({error}); remove that field") from None
        return cls(**fields)


def _last_mark(marks: tuple[Mark, ...], offset: int) -> Mark | None:
    at = bisect_right(marks, offset, key=lambda mark: mark.offset)
    return marks[at - 1] if at else None


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def provenance(document: Document) -> Provenance:
    """ragkit's view of a document; an empty one for a document that ragkit has not touched.

    If somebody else has changed `page_content` since, what no longer fits it is left out: the document is then its own source.
    """
    data = document.metadata.get(KEY)
    if not data:
        return Provenance()
    record = Provenance.from_json(data)
    return record if _fits(record, document.page_content) else _own_source(record)


def place(document: Document) -> tuple[str, int, int | None] | None:
    """Source, start and end that a document carries, whatever has become of its text; None if it came from no source."""
    data = document.metadata.get(KEY)
    record = Provenance.from_json(data) if data else Provenance()
    return None if record.source is None else (record.source, record.start, record.end)


def reanchored(before: Document, after: Document) -> Document:
    """`after`, which somebody made of `before`, with its place in the source if its text is still a slice of the passage.

    If it is not, the text is its own source from now on.
    """
    if before.page_content == after.page_content:
        return after
    whole, record = passage_text(before), provenance(before)
    start = whole.find(after.page_content)
    if start < 0:
        return with_provenance(after, _own_source(record))
    end = start + len(after.page_content)
    units = record.units and tuple(
        Unit(max(unit.start, start), min(unit.end, end), unit.kind)
        for unit in record.units
        if unit.start < end and unit.end > start
    )
    return with_provenance(after, record, passage=whole, spans=((start, end),), units=units, unit_scores=None)


def _own_source(record: Provenance) -> Provenance:
    return Provenance(headings=record.headings, stages=record.stages, rewritten=True)


def _fits(record: Provenance, text: str) -> bool:
    if record.spans is not None:
        return record.passage is not None and join_spans(record.passage, record.spans) == text
    return record.end is None or record.end - record.start == len(text)


def with_provenance(document: Document, record: Provenance, **changes: Any) -> Document:
    """A copy of `document` that carries `record`, with `changes` made to it first. The input is not mutated."""
    record = replace(record, **changes)
    return Document(id=document.id, page_content=document.page_content, metadata={**document.metadata, KEY: record.to_json()})


def with_stages(document: Document, *results: StageResult) -> Document:
    """A copy of `document` with more stage results; `relevance_score` becomes the last of their scores that is not None."""
    record = provenance(document)
    copy = with_provenance(document, record, stages=(*record.stages, *results))
    for result in results:
        if result.score is not None:
            copy.metadata[SCORE_KEY] = result.score
    return copy


def score_of(document: Document) -> float | None:
    """The document's `relevance_score`, whoever gave it; None if it has none that is a number."""
    score = document.metadata.get(SCORE_KEY)
    return float(score) if isinstance(score, Real) else None


def origin(record: Provenance) -> Provenance:
    """Where the passage comes from, without what stages did to it."""
    return replace(record, stages=(), passage=None, spans=None, unit_scores=None)


def passage_text(document: Document) -> str:
    """The whole passage, also after a pruner has shortened `page_content`."""
    whole = provenance(document).passage
    return document.page_content if whole is None else whole


def ensure_id(document: Document) -> Document:
    """The document itself if it has an id, else a copy whose id is a hash of its text and metadata.

    Raises `InputError` if it is no document.
    """
    if not isinstance(document, Document):
        raise InputError(f"documents: must be langchain_core Documents, not {type(document).__name__}; for texts use from_texts")
    if document.id is not None:
        return document
    own = {str(key): value for key, value in document.metadata.items() if key not in (KEY, SCORE_KEY)}
    return Document(
        id=content_id(document.page_content, own),
        page_content=document.page_content,
        metadata=document.metadata,
    )


def content_id(*parts: Any) -> str:
    """A 128-bit hash, in hex, of JSON-serialisable parts: equal parts, equal id, on every machine.

    A value that JSON cannot hold counts by its `str`. Raises `InputError` for a mapping whose keys cannot be sorted.
    """
    try:
        blob = json.dumps(parts, ensure_ascii=False, sort_keys=True, skipkeys=True, default=str)
    except TypeError as error:
        raise InputError(f"metadata has a mapping with keys of different types ({error}); make them all strings") from None
    return hashlib.blake2b(blob.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
