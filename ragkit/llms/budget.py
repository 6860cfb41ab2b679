"""What a reranking may cost at most, and how much of it is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

from ragkit.llms.base import Cost


class Budget(BaseModel):
    """Limits of one piece of work, None being no limit; 0 allows nothing. Never changes: `start` begins to count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_calls: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=0)
    """Of prompts and answers together. Requests are not broken off, so the last ones may go beyond it."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """From `start` on."""

    def start(self, clock: Callable[[], float] = time.monotonic) -> Spending:
        """A counter of its own for one piece of work; `clock` tells seconds."""
        return Spending(self, clock)


class Spending:
    """What was spent of a budget. Not for several threads at once."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.calls = 0
        self.tokens = 0
        self._clock = clock
        self._began = clock()

    def spend(self, cost: Cost) -> None:
        """Count one request; cached answers are free, and tokens that the model does not report cannot count."""
        if not cost.cached:
            self.calls += cost.calls
            self.tokens += (cost.prompt_tokens or 0) + (cost.completion_tokens or 0)

    def allows(self, calls: int, tokens_each: int = 1) -> int:
        """How many of the next `calls` requests fit, if each takes at least `tokens_each` tokens; 0 after the deadline."""
        if self.remaining_seconds == 0:
            return 0
        limits = [calls]
        if self.budget.max_calls is not None:
            limits.append(self.budget.max_calls - self.calls)
        if self.budget.max_tokens is not None:
            limits.append((self.budget.max_tokens - self.tokens) // max(tokens_each, 1))
        return max(0, min(limits))

    @property
    def exhausted(self) -> bool:
        """Whether not one more request fits."""
        return self.allows(1) == 0

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed; None if there is none."""
        if self.budget.seconds is None:
            return None
        return max(0.0, self.budget.seconds - (self._clock() - self._began))
