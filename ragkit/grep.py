"""Exact search over a store, told as `ragkit grep` tells it: matches by their place in the source, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import typer
from langchain_core.documents import Document

from ragkit.corpus.filters import Filter
from ragkit.corpus.patterns import Pattern
from ragkit.documents.provenance import provenance
from ragkit.documents.spans import Span
from ragkit.store.base import BaseSnapshot, BaseStore
from ragkit.terminal import place, printable

_CHUNK = 256


class Hits(NamedTuple):
    """A passage and the spans of matches in it, relative to the passage."""

    document: Document
    spans: list[Span]


class Found(NamedTuple):
    """The first matches, by passage in corpus order, and how many there are in all.

    A match in text that several passages share counts once. `passages` is the number of those that contain a match.
    """

    hits: list[Hits]
    matches: int
    passages: int


def grep(store: BaseStore, pattern: Pattern, k: int | None = None, filter: Filter | None = None) -> Found:
    """Search all passages that pass the filter; `k` bounds the matches that come back, not those that are counted."""
    return store.read(lambda snapshot: _grep(snapshot, pattern, k, filter))


def _grep(snapshot: BaseSnapshot, pattern: Pattern, k: int | None, filter: Filter | None) -> Found:
    hits: list[Hits] = []
    seen: dict[str, set[Span]] = {}
    matches = passages = 0
    for document, spans in _documents(snapshot, pattern, filter):
        passages += 1
        record = provenance(document)
        known = seen.setdefault(_source(document), set())
        fresh = [span for span in spans if (record.start + span[0], record.start + span[1]) not in known]
        known.update((record.start + start, record.start + end) for start, end in fresh)
        shown = fresh if k is None else fresh[: max(0, k - matches)]
        matches += len(fresh)
        if shown:
            hits.append(Hits(document, shown))
    return Found(hits, matches, passages)


def _documents(snapshot: BaseSnapshot, pattern: Pattern, filter: Filter | None) -> Iterator[tuple[Document, list[Span]]]:
    waiting: dict[int, list[Span]] = {}
    for position, spans in snapshot.find(pattern, filter):
        waiting[position] = spans
        if len(waiting) == _CHUNK:
            yield from zip(snapshot.documents(waiting), waiting.values(), strict=True)
            waiting = {}
    yield from zip(snapshot.documents(waiting), waiting.values(), strict=True)


def as_json(found: Found) -> list[dict[str, Any]]:
    """One entry per match: its span in the source and in the passage with that id, its text, and the whole lines it stands in."""
    entries = []
    for document, spans in found.hits:
        record, text = provenance(document), document.page_content
        for start, end in spans:
            lines = _lines(text, [(start, end)])
            entries.append(
                {
                    "id": document.id,
                    "source": _source(document),
                    "start": record.start + start,
                    "end": record.start + end,
                    "span": [start, end],
                    "line": record.line(start, text),
                    "page": record.page(start),
                    "text": text[start:end],
                    "context": text[min(at for at, _ in lines) : max(end for _, end in lines)],
                }
            )
    return entries


def shown_lines(found: Found) -> Iterator[str]:
    """`source:line: text` of every line that a match touches, with the matches highlighted."""
    for document, spans in found.hits:
        record, text = provenance(document), document.page_content
        for (start, end), pieces in _lines(text, spans).items():
            first = pieces[0][0]
            where = place(_source(document), record.line(first, text), record.page(first))
            yield f"{typer.style(where, dim=True)}: {_highlighted(text, start, end, pieces)}"


def _lines(text: str, spans: Sequence[Span]) -> Mapping[Span, list[Span]]:
    """The lines of the text that spans touch, without their line breaks, and what each touches of them."""
    lines: dict[Span, list[Span]] = {}
    for start, end in spans:
        at = text.rfind("\n", 0, start) + 1
        while at < end:
            stop = text.find("\n", at)
            stop = len(text) if stop < 0 else stop
            last = stop - text.endswith("\r", at, stop)
            lines.setdefault((at, last), []).append((max(at, start), min(last, end)))
            at = stop + 1
    return lines


def _highlighted(text: str, start: int, end: int, pieces: Sequence[Span]) -> str:
    parts, at = [], start
    for first, last in pieces:
        parts += [printable(text[at:first]), typer.style(printable(text[first:last]), fg="red", bold=True)]
        at = last
    return "".join([*parts, printable(text[at:end])])


def _source(document: Document) -> str:
    return provenance(document).source or str(document.id)
