"""What callers get, and how it is made of what the pipeline gives."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from pydantic import BaseModel, ConfigDict

from ragkit.chains.answer import Answer, pointed_to
from ragkit.chains.context import GroundedContext, GroundedPassage
from ragkit.documents.provenance import KEY, SCORE_KEY, passage_text, provenance, score_of


class Wrong(BaseModel):
    """What is wrong with a request, or with the service."""

    field: str | None
    """The field of the request, or null."""
    message: str


class ErrorReply(BaseModel):
    """Every answer that is none."""

    error: Wrong


class Hit(BaseModel):
    """A passage that was found. Offsets count characters of its decoded source."""

    id: str
    score: float | None
    source: str
    start: int
    end: int
    text: str
    metadata: dict[str, Any]


class SearchReply(BaseModel):
    """Passages, best first."""

    query: str
    hits: list[Hit]


class Reranked(BaseModel):
    """A document by its place among those sent."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class Usage(BaseModel):
    """By estimate."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(BaseModel):
    """Of the endpoint."""

    version: str


class Meta(BaseModel):
    """As Cohere's clients expect it."""

    api_version: ApiVersion


class RerankReply(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    results: list[Reranked]
    usage: Usage
    meta: Meta


class Scored(BaseModel):
    """A sentence of a document, in characters of its text."""

    start: int
    end: int
    score: float | None
    kept: bool


class Pruned(BaseModel):
    """What is left of a document: `text` is made of the slices `spans` of it."""

    index: int
    relevance_score: float | None
    text: str
    spans: list[tuple[int, int]]
    sentences: list[Scored]


class PruneReply(BaseModel):
    """The documents in the order in which they were sent."""

    results: list[Pruned]


class Cited(BaseModel):
    """A verbatim slice of a source."""

    model_config = ConfigDict(from_attributes=True)

    n: int
    id: str
    source: str
    start: int
    end: int
    text: str
    line: int | None
    page: int | None


class Passage(BaseModel):
    """A numbered passage of a context; `dropped` are its sentences that are not shown, if they were asked for."""

    n: int
    id: str
    source: str
    label: str
    score: float | None
    text: str
    spans: list[tuple[int, int]]
    dropped: list[Cited] | None = None


class TokenCount(BaseModel):
    """Of the whole passages, and of what is kept of them."""

    retrieved: int
    kept: int


class Stage(BaseModel):
    """A stage of the pipeline: the seconds it took, waiting included, and how many documents went in and came out."""

    stage: str
    seconds: float
    entered: int | None
    """Null for the first stage if the key sees a part of the index: the size of the whole is not its business."""
    left: int


class Found(BaseModel):
    """A candidate: a document that some stage returned, whole."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    source: str
    start: int
    text: str


class Near(Found):
    """A passage to look at where there is no answer; `n` is the number by which the answer names it, null if it does not."""

    n: int | None = None


class GroundReply(BaseModel):
    """A context: `text` is ready for a prompt."""

    query: str
    text: str
    passages: list[Passage]
    citations: list[Cited]
    tokens: TokenCount
    trace: list[Stage]
    candidates: list[Found] | None = None


class Sources(BaseModel):
    """The passages that an answer is made from; the event `sources`."""

    passages: list[Passage]


class AskReply(BaseModel):
    """An answer, whose [n] refer to the citations, or, if it abstained, to `nearest`; the event `answer`."""

    query: str
    answer: str
    abstained: bool
    confidence: float | None
    citations: list[Cited]
    unsupported: list[str]
    """What the answer states and its passages do not bear out."""
    problems: list[str]
    nearest: list[Near]
    """Where to look instead, if it abstained, the best first."""
    passages: list[Passage]
    tokens: TokenCount
    usage: dict[str, int | None]


class State(BaseModel):
    """Whether the service lives, or is ready."""

    status: str


def hit(document: Document) -> Hit:
    """A document of a search."""
    record = provenance(document)
    return Hit(
        id=str(document.id),
        score=score_of(document),
        source=record.source or str(document.id),
        start=record.start,
        end=record.start + len(document.page_content),
        text=document.page_content,
        metadata={key: value for key, value in document.metadata.items() if key not in (KEY, SCORE_KEY)},
    )


def pruned(document: Document) -> Pruned:
    """A document of a pruner, whose id is its place."""
    record = provenance(document)
    whole, units = passage_text(document), record.units or ()
    spans = [(0, len(whole))] if record.spans is None else list(record.spans)
    scores = record.unit_scores or [None] * len(units)
    return Pruned(
        index=int(str(document.id)),
        relevance_score=next((stage.score for stage in reversed(record.stages) if stage.score is not None), None),
        text=document.page_content,
        spans=spans,
        sentences=[
            Scored(start=unit.start, end=unit.end, score=score, kept=any(s <= unit.start and unit.end <= e for s, e in spans))
            for unit, score in zip(units, scores, strict=True)
        ],
    )


def grounded(context: GroundedContext, *, explain: bool, restricted: bool) -> GroundReply:
    """A context, for a caller who may see all of the index or, `restricted`, a part of it."""
    return GroundReply(
        query=context.question,
        text=context.text,
        passages=passages(context, explain=explain),
        citations=[Cited.model_validate(citation) for citation in context.citations],
        tokens=_tokens(context),
        trace=[
            Stage(
                stage=stage.stage,
                seconds=stage.seconds,
                entered=None if restricted and n == 0 else stage.entered,
                left=stage.left,
            )
            for n, stage in enumerate(context.trace)
        ],
        candidates=[Found.model_validate(candidate) for candidate in context.candidates] if explain else None,
    )


def answered(answer: Answer) -> AskReply:
    """An answer. How a model failed stays with the service: its error may name an address, or a part of a key."""
    context = answer.context
    return AskReply(
        query=context.question,
        answer=answer.text,
        abstained=answer.abstained,
        confidence=answer.confidence,
        citations=[Cited.model_validate(citation) for citation in answer.citations],
        unsupported=[claim.text for claim in answer.unsupported],
        problems=[*answer.problems],
        nearest=_nearest(context) if answer.abstained else [],
        passages=passages(context),
        tokens=_tokens(context),
        usage={name: count for name, count in answer.usage.items() if count is None or isinstance(count, int)},
    )


def passages(context: GroundedContext, *, explain: bool = False) -> list[Passage]:
    """The passages of a context."""
    return [_passage(passage, explain) for passage in context.passages]


def _passage(passage: GroundedPassage, explain: bool) -> Passage:
    return Passage(
        n=passage.n,
        id=passage.id,
        source=passage.source,
        label=passage.label,
        score=passage.score,
        text=passage.text,
        spans=list(passage.spans),
        dropped=[Cited.model_validate(sentence.citation) for sentence in passage.dropped] if explain else None,
    )


def _nearest(context: GroundedContext) -> list[Near]:
    return [Near.model_validate(near).model_copy(update={"n": n}) for n, near in pointed_to(context)]


def _tokens(context: GroundedContext) -> TokenCount:
    return TokenCount(retrieved=context.tokens_retrieved, kept=context.tokens_kept)
