"""The two abilities of a language model, as protocols, and what comes back. Implementations know nothing of reranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

Prompt = Sequence[BaseMessage]
"""The messages of one request."""


class Cost(NamedTuple):
    """What one request cost; tokens are None where the model does not say."""

    calls: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False
    """Whether the answer came from a cache: then nothing was called."""


class Completion(NamedTuple):
    """A generated text."""

    text: str
    cost: Cost = Cost()


class LabelScores(NamedTuple):
    """The log-probability of each label as the continuation of a prompt, [labels]; -inf for one the model did not report."""

    scores: tuple[float, ...]
    cost: Cost = Cost()
    parsed: bool = False
    """Whether the model gave no probabilities: then the label that its text names has 0, the others -inf."""


class TextScore(NamedTuple):
    """The log-probability of a whole text as the continuation of a prompt: the sum over its tokens."""

    score: float
    cost: Cost = Cost()


@runtime_checkable
class Generates(Protocol):
    """Writes text. A request that fails has its exception in place of its answer; the others are not affected."""

    def generate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None
    ) -> Sequence[Completion | Exception]:
        """One answer per prompt, in order; as many at a time as the model takes."""
        ...

    async def agenerate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None
    ) -> Sequence[Completion | Exception]:
        """Async form of `generate`; cancelling it cancels the pending requests."""
        ...


@runtime_checkable
class ScoresLabels(Protocol):
    """Says how likely each of some short labels is as the answer. Fails like `Generates`."""

    def score_labels(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Sequence[RunnableConfig] | None = None
    ) -> Sequence[LabelScores | Exception]:
        """Scores of each prompt's own labels, in order."""
        ...

    async def ascore_labels(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Sequence[RunnableConfig] | None = None
    ) -> Sequence[LabelScores | Exception]:
        """Async form of `score_labels`."""
        ...


@runtime_checkable
class ScoresText(Protocol):
    """Says how likely a given text is as the answer. Fails like `Generates`."""

    def query_likelihood(
        self, prompts: Sequence[Prompt], continuations: Sequence[str], configs: Sequence[RunnableConfig] | None = None
    ) -> Sequence[TextScore | Exception]:
        """Score of each prompt's own continuation, in order; sum log p(q | d) where that is the question of a passage."""
        ...

    async def aquery_likelihood(
        self, prompts: Sequence[Prompt], continuations: Sequence[str], configs: Sequence[RunnableConfig] | None = None
    ) -> Sequence[TextScore | Exception]:
        """Async form of `query_likelihood`."""
        ...


@runtime_checkable
class LLM(Generates, ScoresLabels, Protocol):
    """What rerankers work with: a model that writes and that scores labels."""
