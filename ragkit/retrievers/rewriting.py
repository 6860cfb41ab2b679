"""What a language model writes for a question, to search with: asked, read, and without harm if it fails."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig

from ragkit.errors import InputError, RagkitError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import LLM, Completion, Cost, Generates, cost_of
from ragkit.prompting import load_prompt
from ragkit.quoting import plain, spoken

_log = logging.getLogger(__name__)

_LONGEST = 4000
"""Characters of a passage that are read; six sentences have less."""
_PER_QUESTION, _AT_LEAST = 4, 300
"""A rewritten question that has more than so many times the characters of the question, and more than so many, is none."""
_LABELS = (
    re.compile(r"^[^:?\w]*(?:[\w-]+\s+){0,2}(?:question|query|version)\s*\d{0,2}\s*:\s*", re.IGNORECASE),
    re.compile(r"^\W*?(?:\d{1,2}\s*(?:[.):\]](?!\d)|-\s)|[-*•–]\s)\s*"),
)
_QUOTES = "\"'`“”„«»‘’* "
_WORD = re.compile(r"[^\W_]")


class Rewriting(NamedTuple):
    """What a question became: `texts` is empty if the answer could not be used, and `failure` says why."""

    texts: tuple[str, ...]
    cost: Cost
    failure: Exception | None = None


Read = Callable[[str, str], Sequence[str]]
"""The usable texts of an answer, given the question and the answer."""


def passage_of(question: str, answer: str) -> Sequence[str]:
    """The answer as one passage, inert and on one line; none without a word."""
    text = plain(spoken(answer))[:_LONGEST].strip()
    return [text] if _WORD.search(text) else []


def questions_of(question: str, answer: str) -> Sequence[str]:
    """The lines of the answer that are questions of their own, without numbers, bullets and quotes, each once."""
    longest = max(_PER_QUESTION * len(question), _AT_LEAST)
    lines = [plain(_unlabelled(line.strip())).strip(_QUOTES) for line in spoken(answer).splitlines() if "```" not in line]
    several = dict.fromkeys(line for line in lines if _WORD.search(line) and len(line) <= longest and not line.endswith(":"))
    own = plain(question).casefold()
    return [line for line in several if line.casefold() != own]


def _unlabelled(line: str) -> str:
    for label in _LABELS:
        line = label.sub("", line)
    return line


class Rewriter:
    """Asks one prompt about each question. Raises `InputError` for a prompt or a model that cannot be used."""

    def __init__(
        self, llm: Any, prompt: str | Path, variables: frozenset[str], read: Read, most: int = 1, timeout: float | None = None
    ) -> None:
        """`most` texts of an answer are kept; `timeout` is in seconds, for all questions of a call together."""
        self._llm, self._template = model_of(llm), template_of(prompt, variables)
        self._read, self._most, self._timeout = read, most, timeout

    def rewrite(self, questions: Sequence[str], configs: Sequence[RunnableConfig] | None = None) -> list[Rewriting]:
        """One per question, in order; nothing that the model does raises."""
        try:
            answers = self._llm.generate(self._prompts(questions), configs, self._until())
        except Exception as error:  # a model that raises has failed at each of them
            answers = [error] * len(questions)
        return self._rewritings(questions, answers)

    async def arewrite(self, questions: Sequence[str], configs: Sequence[RunnableConfig] | None = None) -> list[Rewriting]:
        """Async form of `rewrite`."""
        try:
            answers = await self._llm.agenerate(self._prompts(questions), configs, self._until())
        except Exception as error:
            answers = [error] * len(questions)
        return self._rewritings(questions, answers)

    def _prompts(self, questions: Sequence[str]) -> list[list[BaseMessage]]:
        values = {"count": str(self._most)}
        known = self._template.input_variables
        return [
            self._template.format_messages(
                **{name: value for name, value in {**values, "question": plain(question)}.items() if name in known}
            )
            for question in questions
        ]

    def _until(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _rewritings(self, questions: Sequence[str], answers: Sequence[Completion | Exception]) -> list[Rewriting]:
        done = [self._rewriting(*pair) for pair in zip(questions, answers, strict=True)]
        failed = [one.failure for one in done if one.failure is not None]
        if failed:
            _log.warning(
                "%d of %d questions are searched for as they are: %s: %s",
                len(failed), len(done), type(failed[0]).__name__, " ".join(str(failed[0]).split())[:200],
            )  # fmt: skip
        return done

    def _rewriting(self, question: str, answer: Completion | Exception) -> Rewriting:
        if isinstance(answer, Exception):
            return Rewriting((), cost_of(answer), answer)
        texts = tuple(self._read(question, answer.text)[: self._most])
        if not texts:
            said = " ".join(answer.text.split())[:80]
            return Rewriting((), answer.cost, RagkitError(f"the model's answer cannot be used: {said!r}"))
        return Rewriting(texts, answer.cost)


def model_of(llm: Any) -> LLM | Generates:
    """A model that writes: one of ragkit as it is, a LangChain chat model adapted, or one by its name as `named_llm` makes it.

    Raises `InputError` for anything else.
    """
    if isinstance(llm, str | Path):
        from ragkit.llms.named import named_llm

        return named_llm(llm)
    if isinstance(llm, Generates) and not isinstance(llm, Runnable):
        return llm
    return as_llm(llm)


def template_of(prompt: str | Path, variables: frozenset[str]) -> ChatPromptTemplate:
    """A shipped prompt by its name, or a file by its path. Raises `InputError` unless it has exactly these variables."""
    template = load_prompt(prompt)
    if set(template.input_variables) != variables:
        raise InputError(
            f"prompt {prompt}: its variables must be {', '.join(sorted(variables))}, "
            f"not {', '.join(sorted(template.input_variables)) or 'none'}"
        )
    return template
