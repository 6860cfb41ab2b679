"""A model's words, as they arrive, to a checked `Answer`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ragkit.chains.answer import Answer
from ragkit.chains.claims import Claim, claims_of, false_quotes
from ragkit.chains.context import Citation, GroundedContext
from ragkit.chains.markers import MarkerStream
from ragkit.chains.support import ModelSupport
from ragkit.encoders.lexical import Analyzer

_log = logging.getLogger(__name__)

SUPPORTED = 0.5
"""The least support of a statement that passes."""
PROBABLE = 0.2
"""The least probability, where a model was asked: chosen with benchmarks/claims.py, on what is not reported there."""


class AnswerStream:
    """Takes what a model says, chunk by chunk, and gives the text that a reader may see; at the end, the answer.

    However the text was cut into chunks, what comes out adds up to the same.
    """

    def __init__(self, context: GroundedContext, analyzer: Analyzer, model: ModelSupport | None = None) -> None:
        """`analyzer` is that of the language in which passages and answer are written; `model` is asked beside it, if given."""
        self._context, self._analyzer, self._model = context, analyzer, model
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
        """The answer, once the text is finished. It abstains if it cites nothing and states nothing that a passage bears out.

        A model for support that fails leaves a `warning` in the usage.
        """
        text = "".join(self._said)
        claims, failed = self._weighed(claims_of(text, self._markers.markers, self._context, self._analyzer))
        supported = [claim for claim in claims if _passes(claim)]
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
            unsupported=() if abstained else tuple(claim for claim in claims if not _passes(claim)),
            problems=tuple(found),
            usage={**usage, **failed},
        )

    def _weighed(self, claims: Sequence[Claim]) -> tuple[tuple[Claim, ...], dict[str, str]]:
        """The claims with the model's word on them, and a warning for the usage where it gave none."""
        if self._model is None:
            return tuple(claims), {}
        try:
            return self._model.weigh(claims, self._context), {}
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            warning = f"support is that of words alone, since the model for it failed ({reason})"
            _log.warning("%r: %s", self._context.question, warning)
            return tuple(claims), {"warning": warning}

    def _kept(self, text: str) -> str:
        self._said.append(text)
        return text


def _passes(claim: Claim) -> bool:
    """Words and model, if it was asked, must both agree."""
    return claim.support >= SUPPORTED and (claim.probability is None or claim.probability >= PROBABLE)


def _distinct(citations: list[Citation]) -> tuple[Citation, ...]:
    return tuple(dict.fromkeys(citations))
