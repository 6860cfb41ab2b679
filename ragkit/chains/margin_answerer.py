"""Answers from long inputs: read with notes in the margin, then written by a model and checked like any other answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from ragkit.chains.answer import Answer
from ragkit.chains.answerer import Said, extracted_instead, nothing_found
from ragkit.chains.checked import AnswerStream
from ragkit.chains.margin_notes import MarginNote, NotedContext
from ragkit.chains.margins import MarginReader
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError
from ragkit.retrievers.rewriting import template_of


class MarginAnswerer:
    """Question and documents of any length to an `Answer`, whose citations are sentences of the documents.

    `stream` gives a `MarginNote` for each segment as it is read, then pieces of the answer's text, and at last the `Answer`, in
    whose context the notes are. A model that fails before its first word leaves the best sentences, with the reason in
    `usage`; one that fails later raises. `usage` is that of writing; what reading cost is in the context's trace.
    """

    def __init__(
        self, llm: Runnable[Any, Any], reader: MarginReader | None = None, *, prompt: str | Path = "grounded_answer"
    ) -> None:
        """`reader` is by default a `MarginReader` with the same model. Raises `InputError` for a model or prompt that is none."""
        if not isinstance(llm, Runnable):
            raise InputError(f"llm: a LangChain chat model is needed, not {type(llm).__name__}")
        self._llm, self._reader = llm, reader or MarginReader(llm)
        self._template = template_of(prompt, frozenset({"context", "question"}))

    def answer(self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None) -> Answer:
        """The answer."""
        *_, last = self.stream(question, documents, config)
        assert isinstance(last, Answer)
        return last

    async def aanswer(self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None) -> Answer:
        """Async form of `answer`."""
        last: Any = None
        async for piece in self.astream(question, documents, config):
            last = piece
        assert isinstance(last, Answer)
        return last

    def stream(
        self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None
    ) -> Iterator[MarginNote | str | Answer]:
        """Notes as they come, pieces of text as they become certain, and at last the answer."""
        context: Any = None
        for piece in self._reader.read(question, documents, config):
            if isinstance(piece, MarginNote):
                yield piece
            else:
                context = piece
        if not context.passages:
            yield from _whole(nothing_found(context))
            return
        said = self._said(context)
        try:
            for chunk in self._llm.stream(self._prompt(context), config):
                yield from said.take(chunk)
            yield from said.end()
        except Exception as error:
            if not said.stream.empty:
                raise
            yield from _whole(extracted_instead(context, error))
        else:
            yield said.answer()

    async def astream(
        self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None
    ) -> AsyncIterator[MarginNote | str | Answer]:
        """Async form of `stream`."""
        context: Any = None
        async with aclosing(self._reader.aread(question, documents, config)) as pieces:
            async for piece in pieces:
                if isinstance(piece, MarginNote):
                    yield piece
                else:
                    context = piece
        if not context.passages:
            for last in _whole(nothing_found(context)):
                yield last
            return
        said = self._said(context)
        try:
            async for chunk in self._llm.astream(self._prompt(context), config):
                for text in said.take(chunk):
                    yield text
            for text in said.end():
                yield text
        except Exception as error:
            if not said.stream.empty:
                raise
            for last in _whole(extracted_instead(context, error)):
                yield last
        else:
            yield await asyncio.to_thread(said.answer)

    def _said(self, context: NotedContext) -> Said:
        return Said(AnswerStream(context, Analyzer(self._reader.language)))

    def _prompt(self, context: NotedContext) -> PromptValue:
        return self._template.invoke({"context": context.text, "question": context.question})


def _whole(answer: Answer) -> Iterator[str | Answer]:
    yield answer.text
    yield answer
