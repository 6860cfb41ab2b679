"""Propositions: the statements of a passage, written out by a language model, as further units by which it can be found.

Chen et al., "Dense X Retrieval: What Retrieval Granularity Should We Use?" (EMNLP 2024).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragkit.corpus.rows import IndexedText
from ragkit.encoders.base import Encoder
from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.encoders.over import EncoderOver
from ragkit.errors import InputError, RagkitError
from ragkit.llms.base import Completion
from ragkit.quoting import plain, spoken
from ragkit.retrievers.rewriting import model_of, questions_of, template_of

_log = logging.getLogger(__name__)

_VARIABLES = frozenset({"context", "passage"})
_OWN = 0.5
"""Share of its runs of three characters that a proposition must have from its passage, or from the titles above it."""


class PropositionEncoder(EncoderOver):
    """A dense encoder for a `UnitIndex` in which passages are also found by their propositions.

    Each passage is shown to a language model once, when it is indexed. Where the answer cannot be used, as it is empty, an error,
    late, or about something else, the passage has its own sentences alone, and a warning says how often. Wrap the model in
    `ragkit.llms.cached.Cached` to ask it once for each passage whatever happens to the index.

    The fingerprint is that of the dense encoder, for propositions are further units, which any passage may lack: to search, or to
    add passages without them, an index can be opened with the dense encoder alone.
    """

    def __init__(
        self,
        encoder: EncoderLike = None,
        *,
        llm: Any,
        prompt: str | Path = "propositions",
        most: int = 40,
        timeout: float | None = None,
    ) -> None:
        """`llm` is a LangChain chat model, a model of `ragkit.llms`, or a name that `named_llm` takes.

        `most` propositions of a passage are kept; `timeout` is in seconds, for the passages of one call together. Raises
        `InputError` for a prompt or a model that cannot be used.
        """
        if most < 1:
            raise InputError(f"most: must be at least 1, not {most}")
        self._encoder = as_encoder(encoder)
        self.most, self.timeout = most, timeout
        self._llm, self._template = model_of(llm), template_of(prompt, _VARIABLES)

    @property
    def encoder(self) -> Encoder:
        """See `EncoderOver.encoder`."""
        return self._encoder

    def further_units(self, texts: Sequence[IndexedText]) -> list[Sequence[str]]:
        """The propositions of each passage; none where the model has failed. Nothing that the model does raises."""
        prompts = [self._template.format_messages(context=plain(_context(text)), passage=plain(text.body)) for text in texts]
        until = None if self.timeout is None else time.monotonic() + self.timeout
        answers: Sequence[Completion | Exception]
        try:
            answers = self._llm.generate(prompts, None, until)
        except Exception as error:  # a model that raises has failed at each of them
            answers = [error] * len(texts)
        found, failures = [], list[Exception]()
        for text, answer in zip(texts, answers, strict=True):
            units = [] if isinstance(answer, Exception) else propositions_of(f"{_context(text)}\n{text.body}", answer.text)
            found.append(units[: self.most])
            if isinstance(answer, Exception):
                failures.append(answer)
            elif not units:
                failures.append(RagkitError(f"the model's answer cannot be used: {' '.join(answer.text.split())[:80]!r}"))
        if failures:
            _log.warning(
                "%d of %d passages are indexed without propositions: %s: %s",
                len(failures), len(texts), type(failures[0]).__name__, " ".join(str(failures[0]).split())[:200],
            )  # fmt: skip
        return found


def propositions_of(passage: str, answer: str) -> Sequence[str]:
    """The statements of an answer, a JSON list of strings or one on each line, without numbers, bullets and quotes, each once.

    Left out is what is not about the passage, by the characters it shares with it: a refusal, a remark, another text.
    """
    own = _trigrams(passage)
    return [
        text
        for text in questions_of(passage, _lines(spoken(answer)))
        if len(_trigrams(text) - own) <= (1 - _OWN) * len(_trigrams(text))
    ]


def _lines(answer: str) -> str:
    """A JSON list of strings as one string on each line; another answer as it is."""
    start, end = answer.find("["), answer.rfind("]")
    try:
        items = json.loads(answer[start : end + 1])
    except (ValueError, RecursionError):
        return answer
    if items and all(isinstance(item, int | float) for item in items):
        return answer  # "[1]" is a citation
    return "\n".join(" ".join(item.split()) for item in items if isinstance(item, str))


def _trigrams(text: str) -> set[str]:
    folded = " ".join(plain(text).casefold().split())
    return {folded[at : at + 3] for at in range(max(len(folded) - 2, 1))}


def _context(text: IndexedText) -> str:
    return " > ".join(filter(None, (text.title, text.headings)))
