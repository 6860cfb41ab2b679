"""A conversation that searches the documents only for what needs them."""

from __future__ import annotations

import asyncio
import logging
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

_log = logging.getLogger(__name__)

STAGE = "need for retrieval"
"""Name under which a decision stands in the trace: one against a search, or one that a model was asked for."""
NOT_BY_ITSELF = "the model did not answer by itself, so the documents were searched"
"""The problem of an answer after a model that failed before its first word."""
_SAYS = {"greeting": "Hello. What would you like to know?", "thanks": "You are welcome.", "goodbye": "Goodbye."}
_TURNS = 6
"""The latest turns that a model is shown when it answers by itself."""


class AdaptiveConversation(Conversation):
    """A `Conversation` in which `needs` decides what is searched for: the first of them that says so saves the search.

    Greetings, thanks and farewells get a set answer; "repeat that" gets the last answer again, and "what did I ask" the questions
    so far. What the model says it knows, it answers itself, if it has a `GroundedAnswerer`: such an answer cites nothing, all it
    states is `unsupported`, and `problems` says where it is from; if the model fails before its first word, the documents are
    searched after all, and `problems` and the trace say so. The decision falls on what was said, before it is made to stand
    alone, and stands in the trace, also before a search if a model was asked for it.
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
        decision = self._decide(question, config)
        for piece in self._unsearched(question, decision, config):
            last = piece
        return last if isinstance(last, Turn) else self._told(super().ask(question, config), decision)

    async def aask(self, question: str, config: RunnableConfig | None = None) -> Turn:
        """See `Conversation.aask`."""
        last: str | Turn | None = None
        decision = await self._adecide(question, config)
        async for piece in self._aunsearched(question, decision, config):
            last = piece
        return last if isinstance(last, Turn) else self._told(await super().aask(question, config), decision)

    def stream(self, question: str, config: RunnableConfig | None = None) -> Iterator[str | Turn]:
        """See `Conversation.stream`."""
        last: str | Turn | None = None
        decision = self._decide(question, config)
        for piece in self._unsearched(question, decision, config):
            last = piece
            yield piece
        if last is None:
            for piece in super().stream(question, config):
                yield self._told(piece, decision) if isinstance(piece, Turn) else piece

    async def astream(self, question: str, config: RunnableConfig | None = None) -> AsyncIterator[str | Turn]:
        """See `Conversation.astream`."""
        last: str | Turn | None = None
        decision = await self._adecide(question, config)
        async for piece in self._aunsearched(question, decision, config):
            last = piece
            yield piece
        if last is None:
            async for piece in super().astream(question, config):
                yield self._told(piece, decision) if isinstance(piece, Turn) else piece

    def _decide(self, question: str, config: RunnableConfig | None) -> _Decision:
        decision = _Decision(question)
        for one in self._needs:
            started = time.perf_counter()
            if decision.take(one.decide(question, config), started):
                break
        return decision

    async def _adecide(self, question: str, config: RunnableConfig | None) -> _Decision:
        decision = _Decision(question)
        for one in self._needs:
            started = time.perf_counter()
            if decision.take(await one.adecide(question, config), started):
                break
        return decision

    def _unsearched(self, question: str, decision: _Decision, config: RunnableConfig | None) -> Iterator[str | Turn]:
        """The answer without a search, as it is streamed; nothing at all if there has to be one."""
        direct = self._direct(decision)
        if direct is None or decision.need.reason != "known":
            yield from self._set_answer(question, decision.need, direct)
            return
        try:
            for chunk in self._model.stream(self._messages(question), config):
                if piece := direct.take(chunk):
                    yield piece
            yield direct.end()
        except Exception as error:
            if direct.said:
                raise
            decision.fails(error)
        else:
            yield self._remember(question, question, direct.answer())

    async def _aunsearched(self, question: str, decision: _Decision, config: RunnableConfig | None) -> AsyncIterator[str | Turn]:
        direct = self._direct(decision)
        if direct is None or decision.need.reason != "known":
            for said in self._set_answer(question, decision.need, direct):
                yield said
            return
        try:
            async for chunk in self._model.astream(self._messages(question), config):
                if piece := direct.take(chunk):
                    yield piece
            yield direct.end()
        except Exception as error:
            if direct.said:
                raise
            decision.fails(error)
        else:
            yield self._remember(question, question, await asyncio.to_thread(direct.answer))

    def _told(self, turn: Turn, decision: _Decision) -> Turn:
        """The turn of a search, with what it cost to find that it is needed."""
        context = replace(turn.answer.context, trace=(*decision.trace(searched=True), *turn.answer.context.trace))
        problems = turn.answer.problems if decision.failure is None else (NOT_BY_ITSELF, *turn.answer.problems)
        self.turns[-1] = replace(turn, answer=replace(turn.answer, context=context, problems=problems))
        return self.turns[-1]

    @property
    def _model(self) -> Any:
        assert isinstance(self._source, GroundedAnswerer)
        return self._source.llm

    def _direct(self, decision: _Decision) -> _Direct | None:
        """What an answer without a search is made in; None if there has to be one."""
        need = decision.need
        if need.retrieve:
            return None
        if need.reason in ("question", "repeat", "asked") and not self.turns:
            return None
        if need.reason == "known" and not isinstance(self._source, GroundedAnswerer):
            return None
        return _Direct(decision, Analyzer(self._pipeline.language or "english"))

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


class _Decision:
    """Whether a question is searched for, as far as it has been found out, and what that cost."""

    def __init__(self, question: str) -> None:
        self.question, self.need = question, Need(True)
        self.failure: str | None = None
        """Why the model did not answer by itself, if it was to."""
        self._asked: list[tuple[Need, float]] = []

    def take(self, need: Need, started: float) -> bool:
        """One more opinion; whether it settles the matter."""
        self._asked.append((need, time.perf_counter() - started))
        if not need.retrieve:
            self.need = need
        return not need.retrieve

    def fails(self, error: Exception) -> None:
        """The model has not answered by itself."""
        self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        _log.warning("%r: %s: %s", self.question, NOT_BY_ITSELF, self.failure)

    def trace(self, *, searched: bool) -> tuple[StageTrace, ...]:
        """A stage for each opinion that a model was asked for, and for the one that saved the search."""
        told = [(need, seconds) for need, seconds in self._asked if need.usage or not (need.retrieve or searched)]
        return tuple(StageTrace(STAGE, seconds, 0, (), self._usage(need)) for need, seconds in told)

    def _usage(self, need: Need) -> dict[str, Any]:
        usage = {"reason": need.reason, "p_known": need.p_known, **need.usage}
        if need is self.need and self.failure is not None:
            usage |= {"calls": usage.get("calls", 0) + 1, "failures": 1, "failure": self.failure}
        return usage


class _Direct:
    """An answer without documents as it arrives: no marker can refer to anything, so none stays."""

    def __init__(self, decision: _Decision, analyzer: Analyzer) -> None:
        self.context = GroundedContext(decision.question, (), 0, 0, decision.trace(searched=False))
        self.said = False
        self._need = decision.need
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
        """The last of the text; a model that has said nothing has failed."""
        last = self._told(self._stream.finish())
        if not self.said:
            raise RagkitError("llm: the model said nothing")
        return last

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
