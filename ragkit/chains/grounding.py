"""From ranked, perhaps pruned documents to a `GroundedContext`: numbering, duplicates, token budget, citations."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from langchain_core.documents import Document

from ragkit.chains.budget import Budget, FixedBudget
from ragkit.chains.context import Candidate, Citation, GroundedContext, GroundedPassage, Sentence, StageTrace, prompt_text
from ragkit.chains.headers import Place, headers
from ragkit.chains.ordering import Order, shown_order
from ragkit.documents.model import Unit
from ragkit.documents.provenance import Provenance, ensure_id, passage_text, provenance, score_of
from ragkit.documents.sentences import units_of
from ragkit.documents.spans import Span, inside, join_spans, merge_units
from ragkit.documents.tokens import Tokenizer, count_tokens
from ragkit.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Candidate:
    """A document with the units that are still in question; `scores` is None if no pruner has scored them."""

    document: Document
    record: Provenance
    source: str
    """What citations show."""
    origin: str
    """What offsets refer to: passages of one origin may overlap."""
    start: int
    """Offset of the passage in its origin."""
    text: str
    units: tuple[Unit, ...]
    scores: tuple[float, ...] | None
    kept: tuple[int, ...]
    headings: tuple[str, ...]
    """Above the passage; of one without any, its title."""
    shown: str = ""
    """The source, as short as still tells it from the others."""

    @property
    def place(self) -> Place:
        return Place(self.source, self.shown, self.headings)

    def titles(self) -> list[str]:
        """The texts of kept units that may be titles: the first one, and headings."""
        first = self.kept[:1]
        return [
            self.text[self.units[at].start : self.units[at].end]
            for at in self.kept
            if at in first or self.units[at].kind == "heading"
        ]

    def spans(self, kept: Iterable[int]) -> list[Span]:
        return [(self.start + self.units[at].start, self.start + self.units[at].end) for at in kept]


def ground(
    question: str,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    *,
    whole: Sequence[Document] | None = None,
    seen: Sequence[Document] = (),
    max_tokens: int | Budget | None = None,
    max_passages: int | None = None,
    order: Order = "best-first",
    trace: Sequence[StageTrace] = (),
) -> GroundedContext:
    """Keep what fits of the documents, which come best first, and number it in the order shown.

    Text that a better passage already shows (the same document again, or an overlapping passage of one source) is left out.
    `max_tokens` bounds the tokens of the prompt-ready text: whole sentences are taken, the best first (by the pruner's score if
    there is one, else in order of rank), and shown in their original order. `order` (see `ragkit.chains.ordering`) has no say in
    what is kept. `whole` are the documents that were chosen before pruning, whose passages count as retrieved; by default they
    are those given. `seen` are the documents that earlier stages returned: with those chosen they become the context's
    candidates. Raises `InputError` for a bound that is not positive and for an unknown order.
    """
    for name, value in (("max_tokens", max_tokens), ("max_passages", max_passages)):
        if isinstance(value, int) and value <= 0:
            raise InputError(f"{name} must be a positive integer, got {value}")
    candidates = _named(_without_repeats([_candidate(ensure_id(document)) for document in documents])[:max_passages])
    if max_tokens is None:
        passages = _passages(candidates, order)
    else:
        budget = FixedBudget(max_tokens, tokenizer) if isinstance(max_tokens, int) else max_tokens
        most = budget.tokens(question)
        passages = _within_budget(candidates, budget, most, order)
        if candidates and not passages:
            _log.warning("max_tokens=%d is too small for any sentence; the context is empty", most)
    retrieved = documents if whole is None else whole
    return GroundedContext(
        question=question,
        passages=passages,
        tokens_retrieved=sum(count_tokens(tokenizer, [passage_text(document) for document in retrieved])),
        tokens_kept=sum(count_tokens(tokenizer, [passage.text for passage in passages])),
        trace=tuple(trace),
        candidates=_seen([*seen, *retrieved, *documents]),
    )


def _seen(documents: Iterable[Document]) -> tuple[Candidate, ...]:
    """Each document once; the last that is given under an id knows most of its way."""
    latest = {document.id: document for document in map(ensure_id, documents)}
    return tuple(map(_as_candidate, latest.values()))


def _as_candidate(document: Document) -> Candidate:
    record, text = provenance(document), passage_text(document)
    source, start = _source(document, record)
    return Candidate(
        id=str(document.id),
        source=source,
        headings=record.headings,
        start=start,
        text=text,
        line=record.line(0, text),
        page=record.page(0),
        stages=record.stages,
    )


def _source(document: Document, record: Provenance) -> tuple[str, int]:
    """What citations show as the source, and where in it the passage begins."""
    named, begins = document.metadata.get("source"), document.metadata.get("start_index")
    source = record.source or (named if isinstance(named, str) and named and not record.rewritten else str(document.id))
    return source, record.start if record.source or record.rewritten or not isinstance(begins, int) else begins


def _candidate(document: Document) -> _Candidate:
    record = provenance(document)
    source, start = _source(document, record)
    units = units_of(document)
    kept = tuple(at for at, unit in enumerate(units) if record.spans is None or inside(unit, record.spans))
    return _Candidate(
        document=document,
        record=record,
        source=source,
        origin=record.source or str(document.id),
        start=start,
        text=passage_text(document),
        units=units,
        scores=record.unit_scores,
        kept=kept,
        headings=record.headings or _title(document),
    )


def _title(document: Document) -> tuple[str, ...]:
    title = document.metadata.get("title")
    return (title,) if isinstance(title, str) and title.strip() else ()


def _without_repeats(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    shown: dict[str, list[Span]] = {}
    fresh = []
    for candidate in candidates:
        covered = shown.get(candidate.origin, [])
        kept = tuple(at for at in candidate.kept if not _covers(covered, *candidate.spans([at])[0]))
        if kept:
            fresh.append(replace(candidate, kept=kept))
            shown[candidate.origin] = _merged([*covered, *candidate.spans(kept)])
    return fresh


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _covers(spans: Sequence[Span], start: int, end: int) -> bool:
    """Whether one of these sorted, separate spans holds all of `start` to `end`."""
    at = bisect_right(spans, start, key=lambda span: span[0]) - 1
    return at >= 0 and end <= spans[at][1]


def _named(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Paths are shown from the folder that all of them share, since a prompt pays for every token of them."""
    folders = {os.path.dirname(candidate.source) for candidate in candidates if os.path.isabs(candidate.source)}
    common = os.path.commonpath(folders) if folders else ""
    return [replace(candidate, shown=_below(candidate.source, common)) for candidate in candidates]


def _below(source: str, folder: str) -> str:
    return os.path.relpath(source, folder) if os.path.isabs(source) else source


def _within_budget(candidates: Sequence[_Candidate], budget: Budget, most: int, order: Order) -> tuple[GroundedPassage, ...]:
    """Greedy: the best sentence first; one that does not fit is passed over, since a shorter one may."""
    wanted = sorted(
        (-(candidate.scores[at] if candidate.scores else 0.0), rank, at)
        for rank, candidate in enumerate(candidates)
        for at in candidate.kept
    )
    costs = [budget.count([candidate.text[unit.start : unit.end] for unit in candidate.units]) for candidate in candidates]
    # what stands above a passage is known once its neighbours are, and is no longer than its label
    labels = budget.count([f"[{n}] {candidate.place.label}\n\n\n" for n, candidate in enumerate(candidates, 1)])
    taken: list[tuple[int, int]] = []
    spent = 0
    for _, rank, at in wanted:
        cost = costs[rank][at] + (0 if any(rank == other for other, _ in taken) else labels[rank])
        if spent + cost <= most:
            taken.append((rank, at))
            spent += cost
    while True:
        chosen = [
            replace(candidate, kept=kept)
            for rank, candidate in enumerate(candidates)
            if (kept := tuple(sorted(at for other, at in taken if other == rank)))
        ]
        passages = _passages(chosen, order)
        # some tokenizers count the white space between the parts, too
        if not taken or budget.count([prompt_text(passages)])[0] <= most:
            return passages
        taken.pop()


def _passages(candidates: Sequence[_Candidate], order: Order) -> tuple[GroundedPassage, ...]:
    ranks = shown_order(order, [(candidate.source, candidate.start) for candidate in candidates])
    shown = [candidates[rank] for rank in ranks]
    lines = headers([candidate.place for candidate in shown], [candidate.titles() for candidate in shown])
    return tuple(
        _passage(n, rank + 1, candidate, line)
        for n, (rank, candidate, line) in enumerate(zip(ranks, shown, lines, strict=True), 1)
    )


def _passage(n: int, rank: int, candidate: _Candidate, header: str) -> GroundedPassage:
    kept = set(candidate.kept)
    spans = merge_units(candidate.units, [at in kept for at in range(len(candidate.units))])
    return GroundedPassage(
        n=n,
        id=str(candidate.document.id),
        source=candidate.source,
        headings=candidate.record.headings,
        score=score_of(candidate.document),
        label=candidate.place.label,
        text=join_spans(candidate.text, spans),
        spans=tuple((candidate.start + start, candidate.start + end) for start, end in spans),
        sentences=tuple(_sentence(n, candidate, at) for at in candidate.kept),
        dropped=tuple(_sentence(n, candidate, at) for at in range(len(candidate.units)) if at not in kept),
        rank=rank,
        header=header,
    )


def _sentence(n: int, candidate: _Candidate, at: int) -> Sentence:
    unit = candidate.units[at]
    return Sentence(_cite(n, candidate, unit), unit.kind, candidate.scores[at] if candidate.scores else None)


def _cite(n: int, candidate: _Candidate, unit: Unit) -> Citation:
    return Citation(
        n=n,
        id=str(candidate.document.id),
        source=candidate.source,
        start=candidate.start + unit.start,
        end=candidate.start + unit.end,
        text=candidate.text[unit.start : unit.end],
        line=candidate.record.line(unit.start, candidate.text),
        page=candidate.record.page(unit.start),
    )
