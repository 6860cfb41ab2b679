"""Where questions come from: a sentence's own words, or a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from ragkit.errors import InputError
from ragkit.evaluation.synthetic.keywords import keyword_question
from ragkit.evaluation.synthetic.pieces import Splitter
from ragkit.evaluation.synthetic.reading import question_of
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import Completion, Generates
from ragkit.prompting import load_prompt
from ragkit.quoting import plain


class Target(NamedTuple):
    """What a question is to be asked about: a sentence, the passage it stands in, and the headings above that."""

    passage: str
    headings: str
    sentence: str


class Asked(NamedTuple):
    """The question for one target; None if there is none, and then `problem` says why."""

    question: str | None
    problem: str = ""
    failed: bool = False
    """Whether a language model could not be reached, so that another try may succeed."""


class Asker(Protocol):
    """Writes questions."""

    def __call__(self, targets: Sequence[Target]) -> list[Asked]:
        """One per target, in order."""
        ...


class Keywords:
    """Questions of a sentence's own words; see `keyword_question`. Always the same for the same corpus."""

    def __init__(self, split: Splitter) -> None:
        self._split = split

    def __call__(self, targets: Sequence[Target]) -> list[Asked]:
        """See `Asker`."""
        questions = [keyword_question(self._split(target.sentence)) for target in targets]
        return [Asked(question, "" if question else "the sentence has too few words") for question in questions]


class Written:
    """Questions that a language model writes about a sentence in its passage, one call each.

    As in InPars (Bonifacio et al., SIGIR 2022) and Promptagator (Dai et al., ICLR 2023), with two examples in the prompt. Raises
    `InputError` for a model or a prompt that cannot be used; a call that fails is its target's problem alone.
    """

    def __init__(self, llm: Any, prompt: str | Path = "write_question") -> None:
        """`llm` is a LangChain chat model or a model of `ragkit.llms`; `prompt` a prompt with `passage` and `sentence`."""
        self._llm = llm if isinstance(llm, Generates) and not isinstance(llm, Runnable) else as_llm(llm)
        self._template = _template(prompt)

    def __call__(self, targets: Sequence[Target]) -> list[Asked]:
        """See `Asker`."""
        answers: Sequence[Completion | Exception]
        try:
            answers = self._llm.generate([self._prompt(target) for target in targets])
        except Exception as error:  # a model that raises has failed at each of them
            answers = [error] * len(targets)
        return [_asked(answer) for answer in answers]

    def _prompt(self, target: Target) -> list[BaseMessage]:
        passage = f"{plain(target.headings)}\n{plain(target.passage)}" if target.headings else plain(target.passage)
        return self._template.format_messages(passage=passage, sentence=plain(target.sentence))


def _template(prompt: str | Path) -> ChatPromptTemplate:
    template = load_prompt(prompt)
    if set(template.input_variables) != {"passage", "sentence"}:
        raise InputError(f"prompt {prompt}: its variables must be passage and sentence, not {sorted(template.input_variables)}")
    return template


def _asked(answer: Completion | Exception) -> Asked:
    if isinstance(answer, Exception):
        return Asked(None, " ".join(f"{type(answer).__name__}: {answer}".split()), failed=True)
    question = question_of(answer.text)
    said = " ".join(answer.text.split())[:80]
    return Asked(question, "" if question else f"the model's answer holds no question: {said!r}")
