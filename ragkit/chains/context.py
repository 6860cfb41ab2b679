"""`GroundedContext`: what a generator gets, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ragkit.documents.provenance import StageResult
from ragkit.documents.spans import Span
from ragkit.quoting import quoted


class Ranked(NamedTuple):
    """A document as a stage left it: its id and the score it had then."""

    id: str
    score: float | None


@dataclass(frozen=True)
class StageTrace:
    """One stage of one question: seconds it took, number of documents that went in, and those that came out, best first.

    In a batch, a stage handles all questions at once; `seconds` is then the time of the whole batch. `usage` holds what the
    stage reports of its cost, such as calls, tokens and failures.
    """

    stage: str
    seconds: float
    entered: int
    results: tuple[Ranked, ...]
    usage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Number of documents that came out."""
        return len(self.results)


@dataclass(frozen=True)
class Citation:
    """A verbatim slice: `source_text[start:end] == text`, in characters of the decoded source.

    `n` is the number of the passage it stands in. For a document that ragkit did not split, `source` is its metadata's `source`,
    or its id, and offsets count from the start of its text (from its metadata's `start_index`, where LangChain's splitters
    left one); a document that somebody has rewritten is its own source, by its id. `line` and `page` are 1-based, None where
    the format has none.
    """

    n: int
    id: str
    source: str
    start: int
    end: int
    text: str
    line: int | None = None
    page: int | None = None


@dataclass(frozen=True)
class Sentence:
    """One unit of a passage, with the pruner's score if there was one."""

    citation: Citation
    kind: str
    score: float | None


@dataclass(frozen=True)
class GroundedPassage:
    """A numbered passage as the generator sees it: `text` is made of exactly the slices `spans` of its source."""

    n: int
    id: str
    source: str
    headings: tuple[str, ...]
    score: float | None
    label: str
    """Its source, as short as still tells the sources apart, and its heading path or title."""
    text: str
    spans: tuple[Span, ...]
    sentences: tuple[Sentence, ...]
    dropped: tuple[Sentence, ...] = ()
    """The units of the whole passage that are not shown: pruned, over the budget, or already shown by another passage."""
    rank: int = 1
    """Its place among the context's passages by relevance, 1 the best; `n` follows the order shown."""
    header: str = ""
    """The line above it in the prompt: the label without headings that the text shows; empty below one of the same section."""


@dataclass(frozen=True)
class Candidate:
    """A document that some stage returned, whether or not it is in the context: its whole passage, before any pruning.

    `start` is the offset of `text` in its source, `line` and `page` where it begins. `stages` is what the document itself tells
    of its way, which can be more than the trace: also what each retriever said that a hybrid one asked.
    """

    id: str
    source: str
    headings: tuple[str, ...]
    start: int
    text: str
    line: int | None = None
    page: int | None = None
    stages: tuple[StageResult, ...] = ()


def prompt_text(passages: Iterable[GroundedPassage]) -> str:
    """The passages as a prompt shows them: nothing in them reads as a number of a passage, or as a token of a chat template."""
    return "\n\n".join(f"{f'[{p.n}] {quoted(p.header)}'.rstrip()}\n{quoted(p.text)}" for p in passages)


@dataclass(frozen=True)
class GroundedContext:
    """Numbered passages, what they cost, and how they were found.

    `tokens_retrieved` counts the whole passages that retrieval and reranking chose; `tokens_kept` counts the kept text.
    """

    question: str
    passages: tuple[GroundedPassage, ...]
    tokens_retrieved: int
    tokens_kept: int
    trace: tuple[StageTrace, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    """What the passages were chosen from, each document once, in the order in which the stages came upon them."""

    @property
    def text(self) -> str:
        """Ready for a prompt: each passage under its number, source and headings. Empty if there are no passages."""
        return prompt_text(self.passages)

    @property
    def best_first(self) -> tuple[GroundedPassage, ...]:
        """The passages by relevance, whatever the order in which they are shown."""
        return tuple(sorted(self.passages, key=lambda passage: passage.rank))

    @property
    def citations(self) -> tuple[Citation, ...]:
        """One citation per kept sentence, in the order of the text."""
        return tuple(sentence.citation for passage in self.passages for sentence in passage.sentences)

    def cite(self, n: int) -> tuple[Citation, ...]:
        """What `[n]` in an answer refers to; empty for a number that was not given out."""
        return tuple(citation for citation in self.citations if citation.n == n)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-serialisable data."""
        return {**asdict(self), "text": self.text}

    def to_html(self) -> str:
        """One self-contained page that shows the way of the question, from candidates to prompt; see `ragkit.chains.explain`."""
        from ragkit.chains.explain import explain_page

        return explain_page(self)
