"""What a reranking may cost at most, and how much of it is left."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ragkit.llms.base import Cost


class Budget(BaseModel):
    """Limits of one piece of work, None being no limit; 0 allows nothing. Never changes: `Spending` counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_calls: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=0)
    """Of prompts and answers together. How long an answer gets is not known before, so the last ones may go beyond it."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def deadline(self) -> float | None:
        """When it ends if it begins now, as a time of `time.monotonic`."""
        return None if self.seconds is None else time.monotonic() + self.seconds


class Spending:
    """The calls and tokens that were spent of a budget. Not for several threads at once."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.uncounted = self.cached = 0
        """Answers of which the model did not say the tokens, and those that were known already."""

    def spend(self, cost: Cost, *, answered: bool = True) -> None:
        """Count one request; cached answers are free, and tokens that the model does not report cannot count.

        One that was not `answered` has no tokens to report.
        """
        if cost.cached:
            self.cached += 1
            return
        self.calls += cost.calls
        self.prompt_tokens += cost.prompt_tokens or 0
        self.completion_tokens += cost.completion_tokens or 0
        known = cost.prompt_tokens is not None and cost.completion_tokens is not None
        self.uncounted += int(answered and cost.calls > 0 and not known)

    @property
    def usage(self) -> dict[str, int]:
        """All of it by name, as the usage of a stage has it."""
        names = ("calls", "prompt_tokens", "completion_tokens", "uncounted", "cached")
        return {name: getattr(self, name) for name in names}

    def lacks(self, plan: Cost) -> Literal["calls", "tokens"] | None:
        """What is not enough for all of a plan; None if it fits.

        What the plan does not say of its tokens is expected to be as much per call as so far, and no call takes less than one.
        """
        most = self.budget.max_calls
        if most is not None and self.calls + plan.calls > most:
            return "calls"
        most = self.budget.max_tokens
        if most is not None and self.prompt_tokens + self.completion_tokens + self._expected(plan) > most:
            return "tokens"
        return None

    def _expected(self, plan: Cost) -> int:
        """Tokens."""
        calls = max(self.calls, 1)
        prompts = self.prompt_tokens * plan.calls // calls if plan.prompt_tokens is None else plan.prompt_tokens
        answers = self.completion_tokens * plan.calls // calls if plan.completion_tokens is None else plan.completion_tokens
        return max(prompts + answers, plan.calls)
