"""What an answer is, and the one that needs no language model: the best kept sentences, verbatim, each with its citation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ragkit.chains.claims import Claim
from ragkit.chains.context import Citation, GroundedContext, Sentence


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
    """What the model cost: calls, prompt_tokens, completion_tokens (None where it does not say)."""

    def __radd__(self, streamed: str) -> Answer:
        """Pieces of text and the answer behind them, as `GroundedAnswerer.stream` gives them, add up to the answer."""
        return self if isinstance(streamed, str) else NotImplemented


def extractive_answer(context: GroundedContext, *, max_sentences: int = 3) -> Answer:
    """The best sentences of the context, in reading order; abstains if the context has none.

    Best is by the pruner's score, then by order. Headings, lead-ins and units that are mostly markup are left out, since they
    hold no answer, unless there is nothing else.
    """
    sentences = [
        (rank, sentence)
        for rank, sentence in enumerate(sentence for passage in context.passages for sentence in passage.sentences)
    ]
    prose = [item for item in sentences if _is_prose(item[1])] or sentences
    best = sorted(prose, key=lambda item: (-(item[1].score or 0.0), item[0]))[:max_sentences]
    chosen = tuple(sentence.citation for _, sentence in sorted(best, key=lambda item: item[0]))
    return Answer(
        text=" ".join(f"{citation.text} [{citation.n}]" for citation in chosen),
        citations=chosen,
        abstained=not chosen,
        context=context,
    )


def _is_prose(sentence: Sentence) -> bool:
    text = sentence.citation.text
    readable = sum(char.isalpha() or char.isspace() for char in text)
    return sentence.kind != "heading" and not text.endswith((":", "：")) and readable >= 0.7 * len(text)
