"""Whether what a user says needs the documents at all. Who does not ask for this decision always gets a search."""

from __future__ import annotations

import logging
import math
import re
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from ragkit.errors import InputError, RagkitError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import Completion, Cost, LabelScores, cost_of
from ragkit.quoting import plain, spoken
from ragkit.retrievers.rewriting import template_of

_log = logging.getLogger(__name__)

Reason = Literal["question", "greeting", "thanks", "goodbye", "repeat", "asked", "known"]
"""What somebody wants: "repeat" is the last answer again, "asked" the questions so far, "known" what the model knows itself."""
_LABELS = ("yes", "no")
_WRITTEN = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)

_LONGEST = 80
"""Characters; whoever writes more asks for something."""
_SAYS: dict[Reason, tuple[str, ...]] = {
    "repeat": (
        r"(?:(?:can|could|would) you )?(?:please )?(?:repeat|say) (?:that|it|this|(?:your|the) (?:last |previous )?answer)",
        r"say again|come again|what did you (?:just )?say|what was (?:your|the) (?:last|previous) answer",
    ),
    "asked": (
        r"what (?:did i|have i) (?:just )?ask(?:ed)?(?: you)?",
        r"what (?:was|were) my (?:first |last |previous |earlier )?questions?",
        r"what (?:did we|have we) (?:just )?(?:talk(?:ed)? about|discuss(?:ed)?)",
        r"(?:list|show) (?:me )?my (?:last |previous )?questions",
    ),
    "greeting": (
        r"hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day)",
        r"how are you(?: (?:today|doing))?|how do you do",
        r"hallo|guten (?:morgen|tag|abend)|servus|moin|bonjour|bonsoir|salut|hola|buenos dias|buenas tardes|ciao|buongiorno|ola",
        r"こんにちは|おはよう(?:ございます)?|こんばんは|你好|您好|안녕하세요|привет|здравствуйте",
    ),
    "goodbye": (
        r"bye(?: bye)?|good ?bye|see you(?: (?:later|soon))?|good night|that(?:'s| is) all(?: for (?:now|today))?",
        r"tschuss|auf wiedersehen|au revoir|adios|hasta luego|arrivederci|さようなら|再见|до свидания",
    ),
    "thanks": (
        r"(?:many )?thanks(?: (?:a lot|so much|very much))?|thank you(?: (?:so much|very much))?",
        r"thx|cheers|great|perfect|ok(?:ay)?|(?:i )?got it",
        r"danke(?: (?:schon|sehr))?|vielen dank|merci(?: beaucoup)?|(?:muchas )?gracias|grazie(?: mille)?|obrigad[oa]",
        r"ありがとう(?:ございます|ございました)?|谢谢|감사합니다|спасибо",
    ),
}
_BESIDES = r"(?:please|there|everyone|all|again|once more|before|so far|bot|assistant|dear|for (?:your|the) (?:help|answer))"
_KINDS = {
    reason: re.compile(rf"(?:(?:so|well|and|oh|ok|okay) )?(?:(?:{'|'.join(says)}) (?:{_BESIDES} )*)+")
    for reason, says in _SAYS.items()
}


@dataclass(frozen=True)
class Need:
    """A decision."""

    retrieve: bool
    reason: Reason = "question"
    p_known: float | None = None
    """The probability that the model knows the answer, by its own account; None if it was not asked, or did not say."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """What the decision cost: calls, prompt_tokens, completion_tokens, cached, and `failure` if the model failed."""


class DecidesNeed(Protocol):
    """Says whether what a user says needs the documents. It may not raise: in doubt, they are searched."""

    def decide(self, question: str, config: RunnableConfig | None = None) -> Need:
        """The decision on one question."""
        ...

    async def adecide(self, question: str, config: RunnableConfig | None = None) -> Need:
        """Async form of `decide`."""
        ...


def small_talk(said: str) -> Reason:
    """What this is if all of it is a greeting, thanks, a farewell, or a question on the conversation itself; else "question".

    Greetings, thanks and farewells are known in a few languages, questions on the conversation in English.
    """
    if len(said) > _LONGEST:
        return "question"
    # letters without accents, as many people write them
    folded = re.sub(r"([a-z])[\u0300-\u036f]+", r"\1", unicodedata.normalize("NFKD", said.casefold().replace("’", "'")))
    words = " ".join(re.sub(r"[^\w']+", " ", unicodedata.normalize("NFC", folded)).split())
    return next((reason for reason, pattern in _KINDS.items() if pattern.fullmatch(f"{words} ")), "question")


class SmallTalk:
    """Needs no documents for what is `small_talk`; asks no model."""

    def decide(self, question: str, config: RunnableConfig | None = None) -> Need:
        """See `DecidesNeed`."""
        reason = small_talk(question)
        return Need(reason == "question", reason)

    async def adecide(self, question: str, config: RunnableConfig | None = None) -> Need:
        """See `DecidesNeed`."""
        return self.decide(question, config)


class Known:
    """Needs no documents for what the model says it knows: P(IK) of Kadavath et al., "Language Models (Mostly) Know What They
    Know" (2022), read from the probabilities of yes and no, or from what it writes if it gives none.

    Whatever goes wrong, the documents are searched. What a model believes to know may be wrong, and cannot be cited.
    """

    def __init__(self, llm: Any, prompt: str | Path = "know", *, at_least: float = 0.9, timeout: float | None = 10.0) -> None:
        """`at_least` is the probability from which on nothing is looked up, `timeout` is in seconds.

        Raises `InputError` for a prompt or a model that cannot be used, or an `at_least` that is no probability.
        """
        if not 0 <= at_least <= 1:
            raise InputError(f"at_least: must lie between 0 and 1, not {at_least!r}")
        self._llm, self._template = as_llm(llm), template_of(prompt, frozenset({"question"}))
        self._at_least, self._timeout = at_least, timeout

    def decide(self, question: str, config: RunnableConfig | None = None) -> Need:
        """See `DecidesNeed`."""
        try:
            [answer] = self._llm.score_labels([self._prompt(question)], [_LABELS], [config or {}], self._until())
        except Exception as error:
            answer = error
        return self._need(answer)

    async def adecide(self, question: str, config: RunnableConfig | None = None) -> Need:
        """See `DecidesNeed`."""
        try:
            [answer] = await self._llm.ascore_labels([self._prompt(question)], [_LABELS], [config or {}], self._until())
        except Exception as error:
            answer = error
        return self._need(answer)

    def _prompt(self, question: str) -> list[BaseMessage]:
        return self._template.format_messages(question=plain(question))

    def _until(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _need(self, answer: LabelScores | Completion | Exception) -> Need:
        cost = cost_of(answer)
        if isinstance(answer, Exception):
            return _searched(answer, cost)
        p_known = _probability(answer)
        if p_known is None:
            return _searched(RagkitError("the model said neither yes nor no"), cost)
        known = p_known >= self._at_least
        return Need(not known, "known" if known else "question", p_known, _usage(cost))


def _searched(error: Exception, cost: Cost) -> Need:
    failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    _log.warning("whether the model knows the answer is not known, so it is searched for: %s", failure)
    return Need(True, usage={**_usage(cost), "failure": failure})


def _usage(cost: Cost) -> dict[str, Any]:
    calls = 0 if cost.cached else cost.calls
    tokens = {"prompt_tokens": cost.prompt_tokens, "completion_tokens": cost.completion_tokens}
    return {"calls": calls, **tokens, "cached": int(cost.cached)}


def _probability(answer: LabelScores | Completion) -> float | None:
    """That of yes, among yes and no; None if the model said neither."""
    if isinstance(answer, Completion):
        written = _WRITTEN.match(spoken(answer.text))
        return None if written is None else float(written[1].casefold() == "yes")
    yes, no = map(math.exp, answer.scores)
    return yes / (yes + no) if yes + no > 0 else None
