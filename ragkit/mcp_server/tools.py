"""What the tools do, without the protocol: a checked request to a reply of bounded size, through one pipeline."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.documents import Document

from ragkit.chains.answer import Answer, extractive_answer, pointed_to
from ragkit.chains.answerer import GroundedAnswerer
from ragkit.chains.confidence import calibration_for
from ragkit.chains.context import Citation, GroundedContext
from ragkit.chains.pipeline import Pipeline
from ragkit.corpus.filters import Filter, both, compile_filter
from ragkit.documents.provenance import provenance, score_of
from ragkit.errors import InputError
from ragkit.mcp_server.inert import Allowance, inert, inert_label
from ragkit.mcp_server.opening import Opened
from ragkit.mcp_server.replies import Answered, Cited, Found, Near, Passage, Read
from ragkit.mcp_server.requests import AskRequest, ReadRequest, SearchRequest
from ragkit.pruners.base import Pruner

_log = logging.getLogger(__name__)
_MARKER = re.compile(r"(\[\d{1,3}\](?!\())")
_OF_THE_QUESTION = ("query", "pattern")
"""What an error begins with that says nothing of passages."""
_HEADINGS, _PROBLEMS = 8, 10


class Tools:
    """`search`, `ask` and `read_source` over an index. Safe to call from several threads."""

    def __init__(self, opened: Opened, characters: int, llm: Any = None) -> None:
        """`characters` of documents are in a reply at most; `llm` is a chat model that words the answers, None quotes them."""
        self._opened, self._characters, self._llm = opened, characters, llm

    def search(self, request: SearchRequest) -> Found:
        """The passages that the pipeline ranks first, whole."""
        pipeline = self._narrowed(request.k, request.filter)
        whole = [stage for stage in pipeline.stages if not isinstance(stage, Pruner)]
        with self._discreet():
            documents = pipeline.model_copy(update={"stages": whole}).invoke(request.question)
        allowance, passages = Allowance(self._characters), list[Passage]()
        for document in documents:
            if not allowance.left:
                break
            passages.append(_passage(document, allowance))
        return Found(question=request.question, passages=passages, omitted=len(documents) - len(passages))

    def ask(self, request: AskRequest) -> Answered:
        """The answer of `ragkit ask`, or of the chat model, with citations that have been checked."""
        pipeline = self._narrowed(request.k, request.filter)
        with self._discreet():
            if self._llm is None:
                answer = extractive_answer(pipeline.ground(request.question), calibration=calibration_for(pipeline))
            else:
                answer = GroundedAnswerer(pipeline=pipeline, llm=self._llm).invoke(request.question)
        allowance = Allowance(self._characters)
        citations = [cited for citation in answer.citations if (cited := _cited(citation, allowance)).text]
        wording = _wording(answer, citations)
        return Answered(
            question=request.question,
            answer=wording[: self._characters],
            abstained=answer.abstained,
            confidence=answer.confidence,
            truncated=len(wording) > self._characters,
            citations=citations,
            omitted=len(answer.citations) - len(citations),
            nearest=_nearest(answer.context) if answer.abstained else [],
            problems=[*map(inert_label, answer.problems[:_PROBLEMS])],
        )

    @property
    def reads(self) -> bool:
        """Whether there is a `read_source`: not where the pipeline hides passages, which may stand beside those it shows."""
        return not self._opened.restricted

    def read_source(self, request: ReadRequest) -> Read:
        """A passage and what stands around it in its source. Raises `InputError` for an id that is none."""
        if not self.reads:
            raise InputError("read_source: this index shows some of its passages only; use search")
        found = self._opened.passage(request.id)
        if found is None:
            raise InputError("id: there is no such passage now; use an id that search or ask has just given")
        record, text = provenance(found.document), found.document.page_content
        start, end = record.start, record.start + len(text)
        if found.source_text is not None:
            start, end = max(0, start - request.around), min(len(found.source_text), end + request.around)
            text = found.source_text[start:end]
        shown, truncated = Allowance(self._characters).take(text)
        source = inert_label(record.source or str(found.document.id))
        return Read(id=request.id, source=source, start=start, end=end, text=shown, truncated=truncated)

    def _narrowed(self, k: int | None, filter: Filter | None) -> Pipeline:
        """The pipeline for one call; its own filter stays. Raises `InputError` for a filter that is none."""
        compile_filter(filter or {})
        pipeline = self._opened.pipeline()
        return pipeline.model_copy(update={"k": k or pipeline.k, "filter": both(pipeline.filter, filter)})

    @contextmanager
    def _discreet(self) -> Iterator[None]:
        """An index that hides passages does not say which metadata fields they have either."""
        try:
            yield
        except InputError as error:
            if self.reads or str(error).startswith(_OF_THE_QUESTION):
                raise
            _log.warning("answered in general terms: %s", error)
            raise InputError("filter: cannot be applied to the passages of this index; leave it out, or change it") from None


def _passage(document: Document, allowance: Allowance) -> Passage:
    record, text = provenance(document), document.page_content
    shown, truncated = allowance.take(text)
    return Passage(
        id=str(document.id),
        source=inert_label(record.source or str(document.metadata.get("source") or document.id)),
        start=record.start,
        end=record.start + len(text),
        page=record.page(0),
        headings=[*map(inert_label, record.headings[-_HEADINGS:])],
        first_line=record.line(0, text),
        last_line=record.line(max(len(text) - 1, 0), text),
        score=score_of(document),
        text=shown,
        truncated=truncated,
    )


def _cited(citation: Citation, allowance: Allowance) -> Cited:
    text, truncated = allowance.take(citation.text)
    return Cited(
        n=citation.n,
        id=citation.id,
        source=inert_label(citation.source),
        start=citation.start,
        end=citation.end,
        page=citation.page,
        line=citation.line,
        text=text,
        truncated=truncated,
    )


def _nearest(context: GroundedContext) -> list[Near]:
    return [
        Near(
            n=n,
            id=near.id,
            source=inert_label(near.source),
            start=near.start,
            end=near.start + len(near.text),
            page=near.page,
        )
        for n, near in pointed_to(context)
    ]


def _wording(answer: Answer, citations: list[Cited]) -> str:
    """The answer with its own markers, and nothing else that reads as one."""
    if citations and not answer.claims and not answer.abstained:
        return " ".join(f"{citation.text} [{citation.n}]" for citation in citations)
    return "".join(piece if _MARKER.fullmatch(piece) else inert(piece) for piece in _MARKER.split(answer.text))
