"""A conversation that searches the documents only for what needs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from ragkit.chains.answer import Answer
from ragkit.chains.answerer import GroundedAnswerer
from ragkit.chains.checked import AnswerStream
from ragkit.chains.condense import Condenser
from ragkit.chains.context import GroundedContext, StageTrace
from ragkit.chains.conversation import Conversation, Turn
from ragkit.chains.needs import DecidesNeed, Need, SmallTalk
from ragkit.chains.pipeline import Pipeline
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError, RagkitError

STAGE = "need for retrieval"
"""Name under which a decision against a search stands in the trace."""
_SAYS = {"greeting": "Hello. What would you like to know?", "thanks": "You are welcome.", "goodbye": "Goodbye."}
_TURNS = 6
"""The latest turns that a model is shown when it answers by itself."""


class AdaptiveConversation(Conversation):
    """A `Conversation` in which `needs` decides what is searched for: the first of them that says so saves the search.

    Greetings, thanks and farewells get a set answer; "repeat that" gets the last answer again, and "what did I ask" the questions
    so far. What the model says it knows, it answers itself, if it has a `GroundedAnswerer`: such an answer cites nothing, all it
    states is `unsupported`, and `problems` says where it is from; if the model fails before its first word, the documents are
    searched after all. The decision falls on what was said, before it is made to stand alone, and stands in the trace.
    """

    def __init__(
        self,
        source: GroundedAnswerer | Pipeline,
        *,
        needs: Sequence[DecidesNeed] = (SmallTalk(),),
        condenser: Condenser | None = None,
    ) -> None:
        """`needs` are asked in order, `SmallTalk` first to save requests; for the rest see `Conversation`."""
        super().__init__(source, condenser=condenser)
        if isinstance(needs, str) or not all(hasattr(one, "decide") and hasattr(one, "adecide") for one in needs):
            raise InputError("needs: pass a list of what decides, such as [SmallTalk(), Known(model)]")
        self._needs = tuple(needs)

    def ask(self, question: str, config: RunnableConfig | None = None) -> Turn:
        """See `Conversation.ask`."""
        last: str | Turn | None = None
        for piece in self._unsearched(question, config):
            last = piece
        return last if isinstance(last, Turn) else super().ask(question, config)

    async def aask(self, question: str, config: RunnableConfig | None = None) -> Turn:
        """See `Conversation.aask`."""
        last: str | Turn | None = None
        async for piece in self._aunsearched(question, config):
            last = piece
        return last if isinstance(last, Turn) else await super().aask(question, config)

    def stream(self, question: str, config: RunnableConfig | None = None) -> Iterator[str | Turn]:
        """See `Conversation.stream`."""
        last: str | Turn | None = None
        for piece in self._unsearched(question, config):
            last = piece
            yield piece
        if last is None:
            yield from super().stream(question, config)

    async def astream(self, question: str, config: RunnableConfig | None = None) -> AsyncIterator[str | Turn]:
        """See `Conversation.astream`."""
        last: str | Turn | None = None
        async for piece in self._aunsearched(question, config):
            last = piece
            yield piece
        if last is None:
            async for piece in super().astream(question, config):
                yield piece

    def _unsearched(self, question: str, config: RunnableConfig | None) -> Iterator[str | Turn]:
        """The answer without a search, as it is streamed; nothing at all if there has to be one."""
        started = time.perf_counter()
        need = next((need for one in self._needs if not (need := one.decide(question, config)).retrieve), Need(True))
        direct = self._direct(question, need, time.perf_counter() - started)
        if direct is None or need.reason != "known":
            yield from self._set_answer(question, need, direct)
            return
        try:
            for chunk in self._model.stream(self._messages(question), config):
                if piece := direct.take(chunk):
                    yield piece
            if piece := direct.end():
                yield piece
        except Exception:
            if direct.said:
                raise
        if direct.said:
            yield self._remember(question, question, direct.answer())

    async def _aunsearched(self, question: str, config: RunnableConfig | None) -> AsyncIterator[str | Turn]:
        started = time.perf_counter()
        need = Need(True)
        for one in self._needs:
            if not (need := await one.adecide(question, config)).retrieve:
                break
        direct = self._direct(question, need, time.perf_counter() - started)
        if direct is None or need.reason != "known":
            for said in self._set_answer(question, need, direct):
                yield said
            return
        try:
            async for chunk in self._model.astream(self._messages(question), config):
                if piece := direct.take(chunk):
                    yield piece
            if piece := direct.end():
                yield piece
        except Exception:
            if direct.said:
                raise
        if direct.said:
            yield self._remember(question, question, await asyncio.to_thread(direct.answer))

    @property
    def _model(self) -> Any:
        assert isinstance(self._source, GroundedAnswerer)
        return self._source.llm

    def _direct(self, question: str, need: Need, seconds: float) -> _Direct | None:
        """What an answer without a search is made in; None if there has to be one."""
        if need.retrieve:
            return None
        if need.reason in ("question", "repeat", "asked") and not self.turns:
            return None
        if need.reason == "known" and not isinstance(self._source, GroundedAnswerer):
            return None
        return _Direct(question, need, seconds, Analyzer(self._pipeline.language or "english"))

    def _set_answer(self, question: str, need: Need, direct: _Direct | None) -> Iterator[str | Turn]:
        if direct is None:
            return
        if need.reason == "repeat":
            answer = self.turns[-1].answer
        elif need.reason == "asked":
            lines = [f"{n}. {' '.join(turn.question.split())}" for n, turn in enumerate(self.turns, 1)]
            answer = Answer("\n".join(["You asked:", *lines]), (), False, direct.context, usage={"calls": 0})
        else:
            answer = Answer(_SAYS.get(need.reason, _SAYS["greeting"]), (), False, direct.context, usage={"calls": 0})
        yield answer.text
        yield self._remember(question, question, answer)

    def _messages(self, question: str) -> list[BaseMessage]:
        turns = [(HumanMessage(turn.question), AIMessage(turn.answer.text)) for turn in self.turns[-_TURNS:]]
        return [*(message for pair in turns for message in pair), HumanMessage(question)]


class _Direct:
    """An answer without documents as it arrives: no marker can refer to anything, so none stays."""

    def __init__(self, question: str, need: Need, seconds: float, analyzer: Analyzer) -> None:
        usage = {"reason": need.reason, "p_known": need.p_known, **need.usage}
        self.context = GroundedContext(question, (), 0, 0, (StageTrace(STAGE, seconds, 0, (), usage),))
        self.said = False
        self._need = need
        self._stream = AnswerStream(self.context, analyzer)
        self._usage: dict[str, int | None] = {"calls": 1, "prompt_tokens": None, "completion_tokens": None}

    def take(self, chunk: Any) -> str:
        """A message, a chunk of one, or a string: the text that is certain now."""
        if not isinstance(chunk, BaseMessage | str):
            raise RagkitError(f"llm: the model answered with {type(chunk).__name__} in place of a message")
        for name, key in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
            tokens = (getattr(chunk, "usage_metadata", None) or {}).get(name)
            if tokens is not None:
                self._usage[key] = (self._usage[key] or 0) + tokens
        return self._told(self._stream.feed(chunk if isinstance(chunk, str) else str(chunk.text)))

    def end(self) -> str:
        """The last of the text."""
        return self._told(self._stream.finish())

    def answer(self) -> Answer:
        """The whole answer."""
        p_known = self._need.p_known
        sure = "" if p_known is None else f" (it is sure of that at {p_known:.0%})"
        problem = f"answered from what the model knows, without the documents{sure}"
        answer = self._stream.answer(self._usage, (problem,))
        return replace(answer, abstained=False, unsupported=answer.claims)

    def _told(self, text: str) -> str:
        self.said = self.said or bool(text)
        return text
