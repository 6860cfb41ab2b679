"""A conversation: every question is made to stand alone by what was said before, then searched for and answered on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from langchain_core.runnables import RunnableConfig

from ragkit.chains.answer import Answer, extractive_answer
from ragkit.chains.answerer import GroundedAnswerer, nothing_found
from ragkit.chains.condense import Condenser
from ragkit.chains.confidence import Calibration, calibration_for
from ragkit.chains.context import GroundedContext
from ragkit.chains.followups import carry_terms
from ragkit.chains.pipeline import Pipeline
from ragkit.chains.structured import freely
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError


@dataclass(frozen=True)
class Turn:
    """One question of a conversation and its answer."""

    question: str
    """As it was asked."""
    standalone: str
    """What was searched for and answered."""
    answer: Answer
    id: str = field(default_factory=lambda: uuid4().hex)


class Conversation:
    """Keeps the turns of one conversation, the oldest first. One question at a time: it is meant for one user.

    A question that fails, or whose stream is not read to the end, leaves no turn.
    """

    def __init__(self, source: GroundedAnswerer | Pipeline, *, condenser: Condenser | None = None) -> None:
        """A pipeline answers with sentences of the documents, verbatim; a `GroundedAnswerer` asks its model.

        `condenser` makes follow-up questions stand alone: by default it asks the answerer's model, with a timeout of 20
        seconds and 1000 tokens of history. Without one, and where it fails, words are carried over from earlier questions.
        """
        if not isinstance(source, GroundedAnswerer | Pipeline):
            raise InputError(f"source: pass a Pipeline or a GroundedAnswerer, not {type(source).__name__}")
        self._source = source
        self._pipeline = source.pipeline if isinstance(source, GroundedAnswerer) else source
        if condenser is None and isinstance(source, GroundedAnswerer):
            condenser = Condenser(freely(source.llm))
        self._condenser = condenser
        self.turns: list[Turn] = []

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()

    def ask(self, question: str, config: RunnableConfig | None = None) -> Turn:
        """The answer to the next question, as a turn."""
        standalone = self.standalone(question, config)
        if isinstance(self._source, Pipeline):
            answer = self._extracted(self._source.ground(standalone, config=config))
        else:
            answer = self._source.invoke(standalone, config)
        return self._remember(question, standalone, answer)

    async def aask(self, question: str, config: RunnableConfig | None = None) -> Turn:
        """Async form of `ask`."""
        standalone = await self.astandalone(question, config)
        if isinstance(self._source, Pipeline):
            answer = self._extracted(await self._source.aground(standalone, config=config))
        else:
            answer = await self._source.ainvoke(standalone, config)
        return self._remember(question, standalone, answer)

    def stream(self, question: str, config: RunnableConfig | None = None) -> Iterator[str | Turn]:
        """Pieces of the answer's text as they become certain, and at last the turn."""
        standalone = self.standalone(question, config)
        if isinstance(self._source, Pipeline):
            pieces = _whole(self._extracted(self._source.ground(standalone, config=config)))
        else:
            pieces = self._source.stream(standalone, config)
        for piece in pieces:
            yield self._remember(question, standalone, piece) if isinstance(piece, Answer) else piece

    async def astream(self, question: str, config: RunnableConfig | None = None) -> AsyncIterator[str | Turn]:
        """Async form of `stream`."""
        standalone = await self.astandalone(question, config)
        if isinstance(self._source, Pipeline):
            for piece in _whole(self._extracted(await self._source.aground(standalone, config=config))):
                yield self._remember(question, standalone, piece) if isinstance(piece, Answer) else piece
            return
        async for piece in self._source.astream(standalone, config):
            yield self._remember(question, standalone, piece) if isinstance(piece, Answer) else piece

    def _extracted(self, context: GroundedContext) -> Answer:
        assert isinstance(self._source, Pipeline)
        return extracted(context, calibration_for(self._source))

    def standalone(self, question: str, config: RunnableConfig | None = None) -> str:
        """What would be searched for if this were asked next. The first question of a conversation stays as it is."""
        if not self.turns:
            return question
        rewritten = None if self._condenser is None else self._condenser.rewrite(question, self._exchanges, config)
        return rewritten or self._carried(question)

    async def astandalone(self, question: str, config: RunnableConfig | None = None) -> str:
        """Async form of `standalone`."""
        if not self.turns:
            return question
        rewritten = None if self._condenser is None else await self._condenser.arewrite(question, self._exchanges, config)
        return rewritten or self._carried(question)

    def _carried(self, question: str) -> str:
        analyzer = Analyzer(self._pipeline.language or "english")
        return carry_terms([*(turn.question for turn in self.turns), question], analyzer)

    @property
    def _exchanges(self) -> list[tuple[str, str]]:
        return [(turn.question, turn.answer.text) for turn in self.turns]

    def _remember(self, question: str, standalone: str, answer: Answer) -> Turn:
        turn = Turn(question, standalone, answer)
        self.turns.append(turn)
        return turn


def extracted(context: GroundedContext, calibration: Calibration | None = None) -> Answer:
    """The extractive answer, in words also where there is none."""
    return extractive_answer(context, calibration=calibration) if context.passages else nothing_found(context)


def _whole(answer: Answer) -> Iterator[Any]:
    yield answer.text
    yield answer
