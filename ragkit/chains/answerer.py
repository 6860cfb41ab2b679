"""A pipeline and a chat model: streamed answers with citations that have been checked."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, Field, model_validator

from ragkit.chains.answer import Answer, extractive_answer, not_answered
from ragkit.chains.budget import Budget
from ragkit.chains.checked import AnswerStream
from ragkit.chains.confidence import Calibration, calibration_for
from ragkit.chains.context import GroundedContext
from ragkit.chains.pipeline import Pipeline
from ragkit.chains.support import ModelSupport
from ragkit.chains.window import window_budget
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import RagkitError
from ragkit.prompting import load_prompt
from ragkit.retrievers.batched import check_query
from ragkit.runs import Configs, Owner, arun_batch, no_more, run_batch

_log = logging.getLogger(__name__)

NOTHING_FOUND = "The documents hold nothing on this."
MODEL_FAILED = "the model failed, so this is extracted"
"""The problem of such an answer. Why is in its `usage`, as `failure`: an error may name an address, or a part of a key."""
_TOKENS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}


class GroundedAnswerer(RunnableSerializable[str, Answer]):
    """Question to `Answer`: the pipeline finds the context, the model writes from it, and what it cites is checked on the way.

    `stream` gives pieces of text as they become certain, and at the end the `Answer`; all other ways give the same answer.
    Without any context, and where the evidence is too weak, the model is not asked, and the answer abstains.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    pipeline: Pipeline
    """Where the context comes from."""
    llm: Runnable[Any, Any]
    """Any LangChain chat model, or another runnable from a prompt to a message or a string."""
    prompt: str | Path | ChatPromptTemplate = "grounded_answer"
    """A shipped prompt by its name, a prompt file by its path, or a template; its variables are context and question."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Token budget of the context; None is the pipeline's, and if that has none either, what the model's window leaves, if it is
    known: see `ragkit.chains.window`."""
    on_failure: Literal["extract", "raise"] = "extract"
    """A model that fails or says nothing: answer with the best sentences, and say so in `problems`, why in `usage`, or raise its
    error. While streaming, it is raised if something has been said already."""
    calibration: Calibration | None = None
    """Says how likely a context answers its question; None is the shipped one for the pipeline that it was made with."""
    abstain_below: float | None = Field(default=None, ge=0, le=1)
    """Abstain if that is less likely than this; None is the calibration's own, 0 never abstains for it."""

    support: Literal["lexical", "model"] | ModelSupport = "lexical"
    """How statements are checked: by the words that they share with the sentences they rest on, or besides by ragkit's Provence
    model, or another one. It is loaded for the first answer; if it fails, words decide, and `usage` has a `warning`."""

    @model_validator(mode="after")
    def _prompt_fits(self) -> Self:
        used = set(self._template().input_variables)
        if used != {"context", "question"}:
            raise ValueError(f"prompt: its variables must be context and question, not {', '.join(sorted(used)) or 'none'}")
        return self

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """The answer to one question."""
        [answer] = self.batch([input], config, **kwargs)
        return cast(Answer, answer)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """Async form of `invoke`."""
        [answer] = await self.abatch([input], config, **kwargs)
        return cast(Answer, answer)

    def batch(self, inputs: list[str], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any) -> list[Any]:
        """Many questions: each stage of the pipeline in one pass, then the model's own batch."""
        no_more(kwargs, "set it in the constructor")

        def work(questions: list[str], configs: list[RunnableConfig]) -> list[Answer | Exception]:
            contexts = self.pipeline.ground_batch(questions, max_tokens=self._budget(), config=configs, return_exceptions=True)
            settled = self._settled_all(contexts)
            asking = [at for at, answer in enumerate(settled) if answer is None]
            prompts = [self._prompt(contexts[at]) for at in asking]
            replies: Sequence[Any]
            try:
                replies = self.llm.batch(prompts, [configs[at] for at in asking], return_exceptions=True) if asking else []
            except Exception as error:  # a batch of a model's own may fail as a whole
                replies = [error] * len(asking)
            return self._answers(contexts, settled, replies)

        return run_batch(self._owner, inputs, config, work, check=check_query, return_exceptions=return_exceptions)

    async def abatch(
        self, inputs: list[str], config: Configs = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Async form of `batch`."""
        no_more(kwargs, "set it in the constructor")

        async def work(questions: list[str], configs: list[RunnableConfig]) -> list[Answer | Exception]:
            contexts = await self.pipeline.aground_batch(
                questions, max_tokens=self._budget(), config=configs, return_exceptions=True
            )
            settled = await asyncio.to_thread(self._settled_all, contexts)
            asking = [at for at, answer in enumerate(settled) if answer is None]
            prompts = [self._prompt(contexts[at]) for at in asking]
            replies: Sequence[Any]
            try:
                replies = await self.llm.abatch(prompts, [configs[at] for at in asking], return_exceptions=True) if asking else []
            except Exception as error:
                replies = [error] * len(asking)
            return await asyncio.to_thread(self._answers, contexts, settled, replies)

        return await arun_batch(self._owner, inputs, config, work, check=check_query, return_exceptions=return_exceptions)

    def stream(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Pieces of the answer's text (`str`) as they become certain, and at last the `Answer`."""
        no_more(kwargs, "set it in the constructor")
        return self._transform_stream_with_config(iter([input]), self._streamed, config)  # type: ignore[arg-type]

    def astream(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Async form of `stream`."""
        no_more(kwargs, "set it in the constructor")

        async def inputs() -> AsyncIterator[str]:
            yield input

        return self._atransform_stream_with_config(inputs(), self._astreamed, config)  # type: ignore[arg-type]

    def _streamed(self, inputs: Iterator[str], config: RunnableConfig) -> Iterator[Any]:
        context = self.pipeline.ground(next(inputs), max_tokens=self._budget(), config=config)
        if settled := self._settled(context):
            yield from _whole(settled)
            return
        said = Said(self._new(context))
        try:
            for chunk in self.llm.stream(self._prompt(context), config):
                yield from said.take(chunk)
            yield from said.end()
        except Exception as error:
            if not said.stream.empty:
                raise
            yield from _whole(self._instead(context, error))
        else:
            yield self._sure(said.answer())

    async def _astreamed(self, inputs: AsyncIterator[str], config: RunnableConfig) -> AsyncIterator[Any]:
        context = await self.pipeline.aground(await anext(inputs), max_tokens=self._budget(), config=config)
        if settled := await asyncio.to_thread(self._settled, context):
            for piece in _whole(settled):
                yield piece
            return
        said = Said(self._new(context))
        try:
            async for chunk in self.llm.astream(self._prompt(context), config):
                for piece in said.take(chunk):
                    yield piece
            for piece in said.end():
                yield piece
        except Exception as error:
            if not said.stream.empty:
                raise
            for piece in _whole(self._instead(context, error)):
                yield piece
        else:
            yield await asyncio.to_thread(lambda: self._sure(said.answer()))

    def _settled_all(self, contexts: Sequence[Any]) -> list[Answer | Exception | None]:
        return [context if isinstance(context, Exception) else self._settled(context) for context in contexts]

    def _settled(self, context: GroundedContext) -> Answer | None:
        """The answer where the model need not be asked."""
        if not context.passages:
            return self._sure(nothing_found(context))
        calibration = self._calibration()
        if calibration is None:
            return None
        confidence = calibration(context)
        return not_answered(context, confidence) if calibration.too_weak(confidence, self.abstain_below) else None

    def _sure(self, answer: Answer) -> Answer:
        """With its confidence."""
        calibration = self._calibration()
        return answer if calibration is None else replace(answer, confidence=calibration(answer.context))

    def _calibration(self) -> Calibration | None:
        return self.calibration or calibration_for(self.pipeline)

    def _answers(
        self, contexts: Sequence[Any], settled: Sequence[Answer | Exception | None], replies: Sequence[Any]
    ) -> list[Answer | Exception]:
        said = iter(replies)
        return [
            self._answer(context, next(said)) if answer is None else answer
            for context, answer in zip(contexts, settled, strict=True)
        ]

    def _answer(self, context: GroundedContext, reply: Any) -> Answer | Exception:
        try:
            if isinstance(reply, Exception):
                raise reply
            said = Said(self._new(context))
            for _ in (*said.take(reply), *said.end()):
                pass
            return self._sure(said.answer())
        except Exception as error:
            try:
                return self._instead(context, error)
            except Exception as failure:
                return failure

    def _instead(self, context: GroundedContext, error: Exception) -> Answer:
        """The answer where the model gave none."""
        if self.on_failure == "raise":
            raise error
        return self._sure(extracted_instead(context, error))

    def _new(self, context: GroundedContext) -> AnswerStream:
        model = ModelSupport() if self.support == "model" else self.support
        analyzer = Analyzer(self.pipeline.language or "english")
        return AnswerStream(context, analyzer, model if isinstance(model, ModelSupport) else None)

    def _budget(self) -> int | Budget | None:
        """What the context may cost; None leaves it to the pipeline."""
        if self.max_tokens is not None or self.pipeline.max_tokens is not None:
            return self.max_tokens
        template = self._template()
        return window_budget(self.llm, lambda question: template.format_messages(context="", question=question))

    def _prompt(self, context: GroundedContext) -> PromptValue:
        return self._template().invoke({"context": context.text, "question": context.question})

    def _template(self) -> ChatPromptTemplate:
        return self.prompt if isinstance(self.prompt, ChatPromptTemplate) else load_prompt(self.prompt)

    @property
    def _owner(self) -> Owner:
        return Owner("chain", self.get_name())


class Said:
    """What a model has said so far, and what it cost."""

    def __init__(self, stream: AnswerStream) -> None:
        self.stream = stream
        self._usage: Counter[str] = Counter()

    def take(self, chunk: Any) -> Iterator[str]:
        """A message, a chunk of one, or a string: the text that is certain now."""
        if not isinstance(chunk, BaseMessage | str):
            raise RagkitError(f"llm: the model answered with {type(chunk).__name__} in place of a message")
        for name, tokens in (getattr(chunk, "usage_metadata", None) or {}).items():
            if name in _TOKENS:
                self._usage[_TOKENS[name]] += tokens
        if piece := self.stream.feed(chunk if isinstance(chunk, str) else str(chunk.text)):
            yield piece

    def end(self) -> Iterator[str]:
        """The last of the text; a model that has said nothing has failed."""
        if piece := self.stream.finish():
            yield piece
        if self.stream.empty:
            raise RagkitError("llm: the model said nothing")

    def answer(self) -> Answer:
        """All of it, with its claims and what it cost."""
        tokens = {name: self._usage.get(name) for name in _TOKENS.values()}
        return self.stream.answer({"calls": 1, **tokens})


def extracted_instead(context: GroundedContext, error: Exception) -> Answer:
    """The best sentences, where a model was asked and failed."""
    failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    _log.warning("%r: %s: %s", context.question, MODEL_FAILED, failure)
    usage = {"calls": 1, "failures": 1, "failure": failure}
    return replace(extractive_answer(context), problems=(MODEL_FAILED,), usage=usage)


def nothing_found(context: GroundedContext) -> Answer:
    """The answer from an empty context."""
    return Answer(NOTHING_FOUND, (), True, context, usage={"calls": 0})


def _whole(answer: Answer) -> Iterator[Any]:
    yield answer.text
    yield answer
