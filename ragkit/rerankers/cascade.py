"""Reranking in stages: cheap over all, dearer over the best."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator, Sequence
from math import nan
from typing import Any, Self

from langchain_core.documents import Document
from pydantic import Field, model_validator

from ragkit.compressor import Outcome, Task
from ragkit.documents.provenance import provenance
from ragkit.llms.base import DeadlineError
from ragkit.llms.budget import Budget
from ragkit.rerankers.base import Reranker
from ragkit.rerankers.driver import OnFailure, spent_before
from ragkit.rerankers.llm import LLMReranker
from ragkit.rerankers.ranking import Ranking, RankingReranker

_log = logging.getLogger(__name__)
_SUMS = ("calls", "rounds", "prompt_tokens", "completion_tokens", "uncounted", "cached", "failures", "seconds")

_Walk = Generator[tuple[Reranker, list[Task]], Sequence[Outcome | Exception], list[Ranking | Exception]]


class CascadeReranker(RankingReranker):
    """Rerankers of any kind, each over the best of the one before (Nogueira et al. 2019, duoBERT); the rest stays behind.

    Unlike rerankers in a pipeline it loses no document between its stages: a stage's own `top_k` says how many of its best it
    puts in front. A stage without one is asked for as many as a later stage reads, or the cascade returns.

    A stage that fails or learns nothing might as well not be there: order and scores stay those of the stages before. If only
    one has learnt something, and of all documents, its scores stand; otherwise scores are 1 / rank, as those of different stages
    do not compare. The usage sums up those of the stages, which are under `stages`; `stopped` says what ended the first one that
    a budget ended.
    """

    stages: list[Reranker] = Field(min_length=1)
    """The cheapest first."""
    depths: list[int] = []
    """How many of the best so far each stage but the first sees."""
    budget: Budget | None = None
    """What each question may cost in all stages together; a stage has what is left of it, within its own. At its deadline no
    further stage begins. With a budget `batch` takes one question after the other, and `abatch` all at once."""
    on_failure: OnFailure = "keep"
    """After a stage that fails as a whole go on with what the stages before it found ("keep"), or fail the question ("raise").
    Whether one failed request fails a stage is up to the stage's own `on_failure`."""

    @model_validator(mode="after")
    def _one_depth_each(self) -> Self:
        if len(self.depths) != len(self.stages) - 1:
            raise ValueError(f"depths: one for each stage but the first, so {len(self.stages) - 1}, not {len(self.depths)}")
        if any(depth < 1 for depth in self.depths):
            raise ValueError(f"depths: each at least 1, not {min(self.depths)}")
        return self

    def rankings(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        """See `RankingReranker`."""
        return [ranking for part in self._parts(tasks) for ranking in self._run(part)]

    async def arankings(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        """See `RankingReranker`."""
        parts = await asyncio.gather(*map(self._arun, self._parts(tasks)))
        return [ranking for part in parts for ranking in part]

    def _parts(self, tasks: Sequence[Task]) -> list[Sequence[Task]]:
        """What goes through the stages together: what is left of a budget differs from question to question."""
        return [tasks] if self.budget is None else [[task] for task in tasks]

    def _run(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        walk = self._walk(tasks)
        try:
            stage, asked = next(walk)
            while True:
                outcomes: Sequence[Outcome | Exception]
                try:
                    outcomes = stage.process(asked)
                except Exception as error:
                    outcomes = [error] * len(asked)
                stage, asked = walk.send(outcomes)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _arun(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        walk = self._walk(tasks)
        try:
            stage, asked = next(walk)
            while True:
                outcomes: Sequence[Outcome | Exception]
                try:
                    outcomes = await stage.aprocess(asked)
                except Exception as error:
                    outcomes = [error] * len(asked)
                stage, asked = walk.send(outcomes)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _walk(self, tasks: Sequence[Task]) -> _Walk:
        ways = [_Way(task, self.on_failure) for task in tasks]
        until = self.budget.deadline() if self.budget else None
        for at, stage in enumerate(self.stages):
            active = [way for way in ways if way.failure is None]
            if until is not None and time.monotonic() >= until:
                for way in active:
                    way.stop()
                break
            needed = None if self.top_k is None else max([self.top_k, *self.depths[at:]])
            changes: dict[str, Any] = {"top_k": stage.top_k or needed}
            if self.budget and isinstance(stage, LLMReranker | CascadeReranker):
                [way] = ways
                changes["budget"] = _tighter(way.left(self.budget, until), stage.budget or Budget())
            depth = self.depths[at - 1] if at else None
            outcomes = yield stage.model_copy(update=changes), [way.enter(depth) for way in active]
            for way, outcome in zip(active, outcomes, strict=True):
                way.leave(stage, outcome)
        return [way.ranking(self.top_k) for way in ways]


class _Way:
    """One question on its way through the stages; its documents are known by their place, as ids may come twice."""

    def __init__(self, task: Task, on_failure: OnFailure) -> None:
        self.failure: Exception | None = None
        self._task = task
        self._on_failure = on_failure
        self._order = list(range(len(task.documents)))
        self._shown: list[int] = []
        self._learnt = False
        self._scores: dict[int, float | None] = {}
        self._usages: list[dict[str, Any]] = []
        self._late = False

    def left(self, budget: Budget, until: float | None) -> Budget:
        """What the stages so far have left of a budget."""
        sums = self._sums()
        tokens = sums["prompt_tokens"] + sums["completion_tokens"]
        return Budget(
            max_calls=None if budget.max_calls is None else max(0, budget.max_calls - sums["calls"]),
            max_tokens=None if budget.max_tokens is None else max(0, budget.max_tokens - tokens),
            seconds=None if until is None else max(0.0, until - time.monotonic()),
        )

    def enter(self, depth: int | None) -> Task:
        """What a stage sees."""
        self._shown = self._order[:depth]
        return self._task._replace(documents=[_numbered(self._task.documents[at], at) for at in self._shown])

    def leave(self, stage: Reranker, outcome: Outcome | Exception) -> None:
        """Take over what a stage has found out."""
        if isinstance(outcome, Exception):
            self._fail(stage, outcome)
            return
        self._usages.append(self._named(outcome.usage))
        found = {int(str(document.id)): self._score(document) for document in outcome.documents}
        if list(found) == self._shown[: len(found)] and all(score is None for score in found.values()):
            return
        self._scores = {} if self._learnt or len(self._shown) < len(self._order) else found
        self._order = list(dict.fromkeys([*found, *self._order]))
        self._learnt = True

    def stop(self) -> None:
        """The deadline has come."""
        self._late = True
        if self._on_failure == "raise":
            self.failure = DeadlineError()

    def ranking(self, top_k: int | None) -> Ranking | Exception:
        """What came of it."""
        if self.failure:
            return self.failure
        usage: dict[str, Any] = {**self._sums(), "stages": self._usages}
        reasons = [usage["stopped"] for usage in self._usages if "stopped" in usage]
        if reasons or self._late:
            usage["stopped"] = next(iter(reasons), "deadline")
        scores = None
        if all(at in self._scores for at in self._order[:top_k]):
            known = (self._scores.get(at) for at in range(len(self._order)))
            scores = [nan if score is None else score for score in known]
        return Ranking(self._order, scores, usage, self._learnt)

    def _fail(self, stage: Reranker, error: Exception) -> None:
        if self._on_failure == "raise":
            self.failure = error
            return
        problem = f"{type(error).__name__}: {error}"
        _log.warning(
            "stage %s failed for %r, its documents stay as they were: %s", type(stage).__name__, self._task.query, problem
        )
        usage = spent_before(error)
        failures = max(1, usage.get("failures", 0))
        self._usages.append({**usage, "failures": failures, "error": problem, **_deadline(error)})

    def _score(self, document: Document) -> float | None:
        """The score that the stage has given; None if it gave none."""
        before = len(provenance(self._task.documents[int(str(document.id))]).stages)
        given = [result.score for result in provenance(document).stages[before:] if result.score is not None]
        return given[-1] if given else None

    def _sums(self) -> dict[str, Any]:
        return {name: sum(usage[name] for usage in self._usages if name in usage) for name in _SUMS}

    def _named(self, usage: Any) -> dict[str, Any]:
        """Notes are about documents by the caller's ids."""
        notes = [
            {**note, "documents": [self._task.documents[int(at)].id for at in note["documents"]]}
            for note in usage.get("notes", ())
        ]
        return {**usage, "notes": notes} if notes else dict(usage)


def _deadline(error: Exception) -> dict[str, str]:
    return {"stopped": "deadline"} if isinstance(error, DeadlineError) else {}


def _numbered(document: Document, at: int) -> Document:
    return Document(id=str(at), page_content=document.page_content, metadata=document.metadata)


def _tighter(one: Budget, other: Budget) -> Budget:
    """Both of two budgets."""
    limits = {
        name: [limit for limit in (getattr(one, name), getattr(other, name)) if limit is not None] for name in Budget.model_fields
    }
    return Budget(**{name: min(values, default=None) for name, values in limits.items()})
