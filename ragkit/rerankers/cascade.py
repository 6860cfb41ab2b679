"""Reranking in stages: cheap over all, dearer over the best."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Self

from langchain_core.documents import Document
from pydantic import Field, model_validator

from ragkit.compressor import Outcome, Task
from ragkit.rerankers.base import Reranker
from ragkit.rerankers.ranking import Ranking, RankingReranker

_SUMS = ("calls", "rounds", "prompt_tokens", "completion_tokens", "uncounted", "cached", "failures", "seconds")


class CascadeReranker(RankingReranker):
    """Rerankers of any kind, each over the best of the one before (Nogueira et al. 2019, duoBERT); the rest stays behind.

    Unlike rerankers in a pipeline it loses no document between its stages. A stage is asked for no more than a later one reads,
    or the cascade returns. Prompts, budgets and what becomes of failures are its stages' own; scores are 1 / rank, as those of
    different stages do not compare. The usage sums up those of the stages, which are under `stages`; `stopped` is the first
    stage's whose budget ended.
    """

    stages: list[Reranker] = Field(min_length=1)
    """The cheapest first."""
    depths: list[int] = []
    """How many of the best so far each stage but the first sees."""

    @model_validator(mode="after")
    def _one_depth_each(self) -> Self:
        if len(self.depths) != len(self.stages) - 1:
            raise ValueError(f"depths: one for each stage but the first, so {len(self.stages) - 1}, not {len(self.depths)}")
        if any(depth < 1 for depth in self.depths):
            raise ValueError(f"depths: each at least 1, not {min(self.depths)}")
        return self

    def rankings(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        """See `RankingReranker`."""
        walk = self._walk(tasks)
        try:
            stage, asked = next(walk)
            while True:
                stage, asked = walk.send(stage.process(asked))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def arankings(self, tasks: Sequence[Task]) -> list[Ranking | Exception]:
        """See `RankingReranker`."""
        walk = self._walk(tasks)
        try:
            stage, asked = next(walk)
            while True:
                stage, asked = walk.send(await stage.aprocess(asked))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _walk(
        self, tasks: Sequence[Task]
    ) -> Generator[tuple[Reranker, list[Task]], Sequence[Outcome | Exception], list[Ranking | Exception]]:
        ways = [_Way(task) for task in tasks]
        for at, stage in enumerate(self.stages):
            needed = None if self.top_k is None else max([self.top_k, *self.depths[at:]])
            depth = self.depths[at - 1] if at else None
            active = [way for way in ways if way.failure is None]
            outcomes = yield stage.model_copy(update={"top_k": needed}), [way.enter(depth) for way in active]
            for way, outcome in zip(active, outcomes, strict=True):
                way.leave(outcome)
        return [way.failure or Ranking(way.order, None, way.usage()) for way in ways]


class _Way:
    """One question on its way through the stages; its documents are known by their place, as ids may come twice."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.order = list(range(len(task.documents)))
        self.failure: Exception | None = None
        self._usages: list[dict[str, Any]] = []

    def enter(self, depth: int | None) -> Task:
        return self.task._replace(documents=[_numbered(self.task.documents[at], at) for at in self.order[:depth]])

    def leave(self, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Exception):
            self.failure = outcome
            return
        best = [int(str(document.id)) for document in outcome.documents]
        self.order = list(dict.fromkeys([*best, *self.order]))
        self._usages.append(self._named(outcome.usage))

    def usage(self) -> dict[str, Any]:
        sums = {name: sum(usage[name] for usage in self._usages if name in usage) for name in _SUMS}
        stopped = next((usage["stopped"] for usage in self._usages if "stopped" in usage), None)
        return {**sums, **({"stopped": stopped} if stopped else {}), "stages": self._usages}

    def _named(self, usage: Any) -> dict[str, Any]:
        """Notes are about documents by the caller's ids."""
        notes = [
            {**note, "documents": [self.task.documents[int(at)].id for at in note["documents"]]}
            for note in usage.get("notes", ())
        ]
        return {**usage, "notes": notes} if notes else dict(usage)


def _numbered(document: Document, at: int) -> Document:
    return Document(id=str(at), page_content=document.page_content, metadata=document.metadata)
