"""Counts what a language model is used for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

from ragkit.llms.base import Prompt, cost_of
from ragkit.llms.wrapped import Configs, Given, Until, Wrapped


class Totals(NamedTuple):
    """Sums over all requests so far. Answers from a cache are in `cached` and nowhere else."""

    calls: int = 0
    """Calls of the model, those that failed included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Time spent waiting for batches of requests; batches that overlap count in full."""
    failures: int = 0
    """Requests with an exception for an answer."""
    cached: int = 0
    uncounted: int = 0
    """Requests that were answered without saying how many tokens they took: the token sums lack them."""


class Metered(Wrapped):
    """A language model as before, and `totals` of what it cost. Threads and event loops may share it.

    Of a call that is cancelled, or that raises as a whole, only the time is known.
    """

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self._lock = Lock()
        self._totals = Totals()

    @property
    def totals(self) -> Totals:
        """What was used since the beginning, or since `reset`."""
        with self._lock:
            return self._totals

    def reset(self) -> Totals:
        """Start from zero; what had been counted."""
        with self._lock:
            before, self._totals = self._totals, Totals()
            return before

    def _answers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        start = time.monotonic()
        found: Sequence[Any] = ()
        try:
            found = self._inner(ability, prompts, given, configs, until)
        finally:  # what raises or is cancelled took its time, too
            self._count(found, time.monotonic() - start)
        return found

    async def _aanswers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        start = time.monotonic()
        found: Sequence[Any] = ()
        try:
            found = await self._ainner(ability, prompts, given, configs, until)
        finally:
            self._count(found, time.monotonic() - start)
        return found

    def _count(self, answers: Sequence[Any], seconds: float) -> None:
        costs = [cost_of(answer) for answer in answers]
        made = [cost for cost in costs if not cost.cached]
        failed = [isinstance(answer, Exception) for answer in answers]
        silent = [not cost.cached and None in cost[1:3] for cost in costs]
        more = Totals(
            sum(cost.calls for cost in made),
            sum(cost.prompt_tokens or 0 for cost in made),
            sum(cost.completion_tokens or 0 for cost in made),
            seconds,
            sum(failed),
            len(costs) - len(made),
            sum(silent and not failed for silent, failed in zip(silent, failed, strict=True)),
        )
        with self._lock:
            self._totals = Totals(*(a + b for a, b in zip(self._totals, more, strict=True)))  # type: ignore[arg-type]
