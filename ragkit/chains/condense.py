"""A follow-up question and what was said before it, to a question that stands alone: asked of a language model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.llms.base import Completion
from ragkit.quoting import plain
from ragkit.retrievers.rewriting import model_of, questions_of, template_of

_log = logging.getLogger(__name__)

Exchange = tuple[str, str]
"""A question, and what was answered."""


class Condenser:
    """Asks a model to rewrite follow-ups. Raises `InputError` for a prompt or a model that cannot be used."""

    def __init__(
        self, llm: Any, prompt: str | Path = "condense", *, history_tokens: int = 1000, timeout: float | None = 20.0
    ) -> None:
        """`prompt` has the variables history and question; `timeout` is in seconds."""
        self._llm, self._template = model_of(llm), template_of(prompt, frozenset({"history", "question"}))
        self._history_tokens, self._timeout = history_tokens, timeout

    def rewrite(self, question: str, exchanges: Iterable[Exchange], config: RunnableConfig | None = None) -> str | None:
        """The question as the model rewrote it; None where it failed or gave nothing that is a question."""
        try:
            [answer] = self._llm.generate([self._prompt(question, exchanges)], [config or {}], self._until())
        except Exception as error:
            answer = error
        return self._read(question, answer)

    async def arewrite(self, question: str, exchanges: Iterable[Exchange], config: RunnableConfig | None = None) -> str | None:
        """Async form of `rewrite`."""
        try:
            [answer] = await self._llm.agenerate([self._prompt(question, exchanges)], [config or {}], self._until())
        except Exception as error:
            answer = error
        return self._read(question, answer)

    def _prompt(self, question: str, exchanges: Iterable[Exchange]) -> list[BaseMessage]:
        history = history_text(exchanges, self._history_tokens)
        return self._template.format_messages(history=history, question=plain(question))

    def _read(self, question: str, answer: Completion | Exception) -> str | None:
        if isinstance(answer, Exception):
            _log.warning("a follow-up is not rewritten: %s: %s", type(answer).__name__, " ".join(str(answer).split())[:200])
            return None
        if " ".join(answer.text.split()).casefold() == " ".join(question.split()).casefold():
            return question
        return next(iter(questions_of(question, answer.text)), None)

    def _until(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout


def history_text(exchanges: Iterable[Exchange], max_tokens: int) -> str:
    """The latest exchanges, oldest first, inert and a line for each side, in no more than `max_tokens` tokens (estimated).

    Of the exchange that does not fit any more, the question alone is taken if that fits.
    """
    tokenizer, left, parts = RegexTokenizer(), max_tokens, list[str]()
    for question, answer in reversed(list(exchanges)):
        asked = f"User: {plain(question)}"
        whole = f"{asked}\nAssistant: {plain(answer)}"
        costs = count_tokens(tokenizer, [whole, asked])
        taken = next((text for text, cost in zip((whole, asked), costs, strict=True) if cost <= left), None)
        if taken is None:
            break
        parts.append(taken)
        left -= costs[0]
    return "\n".join(reversed(parts))
