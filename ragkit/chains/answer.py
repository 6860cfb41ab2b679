"""An answer without a language model: the best kept sentences, verbatim, each with its citation."""

from __future__ import annotations

from dataclasses import dataclass

from ragkit.chains.context import Citation, GroundedContext, Sentence


@dataclass(frozen=True)
class Answer:
    """`text` carries [n] markers that refer to the context's passages; `citations` are the sentences it consists of."""

    text: str
    citations: tuple[Citation, ...]
    abstained: bool
    context: GroundedContext


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
