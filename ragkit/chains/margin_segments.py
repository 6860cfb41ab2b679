"""Long inputs as segments: runs of units up to a number of tokens, cut nowhere but between units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from langchain_core.documents import Document

from ragkit.documents.model import Mark, Unit
from ragkit.documents.provenance import passage_text, provenance, with_provenance
from ragkit.documents.sentences import units_of
from ragkit.documents.spans import inside, join_spans, merge_units
from ragkit.documents.tokens import Tokenizer, count_tokens
from ragkit.errors import InputError


class Part(NamedTuple):
    """Neighbouring units of one document that fall into one segment."""

    document: int
    """Its number in the list that was given."""
    units: tuple[int, ...]
    """Numbers in all of the document's units, ascending."""


class Long(NamedTuple):
    """Documents with their units, read once for all segments."""

    documents: list[Document]
    units: list[tuple[Unit, ...]]

    def sentences(self, part: Part) -> list[str]:
        """The text of each unit of a part, verbatim."""
        text = passage_text(self.documents[part.document])
        return [text[self.units[part.document][at].start : self.units[part.document][at].end] for at in part.units]

    def text(self, part: Part) -> str:
        """The part as it stands in its document."""
        return self.cut(part, part.units).page_content

    def cut(self, part: Part, kept: Sequence[int], scores: Mapping[int, float] | None = None) -> Document:
        """A document of a part alone, from its first to its last unit, shortened to some of its units as a pruner does it.

        It keeps its place in the source, its lines and pages, so that citations resolve as those of the whole would.
        """
        document, text = self.documents[part.document], passage_text(self.documents[part.document])
        record, first = provenance(document), part.units[0]
        units = self.units[part.document][first : part.units[-1] + 1]
        begin, end = units[0].start, units[-1].end
        near = tuple(Unit(unit.start - begin, unit.end - begin, unit.kind) for unit in units)
        chosen = frozenset(kept)
        spans = merge_units(near, [first + at in chosen for at in range(len(near))])
        metadata = dict(document.metadata)
        if record.source is None and not record.rewritten:
            started = metadata.get("start_index")
            metadata["start_index"] = begin + (started if isinstance(started, int) else 0)
        passage = text[begin:end]
        short = Document(id=document.id, page_content=join_spans(passage, spans), metadata=metadata)
        return with_provenance(
            short,
            record,
            start=record.start + begin,
            end=record.start + end,
            lines=_shifted(record.lines, begin, record.line(begin, text)),
            pages=_shifted(record.pages, begin, record.page(begin)),
            passage=passage,
            spans=spans,
            units=near,
            unit_scores=None if scores is None else tuple(scores.get(first + at, 0.0) for at in range(len(near))),
        )


def read_units(documents: Sequence[Document], language: str = "en") -> Long:
    """The documents with all units of their passages; `language` is an ISO 639-1 code."""
    return Long(list(documents), [units_of(document, language) for document in documents])


def segments_of(long: Long, tokenizer: Tokenizer, size: int) -> list[tuple[Part, ...]]:
    """The units of all documents in order, cut into segments of at most `size` tokens; a longer unit is a segment of its own.

    Every unit that is left of its document is in exactly one segment. Raises `InputError` for a `size` that is not positive.
    """
    if size <= 0:
        raise InputError(f"size: must be a positive number of tokens, not {size!r}")
    segments: list[list[Part]] = []
    spent = 0
    for number, (document, units) in enumerate(zip(long.documents, long.units, strict=True)):
        spans, text = provenance(document).spans, passage_text(document)
        left = [at for at, unit in enumerate(units) if spans is None or inside(unit, spans)]
        costs = count_tokens(tokenizer, [text[units[at].start : units[at].end] for at in left])
        for at, cost in zip(left, costs, strict=True):
            if not segments or spent + cost > size:
                segments.append([])
                spent = 0
            spent += cost
            last = segments[-1]
            if last and last[-1].document == number:
                last[-1] = Part(number, (*last[-1].units, at))
            else:
                last.append(Part(number, (at,)))
    return [tuple(segment) for segment in segments]


def _shifted(marks: Sequence[Mark], begin: int, number: int | None) -> tuple[Mark, ...]:
    """Marks as they are behind `begin`, where the line or page is `number`."""
    later = tuple(Mark(mark.offset - begin, mark.number) for mark in marks if mark.offset > begin)
    return later if number is None else (Mark(0, number), *later)
