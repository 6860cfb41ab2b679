"""What an answer is, and the one that needs no language model: the best kept sentences, verbatim, each with its citation."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ragkit.chains.claims import Claim
from ragkit.chains.confidence import Calibration
from ragkit.chains.context import Candidate, Citation, GroundedContext, Sentence

NOT_ANSWERED = "The documents do not seem to answer this."


@dataclass(frozen=True)
class Answer:
    """`text` carries [n] markers that refer to the context's passages; `citations` are the sentences that bear it out.

    An answer that a model wrote has been checked: see `claims`, `unsupported` and `problems`. One that is extractive consists of
    its citations, and there is nothing to check.
    """

    text: str
    citations: tuple[Citation, ...]
    abstained: bool
    """Whether this says that the documents hold no answer."""
    context: GroundedContext
    claims: tuple[Claim, ...] = ()
    """What a model's answer states, sentence by sentence."""
    unsupported: tuple[Claim, ...] = ()
    """Those that the passages they cite do not bear out."""
    problems: tuple[str, ...] = ()
    """What else was found or mended: numbers of no passage, quotations that are none, a model that failed."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """What the model cost: calls, prompt_tokens, completion_tokens (None where it does not say); a `warning` where
    a check could not be made."""
    confidence: float | None = None
    """The probability, from 0 to 1, that the context answers the question; None where nothing is calibrated for its pipeline."""

    def __radd__(self, streamed: str) -> Answer:
        """Pieces of text and the answer behind them, as `GroundedAnswerer.stream` gives them, add up to the answer."""
        return self if isinstance(streamed, str) else NotImplemented


def extractive_answer(
    context: GroundedContext,
    *,
    max_sentences: int = 3,
    calibration: Calibration | None = None,
    abstain_below: float | None = None,
) -> Answer:
    """The best sentences of the context, in reading order; abstains if the context has none.

    Best is by the pruner's score, then by the passage's rank. Headings, lead-ins and units that are mostly markup are left out,
    since they hold no answer, unless there is nothing else. With a `calibration`, see `calibration_for`, it also abstains from
    contexts that answer the question with a probability less than `abstain_below`; None is the calibration's own, 0 never
    abstains.
    """
    confidence = None
    if calibration is not None:
        confidence = calibration(context)
        if context.passages and calibration.too_weak(confidence, abstain_below):
            return not_answered(context, confidence)
    sentences = [sentence for passage in context.best_first for sentence in passage.sentences]
    prose = [sentence for sentence in sentences if _is_prose(sentence)] or sentences
    best = sorted(prose, key=lambda sentence: -(sentence.score or 0.0))[:max_sentences]
    if not best:
        return not_answered(context, confidence)
    chosen = tuple(sorted((sentence.citation for sentence in best), key=lambda citation: (citation.n, citation.start)))
    return Answer(
        text=" ".join(f"{citation.text} [{citation.n}]" for citation in chosen),
        citations=chosen,
        abstained=False,
        context=context,
        confidence=confidence,
    )


def not_answered(context: GroundedContext, confidence: float | None) -> Answer:
    """The answer where the evidence is too weak, which points to the nearest passages, if there are any."""
    near = "".join(f" [{passage.n}]" for passage in context.best_first)
    text = f"{NOT_ANSWERED} Nearest to it:{near}" if near else NOT_ANSWERED
    return Answer(text, (), True, context, usage={"calls": 0}, confidence=confidence)


def nearest(context: GroundedContext, most: int = 3) -> tuple[Candidate, ...]:
    """The passages nearest to the question, whole and best first, also those of which nothing was kept."""
    found = {candidate.id: candidate for candidate in context.candidates}
    ranked = dict.fromkeys(result.id for stage in reversed(context.trace) for result in stage.results)
    return tuple([found[id_] for id_ in ranked if id_ in found][:most])


def pointed_to(context: GroundedContext, least: int = 3) -> list[tuple[int | None, Candidate]]:
    """What `not_answered` names, with its number, and if that is less than `least`, the nearest others, which have none."""
    numbers = {passage.id: passage.n for passage in context.passages}
    ranked = sorted(nearest(context, len(context.candidates)), key=lambda near: near.id not in numbers)
    return [(numbers.get(near.id), near) for near in ranked[: max(least, len(numbers))]]


def _is_prose(sentence: Sentence) -> bool:
    text = sentence.citation.text
    # marks are the vowels of many scripts, and a number is often all that was asked for
    readable = sum(char.isspace() or unicodedata.category(char)[0] in "LMN" for char in text)
    return sentence.kind != "heading" and not text.endswith((":", "：")) and readable >= 0.7 * len(text)
