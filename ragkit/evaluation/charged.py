"""What a system costs, whoever asked the same before it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from ragkit.llms.base import Prompt
from ragkit.llms.wrapped import Configs, Given, Until, Wrapped


class Charged(Wrapped):
    """A language model with a cache inside, of which an answer from the cache costs the calls and tokens that it once took.

    `recalled` counts such answers: what they cost is known, but not how long they would take. Threads may share it.
    """

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.recalled = 0
        self._lock = Lock()

    def _answers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        return [*map(self._charged, self._inner(ability, prompts, given, configs, until))]

    async def _aanswers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        return [*map(self._charged, await self._ainner(ability, prompts, given, configs, until))]

    def _charged(self, answer: Any) -> Any:
        if isinstance(answer, Exception) or not answer.cost.cached:
            return answer
        with self._lock:
            self.recalled += 1
        return answer._replace(cost=answer.cost._replace(cached=False))
