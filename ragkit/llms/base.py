"""The two abilities of a language model, as protocols, and what comes back. Implementations know nothing of reranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from ragkit.errors import InputError, RagkitError

Prompt = Sequence[BaseMessage]
"""The messages of one request."""


class Cost(NamedTuple):
    """What one request cost; tokens are None where the model does not say."""

    calls: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False
    """Whether the answer came from a cache: then nothing was called."""


class RequestError(RagkitError):
    """A request failed, but not for free."""

    def __init__(self, message: str, cost: Cost) -> None:
        super().__init__(message)
        self.cost = cost


class DeadlineError(RequestError):
    """The deadline came before the answer; `cost` is what had been sent until then, nothing if not given."""

    def __init__(self, cost: Cost | None = None) -> None:
        super().__init__("the deadline came before the answer", cost or Cost(0))


class Completion(NamedTuple):
    """A generated text."""

    text: str
    cost: Cost = Cost()


class LabelScores(NamedTuple):
    """The log-probability of each label as the continuation of a prompt, [labels]; -inf for one the model did not report."""

    scores: tuple[float, ...]
    cost: Cost = Cost()


class TextScore(NamedTuple):
    """The log-probability of a whole text as the continuation of a prompt: the sum over its tokens."""

    score: float
    cost: Cost = Cost()


def cost_of(answer: Completion | LabelScores | TextScore | Exception) -> Cost:
    """What a request cost, whether it was answered or not; what is refused as it stands was never sent."""
    if isinstance(answer, InputError):
        return Cost(0)
    return Cost() if isinstance(answer, Exception) and not isinstance(answer, RequestError) else answer.cost


def total(costs: Iterable[Cost]) -> Cost:
    """The cost of several requests: of cached ones nothing counts, and what one of them does not say is not known."""
    costs = list(costs)
    made = [cost for cost in costs if cost.calls and not cost.cached]
    prompts, completions = [cost.prompt_tokens for cost in made], [cost.completion_tokens for cost in made]
    return Cost(
        sum(cost.calls for cost in made),
        None if None in prompts else sum(count or 0 for count in prompts),
        None if None in completions else sum(count or 0 for count in completions),
        cached=bool(costs) and all(cost.cached for cost in costs),
    )


@runtime_checkable
class Generates(Protocol):
    """Writes text. A request that fails has its exception in place of its answer; the others are not affected.

    `until` is a time of `time.monotonic`. By then every ability returns with the answers that are there; the rest are
    `DeadlineError`s, and nothing more is sent.
    """

    def generate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None, until: float | None = None
    ) -> Sequence[Completion | Exception]:
        """One answer per prompt, in order; as many at a time as the model takes."""
        ...

    async def agenerate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None, until: float | None = None
    ) -> Sequence[Completion | Exception]:
        """Async form of `generate`; cancelling it cancels the pending requests."""
        ...


@runtime_checkable
class ScoresLabels(Protocol):
    """Says how likely each of some short labels is as the answer; without probabilities it gives the text it writes.

    Fails like `Generates`.
    """

    def score_labels(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[Sequence[str]],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> Sequence[LabelScores | Completion | Exception]:
        """Scores of each prompt's own labels, in order."""
        ...

    async def ascore_labels(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[Sequence[str]],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> Sequence[LabelScores | Completion | Exception]:
        """Async form of `score_labels`."""
        ...


@runtime_checkable
class ScoresText(Protocol):
    """Says how likely a given text is as the answer. Fails like `Generates`."""

    def query_likelihood(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[str],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> Sequence[TextScore | Exception]:
        """Score of each prompt's own continuation, in order; sum log p(q | d) where that is the question of a passage."""
        ...

    async def aquery_likelihood(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[str],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> Sequence[TextScore | Exception]:
        """Async form of `query_likelihood`."""
        ...


@runtime_checkable
class LLM(Generates, ScoresLabels, Protocol):
    """What rerankers work with: a model that writes and that scores labels."""
