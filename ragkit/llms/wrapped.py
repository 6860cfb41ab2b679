"""What wrappers share: they have the abilities of the model inside, and no others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from ragkit.errors import InputError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import Completion, Generates, LabelScores, Prompt, ScoresLabels, ScoresText, TextScore
from ragkit.llms.forecast import count_tokens, probes

Configs = Sequence[RunnableConfig] | None
Until = float | None
Written = Sequence[Completion | Exception]
Scored = Sequence[LabelScores | Completion | Exception]
Likely = Sequence[TextScore | Exception]
Given = Sequence[Any] | None
"""What belongs to the prompts, one each: labels, a continuation, or None where there is nothing."""


class Wrapped(ABC):
    """Base of wrappers of a model that at least generates or scores labels.

    `query_likelihood` is there if the model inside has it, as an attribute of the instance, so that `isinstance` with
    `ScoresText` tells the truth; of the two others, one that the model lacks is an `InputError` when it is asked for.
    """

    def __init__(self, llm: Any) -> None:
        if isinstance(llm, Runnable):  # a chat model, whose `generate` is another one
            llm = as_llm(llm)
        if not isinstance(llm, Generates | ScoresLabels):
            raise InputError(f"llm: {type(llm).__name__} neither generates nor scores labels")
        self.llm = llm
        if isinstance(llm, ScoresText):
            self.query_likelihood = self._query_likelihood
            self.aquery_likelihood = self._aquery_likelihood

    @property
    def identity(self) -> str:
        """The identity of the model inside; `InputError` if it has none."""
        identity = getattr(self.llm, "identity", None)
        if not isinstance(identity, str):
            raise InputError(f"name: {type(self.llm).__name__} does not say what tells it from others; pass a name")
        return identity

    @property
    def probes(self) -> int:
        """See `probes`."""
        return probes(self.llm)

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """See `count_tokens`."""
        return count_tokens(self.llm, prompts)

    def generate(self, prompts: Sequence[Prompt], configs: Configs = None, until: Until = None) -> Written:
        """See `Generates`."""
        found: Written = self._answers("generate", prompts, None, configs, until)
        return found

    async def agenerate(self, prompts: Sequence[Prompt], configs: Configs = None, until: Until = None) -> Written:
        """See `Generates`."""
        found: Written = await self._aanswers("generate", prompts, None, configs, until)
        return found

    def score_labels(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Configs = None, until: Until = None
    ) -> Scored:
        """See `ScoresLabels`."""
        found: Scored = self._answers("score_labels", prompts, labels, configs, until)
        return found

    async def ascore_labels(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Configs = None, until: Until = None
    ) -> Scored:
        """See `ScoresLabels`."""
        found: Scored = await self._aanswers("score_labels", prompts, labels, configs, until)
        return found

    @abstractmethod
    def _answers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        """Answers for prompts, through `_inner`."""

    @abstractmethod
    async def _aanswers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        """Async form of `_answers`, through `_ainner`."""

    def _inner(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        return self._of_llm(ability)(prompts, *(() if given is None else (given,)), configs, until)

    async def _ainner(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        return await self._of_llm(f"a{ability}")(prompts, *(() if given is None else (given,)), configs, until)

    def _of_llm(self, method: str) -> Any:
        found = getattr(self.llm, method, None)
        if found is None:
            raise InputError(f"llm: {type(self.llm).__name__} has no {method}")
        return found

    def _query_likelihood(
        self, prompts: Sequence[Prompt], continuations: Sequence[str], configs: Configs = None, until: Until = None
    ) -> Likely:
        found: Likely = self._answers("query_likelihood", prompts, continuations, configs, until)
        return found

    async def _aquery_likelihood(
        self, prompts: Sequence[Prompt], continuations: Sequence[str], configs: Configs = None, until: Until = None
    ) -> Likely:
        found: Likely = await self._aanswers("query_likelihood", prompts, continuations, configs, until)
        return found
