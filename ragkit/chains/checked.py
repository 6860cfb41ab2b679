"""A model's words, as they arrive, to a checked `Answer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragkit.chains.answer import Answer
from ragkit.chains.claims import claims_of, false_quotes
from ragkit.chains.context import Citation, GroundedContext
from ragkit.chains.markers import MarkerStream
from ragkit.encoders.lexical import Analyzer

SUPPORTED = 0.5
"""The least support of a statement that passes."""


class AnswerStream:
    """Takes what a model says, chunk by chunk, and gives the text that a reader may see; at the end, the answer.

    However the text was cut into chunks, what comes out adds up to the same.
    """

    def __init__(self, context: GroundedContext, analyzer: Analyzer) -> None:
        """`analyzer` is that of the language in which passages and answer are written."""
        self._context, self._analyzer = context, analyzer
        self._markers = MarkerStream(len(context.passages))
        self._said: list[str] = []

    @property
    def empty(self) -> bool:
        """Whether nothing has come out so far."""
        return not any(self._said)

    def feed(self, chunk: str) -> str:
        """Text that will not change any more."""
        return self._kept(self._markers.feed(chunk))

    def finish(self) -> str:
        """The last of the text."""
        return self._kept(self._markers.finish())

    def answer(self, usage: Mapping[str, Any], problems: tuple[str, ...] = ()) -> Answer:
        """The answer, once the text is finished. It abstains if it cites nothing and states nothing that a passage bears out."""
        text = "".join(self._said)
        claims = tuple(claims_of(text, self._markers.markers, self._context, self._analyzer))
        supported = [claim for claim in claims if claim.support >= SUPPORTED]
        abstained = not self._markers.markers and not supported
        found = [*problems]
        if self._markers.unknown:
            numbers = ", ".join(map(str, dict.fromkeys(self._markers.unknown)))
            found.append(f"cites passages that do not exist: {numbers}")
        found += [f"quotes what no passage says: {quote}" for quote in false_quotes(text, self._context.passages)]
        return Answer(
            text=text,
            citations=_distinct([citation for claim in supported for citation in claim.evidence]),
            abstained=abstained,
            context=self._context,
            claims=claims,
            unsupported=() if abstained else tuple(claim for claim in claims if claim.support < SUPPORTED),
            problems=tuple(found),
            usage=usage,
        )

    def _kept(self, text: str) -> str:
        self._said.append(text)
        return text


def _distinct(citations: list[Citation]) -> tuple[Citation, ...]:
    return tuple(dict.fromkeys(citations))
