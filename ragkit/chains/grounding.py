"""From ranked, perhaps pruned documents to a `GroundedContext`: numbering, duplicates, token budget, citations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.documents import Document

from ragkit.chains.context import Citation, GroundedContext, GroundedPassage, Sentence, StageTrace
from ragkit.documents.model import Unit
from ragkit.documents.provenance import SCORE_KEY, Provenance, ensure_id, passage_text, provenance
from ragkit.documents.sentences import units_of
from ragkit.documents.spans import Span, inside, join_spans, merge_units
from ragkit.documents.tokens import Tokenizer, count_tokens
from ragkit.errors import InputError


@dataclass(frozen=True)
class _Candidate:
    """A document with the units that are still in question; `scores` is None if no pruner has scored them."""

    document: Document
    record: Provenance
    text: str
    units: tuple[Unit, ...]
    scores: tuple[float, ...] | None
    kept: tuple[int, ...]

    def with_kept(self, kept: Sequence[int]) -> _Candidate:
        return _Candidate(self.document, self.record, self.text, self.units, self.scores, tuple(kept))

    @property
    def source(self) -> str:
        return self.record.source or str(self.document.id)

    def place(self, unit: Unit) -> Span:
        return self.record.start + unit.start, self.record.start + unit.end


def ground(
    question: str,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    *,
    tokens_retrieved: int | None = None,
    max_tokens: int | None = None,
    max_passages: int | None = None,
    trace: Sequence[StageTrace] = (),
) -> GroundedContext:
    """Number the documents, best first, and keep what fits.

    Text that an earlier passage already shows (the same document again, or an overlapping passage of one source) is left out.
    `max_tokens` bounds the tokens of the prompt-ready text: whole sentences are taken, the best first (by the pruner's score if
    there is one, else in order of rank), and shown in their original order. `tokens_retrieved` defaults to the tokens of the
    whole passages. Raises `InputError` for a bound that is not positive.
    """
    for name, value in (("max_tokens", max_tokens), ("max_passages", max_passages)):
        if value is not None and value <= 0:
            raise InputError(f"{name} must be a positive integer, got {value}")
    candidates = _without_repeats([_candidate(ensure_id(document)) for document in documents])[:max_passages]
    if max_tokens is not None:
        candidates = _within_budget(candidates, tokenizer, max_tokens)
    passages = tuple(_passage(n, candidate) for n, candidate in enumerate(candidates, 1))
    if tokens_retrieved is None:
        tokens_retrieved = sum(count_tokens(tokenizer, [passage_text(document) for document in documents]))
    return GroundedContext(
        question=question,
        passages=passages,
        tokens_retrieved=tokens_retrieved,
        tokens_kept=sum(count_tokens(tokenizer, [passage.text for passage in passages])),
        trace=tuple(trace),
    )


def _candidate(document: Document) -> _Candidate:
    record = provenance(document)
    units = units_of(document)
    spans = record.spans
    kept = tuple(at for at, unit in enumerate(units) if spans is None or inside(unit, spans))
    return _Candidate(document, record, passage_text(document), units, record.unit_scores, kept)


def _without_repeats(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    shown: dict[str, list[Span]] = {}
    fresh = []
    for candidate in candidates:
        covered = shown.setdefault(candidate.source, [])
        kept = [at for at in candidate.kept if not inside(_as_unit(candidate.place(candidate.units[at])), covered)]
        covered += [candidate.place(candidate.units[at]) for at in kept]
        if kept:
            fresh.append(candidate.with_kept(kept))
    return fresh


def _as_unit(span: Span) -> Unit:
    return Unit(*span)


def _within_budget(candidates: Sequence[_Candidate], tokenizer: Tokenizer, budget: int) -> list[_Candidate]:
    """Greedy: the best sentence first; one that does not fit is passed over, since a shorter one may."""
    wanted = [
        (-(candidate.scores[at] if candidate.scores else 0.0), rank, at)
        for rank, candidate in enumerate(candidates)
        for at in candidate.kept
    ]
    taken: dict[int, set[int]] = {}
    spent = 0
    units = [[candidate.text[unit.start : unit.end] for unit in candidate.units] for candidate in candidates]
    costs = [count_tokens(tokenizer, texts) for texts in units]
    labels = count_tokens(tokenizer, [_shown(n, candidate, "") for n, candidate in enumerate(candidates, 1)])
    for _, rank, at in sorted(wanted):
        cost = costs[rank][at] + (0 if rank in taken else labels[rank])
        if spent + cost <= budget:
            taken.setdefault(rank, set()).add(at)
            spent += cost
    return [candidates[rank].with_kept(sorted(taken[rank])) for rank in sorted(taken)]


def _shown(n: int, candidate: _Candidate, text: str) -> str:
    return f"[{n}] {' > '.join((candidate.source, *candidate.record.headings))}\n{text}"


def _passage(n: int, candidate: _Candidate) -> GroundedPassage:
    kept = set(candidate.kept)
    spans = merge_units(candidate.units, [at in kept for at in range(len(candidate.units))])
    record = candidate.record
    return GroundedPassage(
        n=n,
        id=str(candidate.document.id),
        source=candidate.source,
        headings=record.headings,
        score=candidate.document.metadata.get(SCORE_KEY),
        text=join_spans(candidate.text, spans),
        spans=tuple((record.start + start, record.start + end) for start, end in spans),
        sentences=tuple(
            Sentence(
                _cite(n, candidate, candidate.units[at]),
                candidate.units[at].kind,
                candidate.scores[at] if candidate.scores else None,
            )
            for at in candidate.kept
        ),
    )


def _cite(n: int, candidate: _Candidate, unit: Unit) -> Citation:
    start, end = candidate.place(unit)
    return Citation(
        n=n,
        id=str(candidate.document.id),
        source=candidate.source,
        start=start,
        end=end,
        text=candidate.text[unit.start : unit.end],
        line=candidate.record.line(unit.start, candidate.text),
        page=candidate.record.page(unit.start),
    )
